"""What a Hub keeps of a repository: commits, the files of each, and where branches point."""

import hashlib
from dataclasses import dataclass, field

FIRST = {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}


@dataclass
class Blob:
    content: bytes
    lfs: bool = False

    @property
    def sha256(self):
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self):  # as git names it; of a LFS file, what git holds is a pointer
        pointer = f"oid sha256:{self.sha256}\nsize {len(self.content)}\n"
        pointer = f"version https://git-lfs.github.com/spec/v1\n{pointer}".encode()
        content = pointer if self.lfs else self.content
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @property
    def etag(self):
        return self.sha256 if self.lfs else self.oid


@dataclass
class Repo:
    name: str
    private: bool
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, ref, files):
        sha = hashlib.sha1(f"{self.name} {len(self.commits)}".encode()).hexdigest()
        self.commits[sha] = files
        self.refs[ref] = sha
        return sha
