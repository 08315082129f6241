"""eval-vlm on a tiny LLaVA and Qwen2.5-VL: its answers are those of a user's script, its numbers theirs."""

import json

import datasets
import pytest
import torch
from eval_vlm import arguments, evaluator, predictions, save_models
from evaluation import picture, save_questions
from transformers import AutoTokenizer, CLIPImageProcessor, LlavaForConditionalGeneration
from vlm import IMAGE

from hf_vtp import vtp
from hf_vtp.tools.evaluation.cases import BASELINES

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return save_models(tmp_path_factory.mktemp("eval_vlm"))


@pytest.fixture
def evaluate(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return evaluator(capsys)


def test_llava(root, evaluate, tmp_path):
    files = [tmp_path / name for name in ("r.json", "r.png", "r.txt", "p.jsonl")]
    options = ("--json", "--plot", "--verdict", "--predictions")
    flags = [word for pair in zip(options, files, strict=True) for word in pair]
    result, out, _ = evaluate(*arguments(root), "--layer", "default", "output", *flags)
    assert result == json.loads(files[0].read_text())
    assert out.count("vtp against the best baseline of each cell") == 5  # four metrics and agreement
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.jsonl", "r.json", "r.png", "r.txt"]
    assert result["metrics"] == ["exact_match", "vqa_accuracy", "anls", "pope"]
    assert (result["num_items"], result["num_resumed"], result["num_processes"]) == (7, 0, 1)
    rows = {(row["method"], row["layer"]): row for row in result["rows"]}
    inside = [(method, layer) for layer in ("default", "output") for method in (*BASELINES, "vtp")]
    assert list(rows) == [("unpruned", "-"), ("downsample", "-"), *inside]
    counts = {key[0]: (row["kept_tokens"], row["total_tokens"]) for key, row in rows.items()}
    assert counts.pop("unpruned") == (36, 36) and counts.pop("downsample") == (16, 36)
    assert set(counts.values()) == {(18, 36)}
    metrics = {"exact_match", "vqa_accuracy", "anls", "pope_accuracy", "pope_f1", "pope_yes", "agreement"}
    assert all(metrics < set(row) and row["questions_per_s"] > 0 for row in rows.values())
    assert all(row["flop_ratio"] > 1 for key, row in rows.items() if key[0] != "unpruned")
    compared = {(c["metric"], c["layer"]) for c in result["comparisons"]}
    assert compared == {(m, w) for m in metrics - {"pope_f1", "pope_yes"} for w in ("default", "output")}

    answers = predictions(files[3])
    cases = 2 + 2 * (2 * 2 + 2 + 1)  # random and random+absorb have two seeds
    assert len(answers) == 7 * cases
    model = LlavaForConditionalGeneration.from_pretrained(root / "llava").eval()
    tokenizer = AutoTokenizer.from_pretrained(root / "llava")
    processor = CLIPImageProcessor.from_pretrained(root / "llava")
    for i in range(7):  # one by one, as a user would ask
        pixels = processor(images=picture(i), return_tensors="pt")["pixel_values"]
        text = f"w9 {'<image> ' * 36}{answers['unpruned', str(i)]['question']} w8"
        inputs = {**tokenizer(text, return_tensors="pt"), "pixel_values": pixels}
        inputs.pop("token_type_ids", None)
        assert (inputs["input_ids"] == IMAGE).sum() == 36
        for case, pruned in (("unpruned", 1.0), ("vtp 0.5 layer default", 0.5)):
            with vtp(model, keep_ratio=pruned), torch.no_grad():
                output = model.generate(**inputs, max_new_tokens=3, do_sample=False)
            new = output[0, inputs["input_ids"].shape[1] :]
            assert (
                answers[case, str(i)]["prediction"] == tokenizer.decode(new, skip_special_tokens=True).strip()
            )
    assert len({row["prediction"] for row in answers.values()}) > 2  # what is always the same tells nothing


def test_metrics_are_those_of_the_predictions(root, evaluate, tmp_path):
    """Right is what the unpruned model says, so that the others' scores are their agreement with it."""
    evaluate(*arguments(root), "--predictions", tmp_path / "p.jsonl")
    answers = predictions(tmp_path / "p.jsonl")
    file = save_questions(
        tmp_path / "q", answers=[answers["unpruned", str(i)]["prediction"] for i in range(7)]
    )
    result, _, _ = evaluate(*arguments(root, data=file), "--predictions", tmp_path / "again.jsonl")
    rows = {row["method"]: row for row in result["rows"]}

    def agreement(case):
        return (
            sum(
                answers[case, str(i)]["prediction"] == answers["unpruned", str(i)]["prediction"]
                for i in range(7)
            )
            / 7
        )

    assert rows["unpruned"]["exact_match"] == rows["unpruned"]["anls"] == 1
    assert rows["vtp"]["exact_match"] == pytest.approx(agreement("vtp 0.5 layer default"))
    assert all(row["agreement"] == row["exact_match"] for row in result["rows"])
    assert rows["vtp"]["exact_match_lossyness"] == pytest.approx(1 - rows["vtp"]["exact_match"])
    seeds = [agreement(f"random 0.5 layer default seed {seed}") for seed in range(2)]
    assert rows["random"]["exact_match"] == pytest.approx(sum(seeds) / 2)
    assert 0 < sum(row["exact_match"] for row in result["rows"]) < len(rows)


def test_downsampling_asks_about_smaller_images(root, evaluate, tmp_path):
    evaluate(*arguments(root), "--predictions", tmp_path / "p.jsonl")
    answers = predictions(tmp_path / "p.jsonl")
    model = LlavaForConditionalGeneration.from_pretrained(root / "llava").eval()
    tokenizer = AutoTokenizer.from_pretrained(root / "llava")
    small = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    processor = CLIPImageProcessor.from_pretrained(root / "llava")
    hidden = model.model.vision_tower.forward
    model.model.vision_tower.forward = lambda x, **kwargs: hidden(
        x, **{**kwargs, "interpolate_pos_encoding": True}
    )
    for i in range(3):
        pixels = processor(images=picture(i), return_tensors="pt", **small)["pixel_values"]
        tokens = tokenizer(
            f"w9 {'<image> ' * 16}{answers['unpruned', str(i)]['question']} w8", return_tensors="pt"
        )
        ids = tokens["input_ids"]
        output = model.generate(input_ids=ids, pixel_values=pixels, max_new_tokens=3, do_sample=False)
        text = tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True).strip()
        row = answers["downsample 0.5", str(i)]
        assert row["prediction"] == text and row["kept_tokens"] == row["total_tokens"] == 16


