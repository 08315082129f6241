"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LONGEST = 24  # characters of a name that its temporary one repeats: both must fit where the name does


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path beside `target` to write to; it takes the target's place only if the block ends well.

    A link stays, and what it leads to is replaced. Raises OSError where `target` is a folder, a device, a
    pipe or a socket.
    """
    target = destination(target)
    suffix = target.suffix if len(target.suffix) <= LONGEST else ""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.stem[:LONGEST]}-", suffix=suffix)
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o666 & ~_umask())  # mkstemp's files are readable by their owner only
        os.replace(name, target)
    finally:
        Path(name).unlink(missing_ok=True)


def destination(target: str | os.PathLike) -> Path:
    """The regular file, there or not, that a path leads to through links; raises OSError for all else."""
    try:
        mode = os.stat(target).st_mode  # first: /dev/stdout leads to a pipe that has no path
    except FileNotFoundError:
        mode = stat.S_IFREG
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", os.fspath(target))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is a device, a pipe or a socket, no file", os.fspath(target))
    if any(_same(target, stream) for stream in (0, 1, 2)):  # as /dev/stdout does after `> file`
        raise OSError(errno.EBUSY, "it is where this process reads from or prints to", os.fspath(target))
    return Path(os.path.realpath(target))


def _same(target: str | os.PathLike, stream: int) -> bool:
    try:
        return os.path.samestat(os.stat(target), os.fstat(stream))
    except OSError:  # one of them is not there
        return False


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
