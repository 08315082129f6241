"""Where outputs go: regular files alone, through links, whole; and a full disk is a sentence."""

import json
import os
import resource
import signal
import stat
import sys
from pathlib import Path

import pytest
import torch
from evaluation import picture, run_script, save_clip

from hf_vtp import VTPConfig, files
from hf_vtp.tools import commands
from hf_vtp.tools.bench import cli, report

ROOT = Path(__file__).resolve().parent.parent
SPEED = ROOT / "model_cards" / "results" / "cpu-2core" / "clip_vit_b16_fp32.json"


def device(path):
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))  # another null device, not the machine's own
    except PermissionError:
        pytest.skip("only root makes device nodes")


def socket(path):
    import socket as sockets

    with sockets.socket(sockets.AF_UNIX) as made:
        made.bind(os.path.relpath(path))  # such a path may have 108 bytes


SPECIAL = {"device": device, "FIFO": os.mkfifo, "socket": socket}


@pytest.fixture(params=SPECIAL)
def special(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "special.png"
    SPECIAL[request.param](path)
    yield path
    assert not stat.S_ISREG(path.stat().st_mode) and list(tmp_path.glob(".special*")) == []


def test_what_is_no_regular_file_is_not_replaced(special, tmp_path):
    (tmp_path / "link.png").symlink_to(special)
    for target in (special, tmp_path / "link.png"):
        with pytest.raises(OSError, match="a device, a pipe or a socket"):
            with files.replacing(target):
                pytest.fail("opened")
        with pytest.raises(cli.UsageError, match=r"cannot be written \(it is a device, a pipe or a socket"):
            cli.writable(str(target), ".png")
    assert (tmp_path / "link.png").is_symlink()


OUTPUTS = {  # of every script that writes where it is told to
    "bench_clip": [("--weights", "random", "--plot"), ("--weights", "random", "--json")],
    "bench_llava": [("--plot",), ("--json",)],
    "bench_vlm": [("--model", "m", "--plot"), ("--model", "m", "--json")],
    "bench_methods": [("--json",)],
    "bench_qwen2_5_vl": [("--plot",), ("--json",)],
    "bench_weighted": [("--json",)],
    "eval_clip": [("--model", "m", "--data", "d", option) for option in ("--json", "--plot", "--verdict")],
    "eval_vlm": [
        ("--model", "m", "--data", "d", option)
        for option in ("--json", "--plot", "--verdict", "--predictions")
    ],
    "make_questions": [("--data", ".", "--out")],
    "tune": [("--model", "m", "--target", "0.9", "--json")],
    "verify": [("--model", "m", "--json")],
    "visualize": [("picture.png", "--out")],
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_no_output_of_a_script_goes_to_a_device_or_a_pipe(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = run_script(name, capsys)
    special = "special.jsonl" if name == "make_questions" else "special.png"
    os.mkfifo(special)
    picture(0).save("picture.png")
    for argv in OUTPUTS[name]:
        code, out, err = run(*argv, special)
        assert (code, out) == (2, "") and err.count("\n") == 1 and "a device, a pipe or a socket" in err
        assert stat.S_ISFIFO(os.stat(special).st_mode)


def test_no_card_or_config_replaces_a_pipe(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("README.md", "vtp_config.json", "bench.json"):
        os.mkfifo(name)
    asked = ("--model", "a/b", "--results", SPEED, "--out", "README.md")
    code, _, err = run_script("make_model_card", capsys)(*asked)
    assert code == 2 and "a device, a pipe or a socket" in err
    asked = ("--model", "m", "--target", "0.9", "--out", ".")
    code, _, err = run_script("tune", capsys)(*asked)
    assert code == 2 and "a device, a pipe or a socket" in err
    with pytest.raises(OSError, match="a device, a pipe or a socket"):
        VTPConfig().save_pretrained(tmp_path)
    with pytest.raises(OSError, match="a device, a pipe or a socket"):
        report.write_json(tmp_path / "bench.json", {})
    assert all(stat.S_ISFIFO(path.stat().st_mode) for path in tmp_path.iterdir())


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path):
    (tmp_path / "there").mkdir()
    file, link, far = tmp_path / "there" / "file.json", tmp_path / "link.json", tmp_path / "far.json"
    link.symlink_to("there/file.json")  # leads nowhere yet
    far.symlink_to(link)
    for content, target in (("one", link), ("two", far)):
        assert cli.writable(str(target)) == target
        with files.replacing(target) as path:
            assert path.parent == file.parent  # the same file system, or it could not take its place
            path.write_text(content)
        assert link.is_symlink() and far.is_symlink() and file.read_text() == content
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(cli.UsageError, match="cannot be written"):
        cli.writable(str(loop))
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        *("far.json", "file.json", "link.json", "loop", "there"),
    ]


def test_a_file_that_this_process_prints_to_is_not_replaced(tmp_path):
    (tmp_path / "link").symlink_to("printed")  # as /dev/stdout is after `> printed`
    stdout = os.dup(1)
    try:
        with (tmp_path / "printed").open("w") as printed:
            os.dup2(printed.fileno(), 1)
        with pytest.raises(cli.UsageError, match="where this process reads from or prints to"):
            cli.writable(str(tmp_path / "link"))
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
    assert cli.writable(str(tmp_path / "link"))


@pytest.mark.parametrize("name", ["n" * 300, "n" * 252 + ".png", "é" * 200 + ".png"])
def test_a_name_that_is_too_long_is_a_sentence(name, tmp_path, capsys, monkeypatch):
    for check in (cli.writable, lambda path: cli.folder(path, "--out")):
        with pytest.raises(cli.UsageError, match="File name too long"):
            check(str(tmp_path / name))
    monkeypatch.chdir(tmp_path)
    for script, argv in (
        ("bench_clip", ("--model", name)),
        ("bench_clip", ("--weights", "random", "--images", name)),
        ("eval_clip", ("--model", "m", "--data", name)),
        ("eval_vlm", ("--model", "m", "--data", f"{name}.jsonl")),
        ("make_model_card", ("--model", "a/b", "--results", name)),
        ("make_questions", ("--data", name, "--out", "q.jsonl")),
        ("push_to_hub", ("--model", name, "--keep-ratio", 0.5, "--repo", "a/b")),
        ("tune", ("--model", name, "--target", 0.9)),
        ("tune", ("--model", "m", "--target", 0.9, "--images", name)),
        ("visualize", (name, "--out", "o.png")),
        ("visualize", ("p.png", "--model", name, "--out", "o.png")),
    ):
        if "p.png" in argv:
            picture(0).save("p.png")
        code, out, err = run_script(script, capsys)(*argv)
        assert (code, out, err.count("\n")) == (2, "", 1), (script, argv, err)
    assert {path.name for path in tmp_path.iterdir()} <= {"p.png"}


def test_a_long_name_that_fits_is_written(tmp_path):
    for name in ("n" * 251 + ".txt", "é" * 120 + ".txt", "a." + "x" * 250):
        with files.replacing(tmp_path / name) as path:
            path.write_text("whole")
        assert (tmp_path / name).read_text() == "whole"


@pytest.fixture
def full():
    """A disk that takes 2,000 bytes of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)


def test_a_full_disk_is_a_sentence(tmp_path, capsys, full):
    """Of whatever is written at the end of a run; the old file stays."""
    from matplotlib.figure import Figure

    from hf_vtp.tools.testbed import training

    old = tmp_path / "old"
    old.write_text("old")

    def plot(path):
        Figure().savefig(path, format="png")

    def save(path):
        training._save(path, {}, {}, torch.nn.Linear(60, 60), torch.nn.Linear(1, 1), [])

    def picture_of(path):
        picture(0, 200, 200).save(path, "PNG")

    for write in (plot, picture_of, lambda path: path.write_text("x" * 10_000)):

        def main(argv, write=write):
            with files.replacing(old) as path:
                write(path)

        assert cli.run(main, []) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and "File too large" in err
    assert cli.run(lambda argv: save(old), []) == 2 and "File too large" in capsys.readouterr().err
    assert old.read_text() == "old" and list(tmp_path.iterdir()) == [old]


def test_a_full_disk_behind_stdout_is_a_sentence(capsys, monkeypatch):
    with open("/dev/full", "w") as disk:
        monkeypatch.setattr(sys, "stdout", disk)
        assert cli.run(lambda argv: print("x"), []) == 2
        disk.flush()  # as the interpreter does when it ends
        monkeypatch.undo()
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "No space left" in err


def test_numbers_of_twenty_digits_are_a_sentence(capsys):
    number = "9" * 20
    for script, argv in (
        ("bench_clip", ("--batch-size", number)),
        ("bench_clip", ("--seed", number)),
        ("bench_clip", ("--threads", number)),
        ("bench_methods", ("--num-tokens", number)),
        ("demo", ("--port", number)),
        ("eval_vlm", ("--seed", number)),
        ("make_questions", ("--seed", f"-{number}")),
        ("tune", ("--budget", number)),
    ):
        code, out, err = run_script(script, capsys)(*argv)
        assert (code, out, err.count("\n")) == (2, "", 1) and "must be" in err, err


@pytest.mark.parametrize("name", ["broken.json", "list", "type", "nested"])
def test_a_garbled_model_is_a_sentence(name, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "model"
    save_clip(folder)
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["hidden_size"] = "wide"
    told = {"broken.json": "{", "list": "[]", "type": json.dumps(config), "nested": "[" * 100_000}
    (folder / "config.json").write_text(told[name])
    picture(0).save(tmp_path / "p.png")
    monkeypatch.chdir(tmp_path)
    for script, argv in (
        ("bench_clip", ("--model", folder, "--images", "p.png")),
        ("tune", ("--model", folder, "--target", 0.9, "--images", "p.png")),
        ("visualize", ("p.png", "--model", folder, "--out", "o.png")),
        ("push_to_hub", ("--model", folder, "--base-model", "a/b", "--keep-ratio", 0.5, "--repo", "a/b")),
    ):
        code, out, err = run_script(script, capsys)(*argv)
        assert (code, out, err.count("\n")) == (2, "", 1), (script, err)


def test_every_script_that_writes_is_in_the_table():
    places = [ROOT / "scripts", Path(commands.__file__).parent]
    found = [path for place in places for path in place.glob("*.py") if "cli.writable(" in path.read_text()]
    assert len(found) > 10
    for path in found:
        assert path.stem in {*OUTPUTS, "make_model_card", "push_to_hub", "train_testbed"}, path
