"""scripts/eval_vlm.py on a tiny LLaVA and Qwen2.5-VL: answers, files, resuming, errors, two processes."""

import json

import datasets
import pytest
import torch
from evaluation import launch, picture, run_script, save_clip, save_llava, save_questions, save_qwen
from transformers import AutoTokenizer, CLIPImageProcessor, LlavaForConditionalGeneration
from vlm import IMAGE

from hf_vtp import vtp
from hf_vtp.tools.evaluation import script_vlm
from hf_vtp.tools.evaluation.cases import FLOORS

pytestmark = pytest.mark.models
TIMES = {"questions_per_s", "speedup"}
PROMPT = "w9 {image} {question} w8"
QUICK = ("--device", "cpu", "--rounds", 1, "--seeds", 2, "--method", "vtp", "--max-new-tokens", 3)
QUICK += ("--keep-ratio", 0.5, "--batch-size", 3)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("eval_vlm")
    save_llava(root / "llava")
    save_qwen(root / "qwen")
    save_clip(root / "clip")
    save_questions(root / "q")
    save_questions(root / "sizes", count=5, answers=("a b", "c"), sizes=((40, 24), (32, 48), (64, 64)))
    return root


@pytest.fixture
def evaluate(capsys, monkeypatch, tmp_path):
    run = run_script("eval_vlm", capsys)
    monkeypatch.chdir(tmp_path)

    def evaluate(*argv):
        code, out, err = run(*argv)
        assert code == 0, err
        return json.loads(out.splitlines()[-1]), out, err

    evaluate.fails = run
    return evaluate


def arguments(root, model="llava", data="q/questions.jsonl"):
    prompt = () if model == "qwen" else ("--prompt", PROMPT)
    return ("--model", root / model, "--data", root / data, *QUICK, *prompt)


def predictions(path):
    head, *rows = map(json.loads, path.read_text().splitlines())
    assert head["hf_vtp_predictions"] == 1
    return {(row["case"], row["id"]): row for row in rows}


def test_llava(root, evaluate, tmp_path):
    files = [tmp_path / name for name in ("r.json", "r.png", "r.txt", "p.jsonl")]
    options = ("--json", "--plot", "--verdict", "--predictions")
    flags = [word for pair in zip(options, files, strict=True) for word in pair]
    result, out, _ = evaluate(*arguments(root), "--layer", "default", "output", *flags)
    assert result == json.loads(files[0].read_text())
    assert out.count("vtp against the best floor of each cell") == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.jsonl", "r.json", "r.png", "r.txt"]
    assert result["metrics"] == ["exact_match", "vqa_accuracy", "anls", "pope"]
    assert (result["num_items"], result["num_resumed"], result["num_processes"]) == (7, 0, 1)
    rows = {(row["method"], row["layer"]): row for row in result["rows"]}
    inside = [(method, layer) for layer in ("default", "output") for method in (*FLOORS, "vtp")]
    assert list(rows) == [("unpruned", "-"), ("downsample", "-"), *inside]
    counts = {key[0]: (row["kept_tokens"], row["total_tokens"]) for key, row in rows.items()}
    assert counts.pop("unpruned") == (36, 36) and counts.pop("downsample") == (16, 36)
    assert set(counts.values()) == {(18, 36)}
    metrics = {"exact_match", "vqa_accuracy", "anls", "pope_accuracy", "pope_f1", "pope_yes"}
    assert all(metrics < set(row) and row["questions_per_s"] > 0 for row in rows.values())
    assert all(row["flop_ratio"] > 1 for key, row in rows.items() if key[0] != "unpruned")
    compared = {(c["metric"], c["layer"]) for c in result["comparisons"]}
    assert compared == {(m, w) for m in metrics - {"pope_f1", "pope_yes"} for w in ("default", "output")}

    said = predictions(files[3])
    cases = 2 + 2 * (2 * 2 + 2 + 1)  # random and random+absorb have two seeds
    assert len(said) == 7 * cases
    model = LlavaForConditionalGeneration.from_pretrained(root / "llava").eval()
    tokenizer = AutoTokenizer.from_pretrained(root / "llava")
    processor = CLIPImageProcessor.from_pretrained(root / "llava")
    for i in range(7):  # one by one, as a user would ask
        pixels = processor(images=picture(i), return_tensors="pt")["pixel_values"]
        text = f"w9 {'<image> ' * 36}{said['unpruned', str(i)]['question']} w8"
        inputs = {**tokenizer(text, return_tensors="pt"), "pixel_values": pixels}
        inputs.pop("token_type_ids", None)
        assert (inputs["input_ids"] == IMAGE).sum() == 36
        for case, pruned in (("unpruned", 1.0), ("vtp 0.5 layer default", 0.5)):
            with vtp(model, keep_ratio=pruned), torch.no_grad():
                output = model.generate(**inputs, max_new_tokens=3, do_sample=False)
            new = output[0, inputs["input_ids"].shape[1] :]
            assert said[case, str(i)]["prediction"] == tokenizer.decode(new, skip_special_tokens=True).strip()
    assert len({row["prediction"] for row in said.values()}) > 2  # what is always the same tells nothing


