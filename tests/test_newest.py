"""scripts/dev/newest_transformers.py: a newer Transformers goes into a folder, torch stays as it is."""

import subprocess
import sys
import zipfile
from importlib.metadata import version

import pytest
from load_script import SCRIPTS

SCRIPT = SCRIPTS / "dev" / "newest_transformers.py"


@pytest.fixture
def index(tmp_path):
    """A folder of wheels in the place of a package index, and a function that puts one in."""

    def add(name, number, needs=()):
        info = f"{name}-{number}.dist-info"
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {number}"]
        files = {
            f"{name}/__init__.py": f"__version__ = '{number}'\n",
            f"{info}/METADATA": "\n".join([*lines, *(f"Requires-Dist: {need}" for need in needs), ""]),
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/RECORD": "",
        }
        (tmp_path / "wheels").mkdir(exist_ok=True)
        with zipfile.ZipFile(tmp_path / "wheels" / f"{name}-{number}-py3-none-any.whl", "w") as wheel:
            for path, text in files.items():
                wheel.writestr(path, text)

    return add


def run(tmp_path, *, code=None):
    environment = {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(tmp_path / "wheels"),
        "PIP_CONFIG_FILE": "/dev/null",
    }
    environment |= {"PATH": "", "HOME": str(tmp_path), "PYTHONPATH": str(tmp_path / "newest") if code else ""}
    command = (
        [sys.executable, "-c", code] if code else [sys.executable, str(SCRIPT), str(tmp_path / "newest")]
    )
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr.strip()


SHOWN = "import transformers, tokenizers; print(transformers.__version__, tokenizers.__version__)"


def test_a_newer_release_is_installed_with_what_it_needs_newer(index, tmp_path):
    index("transformers", "99.1", ["tokenizers>=99", "torch>=2", "numpy"])
    index("tokenizers", "99.7")
    index("numpy", "999")  # the one that is there will do
    assert run(tmp_path) == ("99.1", "")
    assert run(tmp_path, code=SHOWN) == ("99.1 99.7", "")
    assert sorted(p.name for p in (tmp_path / "newest").glob("*.dist-info")) == [
        "tokenizers-99.7.dist-info",
        "transformers-99.1.dist-info",
    ]


def test_it_is_installed_once_for_each_version(index, tmp_path):
    index("transformers", "99.1")
    assert run(tmp_path)[0] == "99.1"
    (tmp_path / "newest" / "mark").touch()
    assert run(tmp_path)[0] == "99.1" and (tmp_path / "newest" / "mark").exists()
    index("transformers", "99.2")
    assert run(tmp_path)[0] == "99.2" and not (tmp_path / "newest" / "mark").exists()


def test_without_a_newer_one_a_line_says_so(index, tmp_path):
    index("transformers", "4.0")
    index("transformers", "99.0rc1")  # a candidate is no release
    own = version("transformers")
    assert run(tmp_path) == ("", f"no Transformers is newer than {own}, which was tested already")
    assert not (tmp_path / "newest").exists()


def test_without_an_index_a_line_says_so(tmp_path):
    assert run(tmp_path) == ("", "the package index cannot be asked for a newer Transformers: left out")


def test_torch_is_never_replaced(index, tmp_path):
    index("torch", "99.0")
    index("transformers", "99.1", ["torch>=99"])
    out, line = run(tmp_path)
    assert out == "" and line == f"Transformers 99.1 cannot be had beside torch {version('torch')}: left out"
    assert not (tmp_path / "newest").exists()
