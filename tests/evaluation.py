"""Folders with tiny models, their tokenizers and image processors, and data, for the tests of evaluation."""

import json
import sys

import load_script
import numpy as np
import torch
from load_script import SCRIPTS
from models import clip_config, sharpen
from PIL import Image
from qwen import Qwen
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer, PreTrainedTokenizerFast
from vlm import EOS, IMAGE, PAD, VOCAB, Llava

CLASSES = ("bird", "cat", "dog")
LETTERS = [*"abcdefghijklmnopqrstuvwxyz."]
TEMPLATE = (
    "{% for m in messages %}{% for c in m.content %}{% if c.type == 'image' %}<start> <image> <end>"
    "{% else %} {{ c.text }}{% endif %}{% endfor %}{% endfor %}"
)


def run_script(name, capsys):
    """A script on some arguments, in this process: (exit code, stdout, stderr)."""

    def run(*argv):
        capsys.readouterr()
        return load_script.run(name, *argv), *capsys.readouterr()

    return run


def image_processor(size):
    square = {"height": size, "width": size}
    return CLIPImageProcessor(size={"shortest_edge": size}, crop_size=square)


def save_clip(folder):
    """A CLIP of 6 × 6 patches with a tokenizer of letters."""
    torch.manual_seed(0)
    config = clip_config()
    config.text_config.vocab_size, config.text_config.max_position_embeddings = 56, 40
    config.text_config.eos_token_id = 55
    sharpen(CLIPModel(config)).save_pretrained(folder)
    words = [*LETTERS, *(letter + "</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[]).save_pretrained(folder)
    image_processor(24).save_pretrained(folder)


def word_tokenizer(**named):
    """One id a word: yes is 1, no is 2, other numbers words w3, w4 …; special ones as `named`."""
    words = {f"w{i}": i for i in range(VOCAB)} | {"yes": 1, "no": 2}
    words = {word: i for word, i in words.items() if i not in named.values() and word not in ("w1", "w2")}
    tokenizer = Tokenizer(WordLevel({**words, **named}, unk_token="w3"))
    tokenizer.pre_tokenizer = Whitespace()
    special = [word for word in named if word not in ("<pad>", "<eos>")]
    kwargs = {"pad_token": "<pad>", "unk_token": "w3", "additional_special_tokens": special}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **kwargs)


def save_llava(folder):
    """A LLaVA of 6 × 6 patches without a chat template."""
    model = Llava.model()
    with torch.no_grad():  # or the answers would not depend on the image
        model.model.multi_modal_projector.linear_2.weight.mul_(30)
        for layer in model.model.language_model.layers:
            layer.self_attn.o_proj.weight.mul_(5)
    model.save_pretrained(folder)
    word_tokenizer(**{"<pad>": PAD, "<eos>": EOS, "<image>": IMAGE}).save_pretrained(folder)
    image_processor(24).save_pretrained(folder)


def save_qwen(folder):
    """A Qwen2.5-VL with a chat template, for images of any size."""
    Qwen.model().save_pretrained(folder)
    ids = Qwen.tokens
    named = {"<start>": ids["vision_start_token_id"], "<end>": ids["vision_end_token_id"]}
    tokenizer = word_tokenizer(**{"<pad>": PAD, "<image>": ids["image_token_id"], **named})
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    config = {
        "image_processor_type": "Qwen2VLImageProcessor",
        **{"patch_size": 4, "merge_size": 2, "temporal_patch_size": 2},
        "size": {"shortest_edge": 64, "longest_edge": 64 * 64},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(config))


def picture(i, width=30, height=30):
    """Noise with a colour and a bright corner of its own."""
    random = np.random.default_rng(i)
    pixels = random.integers(0, 120, (height, width, 3), dtype=np.uint8)
    pixels[: 6 + i % 9, : 8 + i % 7] = random.integers(120, 256, 3)
    return Image.fromarray(pixels)


def save_classes(folder, per_class=4, broken=False):
    """An imagefolder; the last picture of its first class cut short if `broken`."""
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for i in range(per_class):
            picture(10 * label + i).save(folder / name / f"{i}.png")
    if broken:
        file = folder / CLASSES[0] / f"{per_class - 1}.png"
        file.write_bytes(file.read_bytes()[:200])


def save_captions(folder, count=5):
    """An imagefolder with two captions an image, in metadata.jsonl."""
    folder.mkdir(parents=True)
    with (folder / "metadata.jsonl").open("w") as file:
        for i in range(count):
            picture(i).save(folder / f"{i}.png")
            captions = [f"{LETTERS[i]} {LETTERS[2 * i]} picture", f"{LETTERS[i + 3]} view"]
            file.write(json.dumps({"file_name": f"{i}.png", "captions": captions}) + "\n")


def save_questions(folder, count=7, answers=("yes", "no"), sizes=((30, 30),)):
    """questions.jsonl with its images beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "questions.jsonl").open("w") as file:
        for i in range(count):
            picture(i, *sizes[i % len(sizes)]).save(folder / f"{i}.png")
            question = " ".join(f"w{5 + i + j}" for j in range(1 + i % 3))  # of different lengths
            row = {"image": f"{i}.png", "question": question, "answers": [answers[i % len(answers)]]}
            file.write(json.dumps(row) + "\n")
    return folder / "questions.jsonl"


def launch(script, *argv, cwd):
    """The script in two processes, started as a user does."""
    import os
    import subprocess

    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--main_process_port", "0", str(SCRIPTS / f"{script}.py"), *map(str, argv)]
    path = os.pathsep.join([str(SCRIPTS.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
