"""Files that others made, or that others are writing: predictions, questions, archives, pictures."""

import json
import os
import subprocess
import sys
import time
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from evaluation import picture, run_script, save_llava, save_questions
from models import clip, pixels
from PIL import Image

from hf_vtp import tune, vtp, vtp_stats
from hf_vtp.tools.bench import images
from hf_vtp.tools.bench.cli import UsageError
from hf_vtp.tools.evaluation.cases import Case
from hf_vtp.tools.evaluation.predictions import Ledger
from hf_vtp.tools.evaluation.questions import read_questions
from hf_vtp.tools.evaluation.script_vlm import already
from hf_vtp.visualize import contact_sheet, draw_kept, see
from hf_vtp.visualize.picture import read_picture
from hf_vtp.visualize.shipped import STAND_INS

RUN = {"model": "m"}
ROW = {"case": "a", "id": "1", "prediction": "x"}
HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "ab")
fcntl.flock(file, fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(600)
"""


# ---------------------------------------------------------------- predictions


def test_a_second_evaluation_of_one_file_is_refused(tmp_path):
    path = tmp_path / "p.jsonl"
    first = Ledger(path, RUN)
    first.merge()
    first.add([ROW])
    (tmp_path / "link.jsonl").symlink_to(path)
    for name in ("p.jsonl", "link.jsonl"):
        before = path.read_bytes()
        with pytest.raises(UsageError, match="another evaluation is writing .*p.jsonl; wait for its end"):
            Ledger(tmp_path / name, RUN).merge()
        assert path.read_bytes() == before
    other = Ledger(path, RUN, index=1)  # another process of the same evaluation
    other.add([{**ROW, "id": "2"}])
    other.close()
    assert len(first.merge()) == 2  # the file was replaced, the lock is still held
    with pytest.raises(UsageError, match="another evaluation"):
        Ledger(path, RUN).merge()
    first.close()
    assert len(Ledger(path, RUN).merge()) == 2


def test_the_lock_dies_with_its_process(tmp_path):
    path = tmp_path / "p.jsonl"
    Ledger(path, RUN).merge()
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(UsageError, match="another evaluation"):
            Ledger(path, RUN).merge()
        holder.kill()
    assert Ledger(path, RUN).merge() == {}


def test_a_file_that_was_replaced_in_between_is_not_locked(tmp_path, monkeypatch):
    """Opened before the first evaluation put the merged file in place, locked after: the old one."""
    from hf_vtp.tools.evaluation import predictions as ledger

    path, real = tmp_path / "p.jsonl", ledger.fcntl.flock
    path.write_text("")

    def late(file, how):
        real(file, how)
        (tmp_path / "new").write_text("")
        os.replace(tmp_path / "new", path)

    monkeypatch.setattr(ledger.fcntl, "flock", late)
    with pytest.raises(UsageError, match="another evaluation"):
        ledger.locked(path)


@pytest.mark.models
def test_the_script_refuses_a_file_in_use_and_leaves_it(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_llava(tmp_path / "llava")
    data = save_questions(tmp_path / "q", count=2)
    run = run_script("eval_vlm", capsys)
    argv = ("--model", "llava", "--data", data, "--prompt", "{image} {question}", "--device", "cpu")
    path = tmp_path / "predictions.jsonl"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        code, out, err = run(*argv)
        holder.kill()
    assert (code, out, err.count("\n")) == (2, "", 1) and "another evaluation is writing" in err
    assert path.read_bytes() == b"" and not list(tmp_path.glob(".*"))
    path.write_bytes(b"x")
    code, out, err = run(*argv)
    assert (code, err.count("\n")) == (2, 1) and "is no file of predictions" in err


def test_resuming_compares_what_the_images_show(tmp_path):
    questions = read_questions(str(save_questions(tmp_path, count=2)))
    run = SimpleNamespace(cases=[Case()], args=SimpleNamespace(predictions="p.jsonl"))
    from hf_vtp.tools.evaluation.items import content, decoded

    done = {}
    for question in questions:
        row = {"question": question.text, "answers": list(question.answers), "kept_tokens": 1}
        row |= {"image": content(decoded(question)), "total_tokens": 1}
        done["unpruned", question.id] = row
    assert already(run, questions, done) == 2
    Image.open(tmp_path / "1.png").save(
        tmp_path / "1.png", compress_level=1
    )  # another file, the same picture
    assert already(run, questions, done) == 2
    picture(7).save(tmp_path / "1.png")
    with pytest.raises(UsageError, match="another question, image or other answers with the id 1"):
        already(run, questions, done)
    (tmp_path / "1.png").write_bytes(b"broken")
    with pytest.raises(UsageError, match="with the id 1"):
        already(run, questions, done)
    del done["unpruned", "1"]
    assert already(run, questions, done) == 1
    del done["unpruned", "0"]["image"]  # of a version that did not look
    with pytest.raises(UsageError, match="with the id 0"):
        already(run, questions, done)


BAD_LINES = {
    "no id": json.dumps({"case": "a", "prediction": "x"}),
    "an id that is a number": json.dumps({**ROW, "id": 7}),
    "no JSON": "once upon a time",
    "nested": "[" * 100_000,
    "NUL": "\0" * 40,
    "twenty digits": json.dumps({**ROW, "kept_tokens": 10**20}),
    "many digits": '{"case": "a", "id": "1", "prediction": ' + "9" * 6000 + "}",
    "infinite": '{"case": "a", "id": "1", "prediction": "x", "total_tokens": 1e999}',
    "a list": "[1]",
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_line_that_is_no_prediction_is_a_sentence(name, tmp_path):
    path = tmp_path / "p.jsonl"
    Ledger(path, RUN).merge()
    with path.open("a") as file:
        file.write(f"{json.dumps(ROW)}\n{BAD_LINES[name]}\n")
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"line 3 of \S+ is no prediction, by its") as error:
        Ledger(path, RUN).merge()
    assert len(str(error.value)) < 500 and path.read_bytes() == before


def test_predictions_with_a_mark_odd_ends_of_lines_and_odd_names(tmp_path):
    path = tmp_path / "p[1]*.jsonl"
    said = "one\u2028two\x85three"
    ledger = Ledger(path, RUN)
    ledger.merge()
    ledger.add([{**ROW, "prediction": said}])
    ledger.close()
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    bystander = tmp_path / f"{path.name}.partners"
    bystander.write_text("not ours")
    part = Ledger(path, RUN, index=1)
    part.add([{**ROW, "id": "2"}])
    part.close()
    assert [row["prediction"] for row in Ledger(path, RUN).merge().values()] == [said, "x"]
    assert bystander.read_text() == "not ours"


@pytest.mark.parametrize("disk", ["/dev/full", "whole"])
def test_a_disk_that_fills_up_is_a_sentence(disk, tmp_path, monkeypatch):
    ledger = Ledger(tmp_path / "p.jsonl", RUN)
    ledger.merge()
    ledger.add([ROW])
    ledger.end()
    if disk == "/dev/full":
        monkeypatch.setattr(
            "hf_vtp.tools.evaluation.predictions.destination", lambda path: __import__("pathlib").Path(disk)
        )
        with pytest.raises(UsageError, match=r"cannot be written \(No space left"):
            ledger.add([ROW])
        return
    before = (tmp_path / "p.jsonl").read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(UsageError, match=r"cannot be written \(No space left"):
        ledger.merge()
    assert (tmp_path / "p.jsonl").read_bytes() == before


# ---------------------------------------------------------------- questions


def write_questions(folder, *rows, name="q.jsonl"):
    picture(0).save(folder / "a.png")
    (folder / name).write_bytes(b"".join(rows))
    return str(folder / name)


def question(**changes):
    row = {"image": "a.png", "question": "w5", "answers": ["yes"], **changes}
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


def test_questions_with_a_mark_and_odd_ends_of_lines(tmp_path):
    asked = ["one\u2028two", "three\x85four", "five\x0b\x0csix\x1c"]
    rows = [question(question=text, id=10**20 + i) for i, text in enumerate(asked)]
    rows = [row.replace(b"\\u000b\\f", b"\x0b\x0c") for row in rows[:2]] + [
        question(question="five", id="x" * 300)
    ]
    for mark in (b"", b"\xef\xbb\xbf"):
        found = read_questions(write_questions(tmp_path, mark, *rows))
        assert [q.text for q in found] == [*asked[:2], "five"]
        assert found[0].id == "1" + "0" * 20
    found = read_questions(write_questions(tmp_path, *(row.replace(b"\n", b"\r\n") for row in rows)))
    assert len(found) == 3


BAD_QUESTIONS = {
    "NUL in a name": (question(image="a\0.png"), "is no file beside it"),
    "a long name": (question(image="n" * 300 + ".png"), "is no file beside it"),
    "a long path": (question(image="n/" * 5000), "is no file beside it"),
    "nested": (b"[" * 100_000 + b"\n", "is no JSON object"),
    "nested object": (b'{"image": ' * 50_000 + b"\n", "is no JSON object"),
    "many digits": (b'{"image": "a.png", "id": ' + b"9" * 6000 + b"}\n", "is no JSON object"),
    "half a character": (question(question="\\ud800").replace(b"\\\\", b"\\"), "not valid Unicode"),
    "a folder": (question(image="."), "is no file beside it"),
    "NUL": (b"\0" * 50 + b"\n", "is no JSON object"),
}


@pytest.mark.parametrize("name", BAD_QUESTIONS)
def test_a_question_that_cannot_be_asked_is_a_sentence(name, tmp_path):
    row, sentence = BAD_QUESTIONS[name]
    with pytest.raises(UsageError, match=f"line 2 of .*{sentence}") as error:
        read_questions(write_questions(tmp_path, question(), row))
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000


# ---------------------------------------------------------------- archives


def archived(folder, change=None, compression=zipfile.ZIP_DEFLATED):
    """a.png whole, b.png with `change` made to the bytes of its headers (offset, bit or byte)."""
    picture(0).save(folder / "a.png")
    path = folder / "all.zip"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.write(folder / "a.png", "a.png")
        archive.write(folder / "a.png", "b.png")
        start = archive.getinfo("b.png").header_offset
    (folder / "a.png").unlink()
    if change is not None:
        data, (offset, value) = bytearray(path.read_bytes()), change
        directory = data.rindex(b"PK\x01\x02")
        data[start + offset], data[directory + offset + 2] = value, value
        path.write_bytes(data)
    return path


@pytest.mark.parametrize("change", [(6, 1), (6, 0x41), (6, 0x20), (8, 99), (8, 6)])
def test_members_that_are_encrypted_or_packed_otherwise_are_named_and_skipped(change, tmp_path, capsys):
    """Flags are at byte 6 of a header, the way of packing at byte 8."""
    found = images.find_images(str(archived(tmp_path, change)))
    assert len(list(found.decoded(9))) == 1 and found.skipped == ["all.zip/b.png"]
    err = capsys.readouterr().err
    assert err.startswith("skipped all.zip/b.png: ") and err.count("\n") == 1
    assert ("it is encrypted" in err) == (change[0] == 6 and bool(change[1] & 1))


@pytest.mark.parametrize("way", ["ZIP_STORED", "ZIP_BZIP2", "ZIP_LZMA", "ZIP_DEFLATED"])
def test_broken_members_of_every_way_of_packing_are_skipped(way, tmp_path):
    path = archived(tmp_path, compression=getattr(zipfile, way))
    data = bytearray(path.read_bytes())
    for i in range(60, 700):
        data[i] ^= 0x5A
    path.write_bytes(data)
    found = images.find_images(str(path))
    assert len(list(found.decoded(9))) == 1 and found.skipped == ["all.zip/a.png"]


def test_large_members_are_skipped_before_they_are_read(tmp_path, capsys, monkeypatch):
    path = archived(tmp_path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", b"\0" * (images.MOST_BYTES + 1))
    assert path.stat().st_size < 200_000
    found, read = images.find_images(str(path)), []
    original = zipfile.ZipFile.open
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda self, m, *a: read.append(m) or original(self, m, *a))
    assert len(list(found.decoded(9))) == 2 and found.skipped == ["all.zip/bomb.png"]
    assert [member.filename for member in read] == ["a.png", "b.png"]
    assert "it is larger than 64 MiB" in capsys.readouterr().err


# ---------------------------------------------------------------- pictures


@pytest.mark.models
@pytest.mark.parametrize("size", [(0, 0), (0, 9), (9, 0)])
def test_a_picture_without_pixels_is_a_sentence(size, tmp_path):
    empty, whole = Image.new("RGB", size), picture(1)
    eyes = STAND_INS["clip"]()
    told = (eyes.model, eyes.image_processor)
    with vtp(eyes.model, keep_ratio=0.5):
        see(eyes, whole)
        stats = vtp_stats(eyes.model)
    says = f"{size[0]} x {size[1]} pixels"
    for call in (
        lambda: draw_kept(empty, stats, eyes.image_processor),
        lambda: contact_sheet(*told, [empty]),
        lambda: see(eyes, empty),
        lambda: tune(clip("CLIPModel"), [whole] * 12 + [empty], 0.9, processor=eyes.image_processor),
    ):
        with pytest.raises(ValueError, match=says):
            call()
    found = images.Images("these", [("empty", lambda: empty), ("whole", lambda: whole)])
    assert len(list(found.decoded(2))) == 1 and found.skipped == ["empty"]


def test_a_pipe_for_a_picture_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "p.png")
    start = time.monotonic()
    with pytest.raises(UsageError, match="p.png is no file"):
        read_picture(tmp_path / "p.png")
    assert time.monotonic() - start < 5


@pytest.mark.models
def test_a_heat_map_of_nan_is_a_sentence():
    model, image = clip("CLIPModel"), picture(0, 24, 24)
    with vtp(model, method="qk_topk", keep_ratio=[0.7, 0.4], layer=[0, 2]):
        model.get_image_features(pixel_values=pixels(1))
        stats = vtp_stats(model)
    assert np.asarray(draw_kept(image, stats, heat_map=True)).size
    for value in (1, slice(None)):
        stats.stages[1].scores[0][value] = torch.nan
        for stage in (None, -1):
            with pytest.raises(
                ValueError, match="scores after layer 2 are NaN, of which there is no heat map"
            ):
                draw_kept(image, stats, heat_map=True, stage=stage)
        assert np.asarray(draw_kept(image, stats, heat_map=True, stage=0)).size
        assert np.asarray(draw_kept(image, stats)).size
