"""`hf-vtp`: what it lists and refuses, and that every script is one of its commands."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from evaluation import save_classes
from load_script import SCRIPTS, run

from hf_vtp.tools import commands
from hf_vtp.tools.bench import cli
from hf_vtp.tools.commands import COMMANDS

THIN = {  # by script: its command
    **{file: name for name in COMMANDS if (SCRIPTS / (file := f"{name.replace('-', '_')}.py")).is_file()},
    **{f"{name}.py": "bench-vlm" for name in ("bench_llava", "bench_qwen2_5_vl")},
    "testbed/make_data.py": "make-testbed-data",
    "testbed/make_caption_data.py": "make-caption-data",
    "testbed/train.py": "train-testbed",
}


def module(name):
    return importlib.import_module(f"hf_vtp.tools.commands.{name.replace('-', '_')}")


@pytest.fixture
def hf_vtp(monkeypatch, capsys):
    """Runs `hf-vtp` in this process: exit code, stdout and stderr."""
    monkeypatch.setattr(sys, "argv", ["hf-vtp"])

    def run(*argv):
        capsys.readouterr()
        return commands.main([str(word) for word in argv]), *capsys.readouterr()

    return run


def test_the_list_of_commands_imports_neither_torch_nor_transformers():
    code = "import sys; from hf_vtp.tools.commands import main; code = main(sys.argv[1:]); "
    code += "print(code, sorted({'torch', 'transformers', 'numpy', 'PIL'} & set(sys.modules)))"
    for argv in ((), ("--help",), ("-h",), ("--version",), ("nothing",)):
        done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True)
        *text, last = done.stdout.splitlines()
        assert last == f"{2 if argv == ('nothing',) else 0} []", done.stderr
        if argv not in (("--version",), ("nothing",)):
            listed = [line.split(maxsplit=1) for line in text if line.startswith("  ")]
            assert [(name, said) for name, said in listed] == list(COMMANDS.items())


def test_every_module_is_a_command_and_every_command_a_module():
    files = {path.stem for path in Path(commands.__file__).parent.glob("[!_]*.py")}
    assert files == {name.replace("-", "_") for name in COMMANDS}
    for name, line in COMMANDS.items():
        assert "\n" not in line and len(line) < 90
        assert module(name).__doc__ and callable(module(name).main) and callable(module(name).parser), name


def test_an_unknown_command_is_one_sentence_that_lists_them(hf_vtp):
    code, out, err = hf_vtp("benchclip", "--model", "m")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "unknown command 'benchclip'; choose from bench-clip, bench-vlm" in err
    assert all(name in err for name in COMMANDS)


def test_a_command_may_have_a_short_name(hf_vtp):
    code, out, _ = hf_vtp("eval", "--help")
    assert code == 0 and out.startswith("usage: hf-vtp eval ") and "ILSVRC/imagenet-1k" in out
    assert "hf-vtp eval is hf-vtp eval-clip." in hf_vtp("--help")[1]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_called_by_its_name(name, hf_vtp):
    code, out, err = hf_vtp(name, "--help")
    assert code == 0 and out.startswith(f"usage: hf-vtp {name} ") and err == ""
    assert " ".join(module(name).__doc__.splitlines()[0].split()) in " ".join(out.split())
    code, out, err = hf_vtp(name, "--nonsense")
    assert code == 2 and out == "" and err.startswith(f"hf-vtp {name}: ") and err.count("\n") == 1


@pytest.mark.parametrize("script", THIN)
def test_a_script_is_its_command_and_no_more(script, capsys, monkeypatch):
    assert run(script.removesuffix(".py"), "--help") == 0
    monkeypatch.setattr(sys, "argv", [script])
    shown = module(THIN[script]).parser().format_help()
    assert capsys.readouterr().out == shown and shown.startswith(f"usage: {Path(script).name} ")
    text = (SCRIPTS / script).read_text()
    assert len(text.splitlines()) <= 20 and f'run("{THIN[script]}"' in text


def test_only_what_needs_the_repository_is_no_command():
    own = {"make_pictures.py", "push_demo.py", "readme_quality.py", "readme_real.py", "update_readme.py"}
    own |= {"demo/app.py", "testbed/train_probe.py"}
    found = {str(path.relative_to(SCRIPTS)) for path in SCRIPTS.rglob("*.py")}
    assert {name for name in found - set(THIN) if not name.startswith("dev/")} == own


def test_a_result_says_how_it_was_made(hf_vtp, tmp_path, monkeypatch, capsys):
    """By name, or by the script; options that a script adds are not said, as nobody typed them."""
    save_classes(tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    argv = ("--data", "images", "--out", "images/q.jsonl", "--num", "3")
    code, out, err = hf_vtp("make-questions", *argv)
    assert code == 0 and json.loads(out)["command"] == f"hf-vtp make-questions {' '.join(argv)}", err
    assert run("make_questions", *argv) == 0
    assert (
        json.loads(capsys.readouterr().out)["command"] == f"python scripts/make_questions.py {' '.join(argv)}"
    )
    monkeypatch.setattr(sys, "argv", ["scripts/bench_llava.py", "--rounds", "3"])
    seen = []
    monkeypatch.setattr(module("bench-vlm"), "main", lambda argv: seen.append((argv, cli.command())))
    commands.run("bench-vlm", "--model", "m")
    assert seen == [(["--model", "m", "--rounds", "3"], "python scripts/bench_llava.py --rounds 3")]


def test_what_a_user_types_overrules_what_a_script_adds(hf_vtp):
    args = module("bench-vlm").parser().parse_args(["--model", "a", "--layer", "output", "--model", "b"])
    assert args.model == "b" and args.layer == ["output"]
    again = ["--model", "a", "--layer", "default", "output", "--layer", "3", "--model", "b"]
    assert module("bench-vlm").parser().parse_args(again).layer == [3]