def test_qwen_with_images_of_several_sizes(root, evaluate, tmp_path):
    argv = arguments(root, "qwen", "sizes/questions.jsonl")
    result, _, _ = evaluate(*argv, "--predictions", tmp_path / "p.jsonl")
    answers = predictions(tmp_path / "p.jsonl")
    units = {"0": 3 * 5, "1": 6 * 4, "2": 8 * 8}  # 40 × 24, 32 × 48 and 64 × 64 pixels in units of 8
    for name, count in units.items():
        assert answers["unpruned", name]["kept_tokens"] == count
        assert answers["vtp 0.5 layer default", name]["kept_tokens"] == round(count / 2)
        assert abs(answers["downsample 0.5", name]["kept_tokens"] - round(count / 2)) <= count / 8
    assert result["metrics"] == ["exact_match", "vqa_accuracy", "anls"]  # no answer is yes or no
    assert result["rows"][0]["total_tokens"] == round(sum((15, 24, 64, 15, 24)) / 5, 1)


def test_captions_with_and_without_a_text_encoder(root, evaluate, tmp_path):
    argv = (*arguments(root, data="sizes/questions.jsonl"), "--metric", "caption_cosine", "exact_match")
    result, _, _ = evaluate(*argv, "--text-encoder", root / "clip", "--predictions", tmp_path / "p.jsonl")
    assert all(-1 <= row["caption_cosine"] <= 1 for row in result["rows"])
    assert {c["metric"] for c in result["comparisons"]} == {"caption_cosine", "exact_match", "agreement"}
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
