"""eval-vlm: a run that was killed resumes, two processes agree, and wrong input is one sentence."""

import json

import pytest
from eval_vlm import TIMES, arguments, evaluator, predictions, save_models
from evaluation import launch, picture

from hf_vtp.tools.evaluation import script_vlm

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return save_models(tmp_path_factory.mktemp("eval_vlm"))


@pytest.fixture
def evaluate(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return evaluator(capsys)


def test_a_run_that_was_killed_goes_on(root, evaluate, tmp_path, monkeypatch):
    file = tmp_path / "p.jsonl"
    first, _, _ = evaluate(*arguments(root), "--predictions", file)
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
    rows = [[{k: v for k, v in row.items() if k not in TIMES} for row in r["rows"]] for r in (first, again)]
    assert rows[0] == rows[1] and first["comparisons"] == again["comparisons"]


def test_answers_are_on_disk_before_the_next_question(root, evaluate, tmp_path, monkeypatch):
    file, original = tmp_path / "p.jsonl", script_vlm.ask
    batches = []

    def ask(*args):
        batches.append(len(file.read_text().splitlines()) - 1)
        if len(batches) == 4:
            raise KeyboardInterrupt
        return original(*args)

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
    files = {
        "image": [{**row, "image": "b.png"}],
        "outside": [{**row, "image": "../q/0.png"}],
        "answer": [{**row, "answers": None}],
        "twice": [row, row],
        "other": [{"hf_vtp_predictions": 1, "model": "another"}],
    }
    for stem, rows in files.items():
        (bad / f"{stem}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (bad / "empty.jsonl").write_text("")
    (bad / "text.jsonl").write_text("once upon a time\n")
    argv, sentence = REFUSED[name]
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    asked = [word.format(root, question="{question}") for word in argv]
    code, out, err = evaluate.fails(*arguments(root), *asked)
    assert code == 2 and out == "" and err.count("\n") == 1 and sentence in err
    assert before == {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
