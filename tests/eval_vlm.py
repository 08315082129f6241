"""Tiny models and questions for the tests of eval-vlm, and the command run on them."""

import json

from evaluation import run_script, save_clip, save_llava, save_questions, save_qwen

TIMES = {"questions_per_s", "speedup"}
PROMPT = "w9 {image} {question} w8"
QUICK = ("--device", "cpu", "--rounds", 1, "--seeds", 2, "--method", "vtp", "--max-new-tokens", 3)
QUICK += ("--keep-ratio", 0.5, "--batch-size", 3)


def save_models(root):
    """Models that answer, one that does not, and questions."""
    save_llava(root / "llava")
    save_qwen(root / "qwen")
    save_clip(root / "clip")
    save_questions(root / "q")
    save_questions(root / "sizes", count=5, answers=("a b", "c"), sizes=((40, 24), (32, 48), (64, 64)))
    return root


def evaluator(capsys):
    """The command on some arguments: (its result, stdout, stderr); `fails` gives its exit code instead."""
    run = run_script("eval_vlm", capsys)

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
