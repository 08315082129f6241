"""Put a release of Transformers newer than the environment's into a folder, with what it needs newer with it.

    python scripts/dev/newest_transformers.py .overlay-newest

Prints its version; where none is newer, or the package index cannot be asked, one line on stderr instead. The
folder goes in front of the environment's packages (PYTHONPATH); torch is never replaced.
"""

import json
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from packaging.version import Version

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "1", "--timeout", "20"]


def would_install(*arguments: str) -> list[str] | None:
    """What pip would install, as name==version; None if it finds no way."""
    command = [*PIP, "install", "--quiet", "--dry-run", "--report", "-", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return None
    found = [item["metadata"] for item in json.loads(done.stdout)["install"]]
    return sorted(f"{item['name']}=={item['version']}" for item in found)


def main(folder: Path) -> None:
    pinned = version("transformers")
    found = would_install("--ignore-installed", "--no-deps", "transformers")
    if found is None:
        print("the package index cannot be asked for a newer Transformers: left out", file=sys.stderr)
        return
    newest = found[0].split("==")[1]
    if Version(newest) <= Version(pinned):
        print(f"no Transformers is newer than {pinned}, which was tested already", file=sys.stderr)
        return
    # pip asks nothing of packages that are merely installed, so hf-vtp's own upper bound does not count
    needed = would_install(f"torch=={version('torch')}", f"transformers=={newest}")
    if needed is None:
        print(
            f"Transformers {newest} cannot be had beside torch {version('torch')}: left out", file=sys.stderr
        )
        return
    made = folder / ".made"
    if not made.exists() or made.read_text().split() != needed:
        shutil.rmtree(folder, ignore_errors=True)
        command = [*PIP, "install", "--quiet", "--no-deps", "--target", str(folder), *needed]
        subprocess.run(command, check=True, stdout=sys.stderr)
        made.write_text("\n".join(needed) + "\n")
    print(newest)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
