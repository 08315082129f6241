"""Save captioned pictures as a dataset to train on and to measure with.

--captions is a JSON file: for each split, such as train and dev, a list of {"file": …, "captions": […]}. The
pictures lie beside it, in SPLIT_images.zip or as files. --out gets a Parquet file for each split, which
`datasets.load_dataset` reads. The last line is the result as JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ...files import replacing
from ..bench import cli
from ..bench.cli import UsageError
from ..bench.decode import MOST_BYTES

GROUP = 256  # pictures
FORM = 'it must be {"train": [{"file": "a.jpg", "captions": ["…"]}, …], …}'


def parser() -> argparse.ArgumentParser:
    p = cli.Parser(description=__doc__.splitlines()[0])
    p.add_argument("--captions", required=True, metavar="FILE", help="a .json file, its pictures beside it")
    p.add_argument("--out", required=True, help="a folder that is empty or not there yet")
    return p


def main(argv: list[str]) -> None:
    args = parser().parse_args(argv)
    out, source = Path(args.out), Path(args.captions)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not an empty folder; choose another one")
    splits = read_splits(source)
    out.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        write(out / f"{split}.parquet", rows, opener(source.parent, split))
    counts = {split: len(rows) for split, rows in splits.items()}
    print(json.dumps({"command": cli.command(), **vars(args), "num_rows": counts}))


def read_splits(source: Path) -> dict[str, list[dict]]:
    """The rows of every split; raises UsageError for a file of another form."""
    try:
        splits = json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{source} cannot be read ({cli.reason(error)}); {FORM}") from None
    rows = [row for split in splits.values() for row in split] if _lists(splits) else [None]
    if not all(map(_row, rows)):
        raise UsageError(f"{source} has another form; {FORM}")
    return splits


def _lists(splits: object) -> bool:
    return isinstance(splits, dict) and all(
        re.fullmatch(r"\w+", name) and isinstance(rows, list) and rows for name, rows in splits.items()
    )


def _row(row: object) -> bool:
    texts = row.get("captions") if isinstance(row, dict) else None
    return isinstance(texts, list) and all(isinstance(x, str) for x in (row.get("file"), *texts))


def opener(folder: Path, split: str) -> Callable[[str], bytes]:
    """What reads a picture's file of that split."""
    archive = folder / f"{split}_images.zip"
    return partial(_member, zipfile.ZipFile(archive)) if archive.is_file() else partial(_beside, folder)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        size = archive.getinfo(name).file_size
    except KeyError:
        raise UsageError(f"{archive.filename} has no {name}") from None
    if size > MOST_BYTES:
        raise UsageError(f"{name} in {archive.filename} is larger than {MOST_BYTES // 2**20} MiB")
    return archive.read(name)


def _beside(folder: Path, name: str) -> bytes:
    file = (folder / name).resolve()
    if not file.is_relative_to(folder.resolve()) or not file.is_file():
        raise UsageError(f"{name} is no file in {folder}")
    return file.read_bytes()


def write(path: Path, rows: list[dict], read: Callable[[str], bytes]) -> None:
    """Write a split as `datasets` itself would, a few pictures in memory."""
    import pyarrow
    from datasets import Features, Image, Value
    from pyarrow.parquet import ParquetWriter

    schema = Features({"image": Image(), "captions": [Value("string")]}).arrow_schema
    with replacing(path) as temporary, ParquetWriter(temporary, schema) as writer:
        for start in range(0, len(rows), GROUP):
            group = [
                {"image": {"bytes": read(row["file"]), "path": row["file"]}, "captions": row["captions"]}
                for row in rows[start : start + GROUP]
            ]
            writer.write_table(pyarrow.Table.from_pylist(group, schema=schema))
