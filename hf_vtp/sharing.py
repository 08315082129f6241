"""What makes a config shareable: as a dict, in a folder, on the Hub."""

from __future__ import annotations

import copy
import json
import os
import warnings
from dataclasses import MISSING, fields
from pathlib import Path

from .bounded_json import check_size, shortened
from .files import replacing
from .version import __version__

ALWAYS = ("method", "vtp_version")  # written even where they are the defaults

# hf_vtp.hub is imported where it is used: `import hf_vtp` need not bring the Hub's client with it.


class Shareable:
    """save_pretrained, from_pretrained and push_to_hub for a dataclass whose fields are plain values."""

    def to_dict(self) -> dict:
        """The fields that differ from their defaults, the method and hf_vtp's version, as plain values."""
        found = {}
        for f in fields(self):
            default = f.default if f.default_factory is MISSING else f.default_factory()
            if f.name in ALWAYS or getattr(self, f.name) != default:
                found[f.name] = copy.deepcopy(getattr(self, f.name))
        return {**found, "vtp_version": __version__}

    @classmethod
    def from_dict(cls, values: object, source: str = "this dict"):
        """A config from what `to_dict` gave; fields it does not know are left out with a warning.

        Raises ValueError with one sentence that begins with `source` for everything else.
        """
        if not isinstance(values, dict):
            raise ValueError(f"{source} must hold an object with a config's fields, not {_kind(values)}")
        known = {f.name for f in fields(cls)}
        unknown = [shortened(repr(key)) for key in values if key not in known]
        if unknown:
            version = shortened(repr(values.get("vtp_version")))
            sentence = f"{source} has fields that hf_vtp {__version__} does not know and leaves out: "
            sentence += f"{shortened(', '.join(unknown))}; it was made by version {version}"
            warnings.warn(sentence, stacklevel=3)
        try:
            return cls(**{key: copy.deepcopy(value) for key, value in values.items() if key in known})
        except (TypeError, ValueError) as error:
            raise ValueError(f"{source} cannot be used: {shortened(str(error))}") from error

    def to_json(self) -> bytes:
        """The text of a vtp_config.json; raises ValueError for an option that JSON cannot hold."""
        try:
            data = (json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n").encode()
        except (TypeError, ValueError) as error:
            raise ValueError(f"this config has an option that JSON cannot hold ({error})") from None
        check_size(len(data), "this config")
        return data

    def save_pretrained(self, save_directory: str | os.PathLike) -> Path:
        """Write vtp_config.json into a folder, which is made if need be; returns the file's path."""
        from .hub import NAME

        data, folder = self.to_json(), Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / NAME) as path:
            path.write_bytes(data)
        return folder / NAME

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ):
        """Load the vtp_config.json of a folder or of a repository on the Hub.

        Nothing in it is executed, and it is bounded in size and depth. Raises ValueError for a name or a file
        that cannot be used, OSError for a repository that is missing, private or out of reach.
        """
        from .hub import fetch

        options = {"revision": revision, "token": token, "cache_dir": cache_dir}
        options |= {"force_download": force_download, "local_files_only": local_files_only}
        return cls.from_dict(*fetch(name_or_path, **options))

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        token: str | bool | None = None,
        commit_message: str = "Upload vtp_config.json",
    ):
        """Commit vtp_config.json to a repository on the Hub, made if need be; returns its CommitInfo.

        Raises ValueError for a name or a base model that cannot be on the Hub, OSError for what fails there.
        """
        from .hub import NAME, is_repo_id, push

        base = self.base_model_name_or_path
        if base is not None and not is_repo_id(base):
            raise ValueError(f"base_model_name_or_path must be a name on the Hub to be pushed, not {base!r}")
        options = {"private": private, "revision": revision, "create_pr": create_pr, "token": token}
        return push(repo_id, {NAME: self.to_json()}, message=commit_message, **options)


def _kind(value: object) -> str:
    return {list: "a list", str: "a text", type(None): "null"}.get(type(value), f"a {type(value).__name__}")
