"""One loader and one builder of prompts: put together from parts, they are those of Transformers."""

import json
import subprocess
import sys

import pytest
import torch
from evaluation import TEMPLATE, image_processor, picture, save_clip, save_llava, save_qwen, word_tokenizer
from models import clip, pixels, same
from transformers import (
    AutoConfig,
    AutoProcessor,
    CLIPConfig,
    CLIPVisionConfig,
    Dinov2Config,
    LlavaOnevisionConfig,
    SiglipVisionConfig,
)
from vlm import Llava

from hf_vtp import VTPConfig, apply_vtp, vtp_stats
from hf_vtp.tools.bench.cli import UsageError
from hf_vtp.tools.cases import prune, pruned_as, refuse_impossible
from hf_vtp.tools.image_processors import load_image_processor
from hf_vtp.tools.models import load_config, load_model, load_with_processor, refuse_unprunable
from hf_vtp.tools.processors import assemble, load_processor, num_prefix_tokens
from hf_vtp.tools.prompts import Prompts, image_inputs, plain_template

pytestmark = pytest.mark.models
SMALL = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    save_clip(root / "clip")
    save_llava(root / "llava")
    save_qwen(root / "qwen")
    return root


def test_a_processor_put_together_makes_what_the_stock_one_makes(root, tmp_path):
    loaded = load_with_processor(str(root / "llava"))
    loaded.processor.save_pretrained(tmp_path)
    loaded.model.config.save_pretrained(tmp_path)
    stock = AutoProcessor.from_pretrained(tmp_path)
    images, questions = [picture(0), picture(1)], ["w5", "w6 w7 w8"]
    made, counts = Prompts(loaded.model, loaded.processor, "{image} {question}")(images, questions)
    texts = [f"<image> {question}" for question in questions]
    wanted = stock(images=images, text=texts, padding=True, padding_side="left", return_tensors="pt")
    assert counts == [36, 36] and set(made) == {"input_ids", "attention_mask", "pixel_values"}
    assert all(torch.equal(value, wanted[name]) for name, value in made.items())
    again = load_processor(str(tmp_path), loaded.model.config)
    assert again.num_additional_image_tokens == 1 and again.patch_size == 4


@pytest.mark.parametrize("name", ["llava", "qwen"])
def test_a_model_runs_on_the_prompts_made_for_it(root, name):
    """The number of placeholders is the number of rows that the model makes of a picture."""
    loaded = load_with_processor(str(root / name), answers=True)
    template = plain_template(loaded.model, loaded.processor)
    prompts = Prompts(loaded.model, loaded.processor, template)
    images = [picture(0), picture(1, 40, 24)]
    inputs, counts = prompts(images, ["w5", "w6 w7"])
    assert counts == ([36, 36] if name == "llava" else [16, 15])
    assert loaded.answers and loaded.model(**inputs).logits.shape[:2] == inputs["input_ids"].shape
    alone, _ = prompts(images[1:], ["w6 w7"])
    width = alone["input_ids"].shape[1]
    assert torch.equal(inputs["input_ids"][1, -width:], alone["input_ids"][0])
    assert not inputs["attention_mask"][0, : -prompts(images[:1], ["w5"])[0]["input_ids"].shape[1]].any()


def test_parts_for_videos_may_be_missing():
    """LLaVA-OneVision's processor has one; nobody here asks for a video."""
    vision = dict(**SMALL, model_type="siglip_vision_model", image_size=24, patch_size=4)
    config = LlavaOnevisionConfig(vision_config=vision, image_token_id=90)
    tokenizer = word_tokenizer(**{"<pad>": 0, "<eos>": 91, "<image>": 90})
    made = assemble(config, image_processor(24), tokenizer, {"num_image_tokens": 36})
    assert made.video_processor is None and made.image_token == "<image>" and made.num_image_tokens == 36


@pytest.mark.parametrize(
    ("config", "count"),
    [(CLIPVisionConfig, 1), (SiglipVisionConfig, 0), (Dinov2Config, 1)],
)
def test_tokens_before_the_patches_are_counted_by_shapes(config, count):
    assert num_prefix_tokens(config(**SMALL, image_size=32, patch_size=8)) == count


def test_the_chat_template_of_either_is_used(root):
    loaded = load_with_processor(str(root / "qwen"))
    processor = loaded.processor
    processor.chat_template = None
    assert processor.tokenizer.chat_template == TEMPLATE
    assert Prompts(loaded.model, processor, instruction="w9").text("w5") == "<start> <image> <end> w5\nw9"
    processor.chat_template = TEMPLATE.replace("<end>", "<end> w8")
    assert Prompts(loaded.model, processor).text("w5") == "<start> <image> <end> w8 w5"


