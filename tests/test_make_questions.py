"""scripts/make_questions.py: balanced questions about classified images, that eval_vlm.py reads."""

import json

import pytest
from PIL import Image

from hf_vtp.tools.bench import cli
from hf_vtp.tools.commands import make_questions
from hf_vtp.tools.evaluation.items import decoded
from hf_vtp.tools.evaluation.questions import read_questions

CLASSES = ("cat", "dog", "emu")


@pytest.fixture
def folder(tmp_path):
    for shade, name in enumerate(CLASSES):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(30):
            Image.new("RGB", (4, 4), (shade, i, 0)).save(tmp_path / "images" / name / f"{i:02}.png")
    (tmp_path / "images" / "cat" / "notes.txt").write_text("no image")
    return tmp_path


def made(folder, *more):
    out = folder / "questions.jsonl"
    make_questions.main(["--data", str(folder / "images"), "--out", str(out), *more])
    return [json.loads(line) for line in out.read_text().splitlines()], out


def test_the_questions_are_balanced_and_right(folder, capsys):
    rows, out = made(folder, "--num", "60", "--skip", "10")
    assert json.loads(capsys.readouterr().out)["num_questions"] == 60
    assert [row["id"] for row in rows] == list(range(60))
    named = [row for row in rows if row["question"] == "What is in the image?"]
    asked = [row for row in rows if row["question"].startswith("Is there ")]
    assert len(named) == len(asked) == 30
    for row in rows:
        _, truth, file = row["image"].split("/")
        assert 10 <= int(file[:2]) < 30
        article = "an emu" if truth == "emu" else f"a {truth}"
        if row in named:
            assert row["answers"] == [article]
        else:
            about = row["question"].removeprefix("Is there ").removesuffix(" in the image?")
            assert row["answers"] == ["yes" if about == article else "no"]
            assert about in ("a cat", "a dog", "an emu")
    assert 8 <= sum(row["answers"] == ["yes"] for row in asked) <= 22
    assert {sum(r["image"].split("/")[1] == name for r in rows) for name in CLASSES} == {20}
    questions = read_questions(str(out))
    assert len(questions) == 60 and decoded(questions[0]).size == (4, 4)


def test_a_seed_decides_everything(folder):
    once, again = made(folder, "--num", "30")[0], made(folder, "--num", "30")[0]
    other = made(folder, "--num", "30", "--seed", "1")[0]
    assert once == again != other


@pytest.mark.parametrize(
    "more, says",
    [
        (("--num", "31"), "multiple of the 3 classes"),
        (("--num", "93"), "too few"),
        (("--num", "60", "--skip", "11"), "too few"),
        (("--num", "3", "--skip", "-1"), "--skip"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_leaves_no_file(folder, more, says):
    with pytest.raises(cli.UsageError, match=says) as error:
        made(folder, *more)
    assert "\n" not in str(error.value)
    assert not (folder / "questions.jsonl").exists()


def test_the_file_must_see_its_images(folder):
    (folder / "elsewhere").mkdir()
    told = [
        "--data",
        str(folder / "images"),
        "--out",
        str(folder / "elsewhere" / "questions.jsonl"),
        "--num",
        "3",
    ]
    with pytest.raises(cli.UsageError, match="--out must lie in"):
        make_questions.main(told)
