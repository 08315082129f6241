"""Who reaches the demo's page, and which models they may name there."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

from ..shipped import STAND_INS

HERE = ("localhost", "127.0.0.1", "::1")


def is_local(host: str) -> bool:
    """Whether nobody but this machine reaches a server at that address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def offered(model: str, host: str) -> dict[str, str] | None:
    """The names that visitors may choose from, and the model of each, `model` first; None: anything.

    Visitors from other machines must not learn which folders exist, nor where the page's own model is. They
    must not fill a Space with models of theirs.
    """
    if is_local(host) and "SPACE_ID" not in os.environ:
        return None
    name = Path(model).resolve().name if os.path.isdir(model) and model not in STAND_INS else model
    if name != model and name in STAND_INS:
        name = f"{name} of this page"
    return {name: model, **{other: other for other in STAND_INS}}


def spare_from_proxy(host: str) -> None:
    """Have this process reach its own page without an HTTP proxy: gradio asks whether it answers."""
    known = [part for name in ("no_proxy", "NO_PROXY") for part in os.environ.get(name, "").split(",")]
    hosts = dict.fromkeys(part.strip() for part in (*known, *HERE, host.strip("[]")) if part.strip())
    for name in ("no_proxy", "NO_PROXY"):  # where both are set, one of them counts
        os.environ[name] = ",".join(hosts)