def test_metrics_are_those_of_the_predictions(root, evaluate, tmp_path):
    """Right is what the unpruned model says, so that the others' scores are their agreement with it."""
    evaluate(*arguments(root), "--predictions", tmp_path / "p.jsonl")
    said = predictions(tmp_path / "p.jsonl")
    file = save_questions(tmp_path / "q", answers=[said["unpruned", str(i)]["prediction"] for i in range(7)])
    result, _, _ = evaluate(*arguments(root, data=file), "--predictions", tmp_path / "again.jsonl")
    rows = {row["method"]: row for row in result["rows"]}

    def agreement(case):
        return (
            sum(said[case, str(i)]["prediction"] == said["unpruned", str(i)]["prediction"] for i in range(7))
            / 7
        )

    assert rows["unpruned"]["exact_match"] == rows["unpruned"]["anls"] == 1
    assert rows["vtp"]["exact_match"] == pytest.approx(agreement("vtp 0.5 layer default"))
    assert rows["vtp"]["exact_match_lossyness"] == pytest.approx(1 - rows["vtp"]["exact_match"])
    seeds = [agreement(f"random 0.5 layer default seed {seed}") for seed in range(2)]
    assert rows["random"]["exact_match"] == pytest.approx(sum(seeds) / 2)
    assert 0 < sum(row["exact_match"] for row in result["rows"]) < len(rows)


def test_downsampling_asks_about_smaller_images(root, evaluate, tmp_path):
    evaluate(*arguments(root), "--predictions", tmp_path / "p.jsonl")
    said = predictions(tmp_path / "p.jsonl")
    model = LlavaForConditionalGeneration.from_pretrained(root / "llava").eval()
    tokenizer = AutoTokenizer.from_pretrained(root / "llava")
    small = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    processor = CLIPImageProcessor.from_pretrained(root / "llava")
    hidden = model.model.vision_tower.forward
    model.model.vision_tower.forward = lambda x, **told: hidden(
        x, **{**told, "interpolate_pos_encoding": True}
    )
    for i in range(3):
        pixels = processor(images=picture(i), return_tensors="pt", **small)["pixel_values"]
        tokens = tokenizer(
            f"w9 {'<image> ' * 16}{said['unpruned', str(i)]['question']} w8", return_tensors="pt"
        )
        ids = tokens["input_ids"]
        output = model.generate(input_ids=ids, pixel_values=pixels, max_new_tokens=3, do_sample=False)
        text = tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True).strip()
        row = said["downsample 0.5", str(i)]
        assert row["prediction"] == text and row["kept_tokens"] == row["total_tokens"] == 16


def test_qwen_with_images_of_several_sizes(root, evaluate, tmp_path):
    if not hasattr(__import__("transformers"), "Qwen2VLImageProcessor"):
        pytest.skip("this Transformers has no such image processor without torchvision")
    argv = arguments(root, "qwen", "sizes/questions.jsonl")
    code, out, err = evaluate.fails(*argv, "--predictions", tmp_path / "p.jsonl")
    if code == 2 and "image processor" in err:
        pytest.skip(err)
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    said = predictions(tmp_path / "p.jsonl")
    units = {"0": 3 * 5, "1": 6 * 4, "2": 8 * 8}  # 40 × 24, 32 × 48 and 64 × 64 pixels in units of 8
    for name, count in units.items():
        assert said["unpruned", name]["kept_tokens"] == count
        assert said["vtp 0.5 layer default", name]["kept_tokens"] == round(count / 2)
        assert abs(said["downsample 0.5", name]["kept_tokens"] - round(count / 2)) <= count / 8
    assert result["metrics"] == ["exact_match", "vqa_accuracy", "anls"]  # no answer is yes or no
    assert result["rows"][0]["total_tokens"] == round(sum((15, 24, 64, 15, 24)) / 5, 1)