def test_the_beginning_of_a_text_is_written_once(root):
    loaded = load_with_processor(str(root / "llava"))
    tokenizer = loaded.tokenizer
    tokenizer.bos_token = "w4"
    asked = []

    def note(*args, **kwargs):
        asked.append(kwargs.get("add_special_tokens", True))
        return made(*args, **kwargs)

    made = type(loaded.processor).__call__
    processor = type("Noting", (type(loaded.processor),), {"__call__": note})
    loaded.processor.__class__ = processor
    for template in ("{image} {question}", "w4 {image} {question}"):
        Prompts(loaded.model, loaded.processor, template)([picture(0)], ["w5"])
    assert asked == [True, False]


@pytest.mark.parametrize(
    ("template", "question", "sentence"),
    [
        (None, "w5", "has no chat template; give --prompt"),
        ("{question}", "w5", "has 0 places for an image, not one"),
        ("{image}{image} {question}", "w5", "has 2 places for an image, not one"),
        ("{image} {question}", "w5 <image>", "must not name the image's placeholder"),
    ],
)
def test_a_prompt_with_another_number_of_places_is_refused(root, template, question, sentence):
    loaded = load_with_processor(str(root / "llava"))
    with pytest.raises(UsageError, match=sentence):
        Prompts(loaded.model, loaded.processor, template)([picture(0)], [question])


def test_an_image_processor_is_of_the_class_that_its_file_names(root, tmp_path):
    saved = json.loads((root / "clip" / "preprocessor_config.json").read_text())
    for fields, base in (
        ({"image_processor_type": "SiglipImageProcessorFast"}, "SiglipImageProcessor"),
        ({"image_processor_type": "LlavaImageProcessorPil"}, "LlavaImageProcessor"),
        ({"feature_extractor_type": "CLIPFeatureExtractor"}, "CLIPImageProcessor"),  # of old checkpoints
    ):
        kept = {name: value for name, value in saved.items() if name != "image_processor_type"}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(kept | fields))
        found = load_image_processor(str(tmp_path), local_files_only=True)
        assert type(found).__name__.removesuffix("Pil") == base and dict(found.size) == saved["size"]
    for name in ("OwnImageProcessor", "CLIPModel"):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": name}))
        with pytest.raises(UsageError, match=f"of type {name}, which Transformers does not have"):
            load_image_processor(str(tmp_path), local_files_only=True)


def test_random_weights_need_a_config_only(root, tmp_path):
    AutoConfig.from_pretrained(root / "llava").save_pretrained(tmp_path)
    model = load_model(str(tmp_path), weights="random", dtype=torch.bfloat16)
    assert type(model).__name__ == "LlavaForConditionalGeneration" and model.dtype == torch.bfloat16
    assert load_config("llava-tiny", "random").model_type == "llava"
    assert load_config("openai/clip-vit-base-patch16", "random").model_type == "clip_vision_model"
    with pytest.raises(UsageError, match="no geometry is known for llava-giant; choose a folder or openai"):
        load_config("llava-giant", "random")


def test_families_that_cannot_be_pruned_are_refused():
    refuse_unprunable("m", CLIPConfig())
    for config, answers in ((Dinov2Config(model_type="mine"), False), (CLIPConfig(), True)):
        config.model_type = "clip" if answers else "mine"
        with pytest.raises(UsageError, match=r"m is of model_type '\w+'; choose a model of one of .*llava"):
            refuse_unprunable("m", config, answers)


def test_pictures_alone_are_made_where_the_model_is():
    model = clip("CLIPModel").to(torch.bfloat16)
    made = image_inputs(model, image_processor(24), [picture(0)])
    assert made["pixel_values"].dtype == torch.bfloat16 and made["pixel_values"].shape == (1, 3, 24, 24)


@torch.no_grad()
def test_a_model_is_pruned_as_a_case_says_and_then_as_it_was():
    model, batch = clip("CLIPModel"), pixels(2)
    unpruned = model.get_image_features(batch)
    half = VTPConfig(keep_ratio=0.5)
    with pruned_as(model, half):
        model.get_image_features(batch)
        assert vtp_stats(model).num_kept == [18, 18]
    with pruned_as(model, None):
        assert same(model.get_image_features(batch), unpruned)
    prune(model, half)
    with pruned_as(model, VTPConfig(keep_ratio=0.25)):
        pass
    model.get_image_features(batch)
    assert vtp_stats(model).num_kept == [18, 18]
    assert same(prune(model, None).get_image_features(batch), unpruned) and "_vtp" not in vars(model)


def test_what_cannot_be_pruned_so_is_refused_and_the_model_left():
    model = apply_vtp(Llava.model(), keep_ratio=0.5)
    before = vars(model)["_vtp"]
    with pytest.raises(UsageError, match="choose from 0 to"):
        refuse_impossible(model, [None, VTPConfig(layer=1), VTPConfig(layer=9)])
    assert vars(model)["_vtp"] is before


def test_tuning_drawing_and_metrics_import_tools_only_when_they_run():
    code = "import sys, hf_vtp.tuning, hf_vtp.visualize, hf_vtp.metrics\n"
    code += "print([name for name in sys.modules if name.startswith('hf_vtp.tools')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
