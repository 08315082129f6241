"""Every metric against numbers worked out by hand, and how the modules are loaded."""

import math
import re
import subprocess
import sys
from pathlib import Path

import evaluate
import pytest

from hf_vtp import metrics


def compute(name, predictions, references, **kwargs):
    return metrics.load(name).compute(predictions=predictions, references=references, **kwargs)


def test_there_are_all_and_no_other():
    wanted = "anls cider embedding_cosine exact_match lossyness pope recall_at_k top_k_accuracy vqa_accuracy"
    assert metrics.NAMES == wanted.split()
    with pytest.raises(ValueError, match=r"unknown metric 'bleu'; choose from \['anls'"):
        metrics.load("bleu")


def test_the_modules_load_from_their_paths_in_a_process_without_network():
    """`evaluate.load` of each file, with sockets that cannot be opened."""
    code = (
        "import socket\n"
        "def refuse(*args, **kwargs): raise AssertionError('the network was asked')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "import evaluate\n"
        f"for name in {metrics.NAMES}: print(evaluate.load(f'{metrics.FOLDER}/{{name}}.py').name)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == metrics.NAMES


def test_no_module_imports_two_things_on_one_line():
    """`evaluate` reads imports by a pattern that takes "a, b" for one name."""
    for file in Path(metrics.FOLDER).glob("*.py"):
        assert not re.search(r"^import .*,", file.read_text(), flags=re.MULTILINE), file.name


def test_top_k_accuracy():
    ranked = [[2, 1, 0], [0, 1, 2], [1, 2, 0], [1, 0, 2]]  # of right ones: first, last, second, last
    found = compute("top_k_accuracy", ranked, [2, 2, 2, 2], k=[1, 2], items=True)
    assert found == {"top_1": 0.25, "top_1_items": [1, 0, 0, 0], "top_2": 0.5, "top_2_items": [1, 0, 1, 0]}


def test_recall_at_k():
    ranked, relevant = [[3, 1, 0], [0, 2, 4], [5, 6, 7]], [[1], [4, 0], [9]]
    found = compute("recall_at_k", ranked, relevant, k=[1, 2], items=True)
    assert found["recall_at_1_items"] == [0, 1, 0] and found["recall_at_2_items"] == [1, 1, 0]
    assert found["recall_at_1"] == pytest.approx(1 / 3) and found["recall_at_2"] == pytest.approx(2 / 3)


def test_embedding_cosine():
    found = compute("embedding_cosine", [[1, 0], [1, 1], [3, 4]], [[2, 0], [5, 0], [-3, -4]], items=True)
    assert found["cosine_items"] == pytest.approx([1, math.sqrt(0.5), -1])
    assert found["cosine_mean"] == pytest.approx(math.sqrt(0.5) / 3)
    assert found["cosine_min"] == pytest.approx(-1)
    # of three, the fifth percentile lies a tenth of the way from the lowest to the middle one
    assert found["cosine_p5"] == pytest.approx(-1 + 0.1 * (math.sqrt(0.5) + 1))


VQA = {  # answer, answers of people, score
    "one of ten": ("cat", ["cat"] + ["dog"] * 9, 9 / 10 * 1 / 3),
    "two of ten": ("cat", ["cat"] * 2 + ["dog"] * 8, (2 * 1 / 3 + 8 * 2 / 3) / 10),
    "three of ten": ("cat", ["cat"] * 3 + ["dog"] * 7, (3 * 2 / 3 + 7) / 10),
    "four of ten": ("cat", ["cat"] * 4 + ["dog"] * 6, 1),
    "none": ("bird", ["cat"] * 10, 0),
    "words": ("Two dogs, on the grass.", ["2 dogs on grass"] * 10, 1),
    "apostrophe and point": ("Don't, 2.5", ["dont 2.5"], 1),
    "one person": ("cat", ["cat"], 1),
    "one of two": ("cat", ["cat", "dog"], 1 / 2),
}


@pytest.mark.parametrize("name", VQA)
def test_vqa_accuracy(name):
    prediction, answers, score = VQA[name]
    assert compute("vqa_accuracy", [prediction], [answers])["vqa_accuracy"] == pytest.approx(score)


def test_exact_match():
    predictions, right = ["A cat. ", "the cat", "no  cat"], [["a cat"], ["a cat", "cat"], ["No cat."]]
    found = compute("exact_match", predictions, right, items=True)
    assert found == {"exact_match": pytest.approx(2 / 3), "exact_match_items": [1, 0, 1]}


def test_anls():
    predictions = ["Invoice 12", "invoise 12", "abcd", "abcd", "abcd"]
    right = [["invoice 12"], ["invoice 12"], ["abzz"], ["azzz"], ["xyz", "abce"]]
    found = compute("anls", predictions, right, items=True)
    assert found["anls_items"] == pytest.approx([1, 0.9, 0.5, 0, 0.75])  # a quarter is below the threshold
    assert found["anls"] == pytest.approx((1 + 0.9 + 0.5 + 0.75) / 5)


def test_anls_counts_insertions_and_deletions():
    found = compute("anls", ["abcdef", "abcd"], [["abcd"], ["xabcd"]], items=True)
    assert found["anls_items"] == pytest.approx([1 - 2 / 6, 1 - 1 / 5])


def test_cider_by_hand():
    """Two images without a word in common, so that each n-gram weighs log 2 and the weights cancel."""
    found = compute(
        "cider", ["A black cat.", "two dogs run"], [["a black cat"], ["two dogs run fast"]], items=True
    )
    one, two, three = 3 / math.sqrt(3 * 4), 2 / math.sqrt(2 * 3), 1 / math.sqrt(1 * 2)
    short = 10 * math.exp(-1 / 72) * (one + two + three + 0) / 4
    assert found["cider_items"] == pytest.approx([10 * 3 / 4, short])  # three words make no four-gram
    assert found["cider"] == pytest.approx((7.5 + short) / 2)


def test_cider_weighs_words_and_does_not_pay_for_repeating_them():
    right = [["a dog runs on the grass", "a dog on the lawn"], ["a boy swims in the sea"], ["a red bus"]]

    def scores(first):
        return compute("cider", [first, "x", "x"], right, items=True)["cider_items"]

    assert scores("a")[0] == 0  # every image has it
    assert scores("dog")[0] > scores("dog dog dog dog dog dog")[0] > 0
    # cut off at the reference's one dog: a word said twice has the same product and a longer vector
    assert scores("dog dog")[0] == pytest.approx(scores("dog x")[0] * math.sqrt(2) / 2)
    own = [compute("cider", [text, "x", "x"], right, items=True)["cider_items"][0] for text in right[0]]
    assert max(own) < 10 and scores("dog")[0] < min(own)
    same = compute("cider", ["a b c d", "e f g h"], [["a b c d"], ["e f g h"] * 3])
    assert same["cider"] == pytest.approx(10)


def test_cider_of_an_empty_caption_or_a_single_image_is_nothing():
    assert compute("cider", ["", "a cat"], [["a dog"], ["the sun"]])["cider"] == 0
    assert compute("cider", ["a cat"], [["a cat"]])["cider"] == 0  # nothing is rare among one


def test_pope():
    predictions = ["Yes", "No, there is not. Yes.", "yes, it is", "There is not any", "Yes.", "no"]
    right = ["yes", "yes", "no", "no", "Yes", "no"]
    found = compute("pope", predictions, right, items=True)
    # right: 1st, 4th, 5th, 6th; yes was answered three times, twice rightly, of three there were
    assert found["pope_accuracy_items"] == [1, 0, 0, 1, 1, 1]
    assert found["pope_accuracy"] == pytest.approx(4 / 6) and found["pope_yes"] == 0.5
    assert found["pope_f1"] == pytest.approx(2 * (2 / 3) * (2 / 3) / (4 / 3))
    with pytest.raises(ValueError, match="must be 'yes' or 'no', not 'maybe'"):
        compute("pope", ["yes"], ["maybe"])


def test_lossyness():
    assert compute("lossyness", [1, 0, 1, 0], [1, 1, 1, 1])["lossyness"] == 0.5
    assert compute("lossyness", [1, 1], [1, 0])["lossyness"] == -1  # a gain
    assert compute("lossyness", [1, 1], [0, 0])["lossyness"] is None


def test_evaluate_itself_takes_the_path():
    metric = evaluate.load(str(metrics.FOLDER / "anls.py"))
    assert metric.compute(predictions=["ab"], references=[["ab"]]) == {"anls": 1.0}