def test_a_run_that_was_killed_goes_on(root, evaluate, tmp_path, monkeypatch):
    file = tmp_path / "p.jsonl"
    whole, _, _ = evaluate(*arguments(root), "--predictions", file)
    text = file.read_text()
    lines = text.splitlines(keepends=True)
    file.write_text("".join(lines[:21]) + lines[21][:30])  # a head, 20 answers and one cut short
    asked = []
    original = script_vlm.ask

    def ask(answerer, case, questions, images):
        asked.extend((case.name, question.id) for question in questions)
        return original(answerer, case, questions, images)

    monkeypatch.setattr(script_vlm, "ask", ask)
    again, _, _ = evaluate(*arguments(root), "--predictions", file)
    there = {(row["case"], row["id"]) for row in map(json.loads, lines[1:21])}
    assert len(there) == 20 and again["num_resumed"] == 20
    assert len(asked) == len(set(asked)) and not there & set(asked)
    assert len(asked) + 20 == len(lines) - 1
    assert file.read_text() == text
    rows = [[{k: v for k, v in row.items() if k not in TIMES} for row in r["rows"]] for r in (whole, again)]
    assert rows[0] == rows[1] and whole["comparisons"] == again["comparisons"]


def test_answers_are_on_disk_before_the_next_question(root, evaluate, tmp_path, monkeypatch):
    file, original = tmp_path / "p.jsonl", script_vlm.ask
    batches = []

    def ask(*told):
        batches.append(len(file.read_text().splitlines()) - 1)
        if len(batches) == 4:
            raise KeyboardInterrupt
        return original(*told)

    monkeypatch.setattr(script_vlm, "ask", ask)
    code, _, _ = evaluate.fails(*arguments(root), "--predictions", file)
    assert code == 130 and batches == [0, 3, 6, 9] and len(predictions(file)) == 9


def test_two_processes_give_the_same_numbers(root, evaluate, tmp_path):
    """Seven questions in batches of three: two batches for one process, one of one question in the end."""
    argv = arguments(root)
    one, _, _ = evaluate(*argv, "--predictions", tmp_path / "one.jsonl")
    lines = (tmp_path / "one.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "two.jsonl.part1").write_text(
        lines[5] + lines[30] + lines[31][:20]
    )  # of a run that was killed
    flags = ("--predictions", tmp_path / "two.jsonl", "--json", tmp_path / "two.json")
    done = launch("eval_vlm", *argv, *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    two = json.loads((tmp_path / "two.json").read_text())
    assert (one["num_processes"], two["num_processes"], two["num_resumed"]) == (1, 2, 2)
    assert predictions(tmp_path / "two.jsonl") == predictions(tmp_path / "one.jsonl")
    assert not list(tmp_path.glob("*.part*"))
    assert one["comparisons"] == two["comparisons"]
    for a, b in zip(one["rows"], two["rows"], strict=True):
        # now and then torch's counter sees one rotary product of Transformers 5.12 more: 5e-5 of the FLOPs
        counted = ("gflop_per_question", "flop_ratio")
        assert [a[k] for k in counted] == pytest.approx([b[k] for k in counted], rel=1e-3)
        apart = (*TIMES, *counted)
        assert {k: v for k, v in a.items() if k not in apart} == {k: b[k] for k in b if k not in apart}


def test_captions_with_and_without_a_text_encoder(root, evaluate, tmp_path):
    argv = (*arguments(root, data="sizes/questions.jsonl"), "--metric", "caption_cosine", "exact_match")
    result, _, _ = evaluate(*argv, "--text-encoder", root / "clip", "--predictions", tmp_path / "p.jsonl")
    assert all(-1 <= row["caption_cosine"] <= 1 for row in result["rows"])
    assert {c["metric"] for c in result["comparisons"]} == {"caption_cosine", "exact_match"}
    result, out, _ = evaluate(*argv, "--predictions", tmp_path / "p.jsonl")
    assert "n/a" in out and all(row["caption_cosine"] is None for row in result["rows"])
    assert result["num_resumed"] > 0  # the encoder changes no answer


def test_a_dataset_and_a_broken_image(root, evaluate, tmp_path):
    images = [picture(i) for i in range(3)]
    rows = {"image": images, "question": ["w5", "w6", "w7"], "question_id": [7, 8, 9]}
    rows["answers"] = [[{"answer": word} for word in ("yes", "no", "yes")]] * 3
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "q.parquet")
    argv = arguments(root, data=tmp_path / "q.parquet")
    result, _, _ = evaluate(*argv, "--num-questions", 2, "--predictions", tmp_path / "p.jsonl")
    assert result["num_items"] == 2
    row = predictions(tmp_path / "p.jsonl")["unpruned", "8"]
    assert row["answers"] == ["yes", "no", "yes"] and row["question"] == "w6"
    file = save_questions(tmp_path / "broken", count=3)
    (tmp_path / "broken" / "1.png").write_bytes(b"no image")
    result, _, err = evaluate(*arguments(root, data=file), "--predictions", tmp_path / "b.jsonl")
    assert "skipped question 1" in err and (result["num_items"], result["num_skipped"]) == (2, 1)


