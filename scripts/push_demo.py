#!/usr/bin/env python
"""Push the demo as a Space: its page, the package and the testbed's models.

    python scripts/push_demo.py user/hf-vtp-demo
    python scripts/push_demo.py --to folder          only lay the Space out in a folder

It needs `hf auth login` first.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from huggingface_hub import CommitInfo, HfApi, get_token

from hf_vtp.hub import WRITING, clearly, is_repo_id
from hf_vtp.tools.bench import cli

ROOT = Path(__file__).resolve().parent.parent
PARTS = {"scripts/demo": ".", "hf_vtp": "hf_vtp", "tests/testbed": "tests/testbed"}  # where each goes
FILES = ("LICENSE", "NOTICE")


def parser() -> argparse.ArgumentParser:
    p = cli.Parser(description=__doc__.splitlines()[0])
    p.add_argument("space", nargs="?", metavar="USER/NAME")
    p.add_argument("--to", metavar="FOLDER", help="lay it out there, and push nothing")
    p.add_argument("--private", action="store_true")
    return p


def lay_out(folder: Path) -> None:
    """Everything a Space needs, in `folder`."""
    for source, target in PARTS.items():
        if (ROOT / source).is_dir():
            shutil.copytree(
                ROOT / source,
                folder / target,
                dirs_exist_ok=True,
                ignore=shutil.ignore_patterns("__pycache__", "*.pyc"),
            )
    for name in FILES:
        shutil.copy(ROOT / name, folder)


def push(space: str, folder: str, private: bool) -> CommitInfo:
    """Make the Space if it is not there and commit the folder to it; raises OSError, one sentence."""
    api = HfApi()
    with clearly(space, WRITING):
        # the name comes back whole: "name" alone is one of the user's own
        options = dict(repo_type="space", private=private, exist_ok=True)
        whole = api.create_repo(space, space_sdk="gradio", **options).repo_id
        if private and not api.space_info(whole).private:
            raise PermissionError(f"{whole} exists and is public; make it private on its page first")
        return api.upload_folder(
            repo_id=whole, repo_type="space", folder_path=folder, commit_message="The demo of hf_vtp"
        )


def main(argv: list[str]) -> None:
    args = parser().parse_args(argv)
    if (args.space is None) == (args.to is None):
        raise cli.UsageError("give either the Space's name, user/name, or --to with a folder")
    if args.to is not None:
        folder = cli.folder(args.to, "--to")
        if folder.is_dir() and any(folder.iterdir()):
            raise cli.UsageError(f"{folder} is there already; give a new folder")
        lay_out(folder)
        print(f"wrote {folder}; python {folder / 'app.py'} opens it")
        return
    if not is_repo_id(args.space):
        raise cli.UsageError(f"{args.space!r} is no name on the Hub; give one such as user/hf-vtp-demo")
    if get_token() is None:
        raise cli.UsageError(f"a push to {args.space} needs a token; log in with `hf auth login`")
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder))
        try:
            commit = push(args.space, folder, args.private)
        except OSError as error:
            raise cli.UsageError(str(error)) from None
    print(f"pushed {commit.commit_url}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