REFUSED = {  # arguments, and what the one sentence says
    "no data": (("--data", "{0}/nowhere.jsonl"), "cannot be read"),
    "no dataset": (("--data", "{0}/nowhere"), "there is no"),
    "no question": (("--data", "{0}/bad/empty.jsonl"), "there is no question"),
    "no JSON": (("--data", "{0}/bad/text.jsonl"), "line 1 of"),
    "no image": (("--data", "{0}/bad/image.jsonl"), "no file beside it"),
    "an image elsewhere": (("--data", "{0}/bad/outside.jsonl"), "no file beside it"),
    "no answer": (("--data", "{0}/bad/answer.jsonl"), "lacks a question or answers"),
    "one id twice": (("--data", "{0}/bad/twice.jsonl"), "two questions with the id 'x'"),
    "no place for the image": (("--prompt", "w9 {question}"), "0 places for an image"),
    "no chat template": (("--prompt", ""), "no chat template"),
    "a CLIP": (("--model", "{0}/clip"), "choose a model of one of"),
    "no model": (("--model", "{0}/nowhere"), "there is no folder"),
    "pope of other answers": (("--data", "{0}/sizes/questions.jsonl", "--metric", "pope"), "all yes or no"),
    "metric": (("--metric", "bleu"), "invalid choice"),
    "layer": (("--layer", "7"), "choose from 0 to 2"),
    "another file": (("--predictions", "{0}/q/questions.jsonl"), "is no file of predictions"),
    "another run": (("--predictions", "{0}/bad/other.jsonl"), "belongs to a run with model"),
    "predictions nowhere": (("--predictions", "{0}/nowhere/p.jsonl"), "does not exist"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_input_is_one_sentence_and_exit_code_2(root, evaluate, tmp_path, name):
    bad = root / "bad"
    bad.mkdir(exist_ok=True)
    picture(0).save(bad / "a.png")
    row = {"image": "a.png", "question": "w5", "answers": ["yes"], "id": "x"}
    told = {
        "image": [{**row, "image": "b.png"}],
        "outside": [{**row, "image": "../q/0.png"}],
        "answer": [{**row, "answers": None}],
        "twice": [row, row],
        "other": [{"hf_vtp_predictions": 1, "model": "another"}],
    }
    for stem, rows in told.items():
        (bad / f"{stem}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (bad / "empty.jsonl").write_text("")
    (bad / "text.jsonl").write_text("once upon a time\n")
    argv, sentence = REFUSED[name]
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    asked = [word.format(root, question="{question}") for word in argv]
    code, out, err = evaluate.fails(*arguments(root), *asked)
    assert code == 2 and out == "" and err.count("\n") == 1 and sentence in err
    assert before == {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
