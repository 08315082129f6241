"""Configs on the Hub: fetching one, pushing files in one commit, and saying clearly what went wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from json import JSONDecodeError
from pathlib import Path
from types import MappingProxyType

from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    HfApi,
    get_session,
    get_token,
    hf_hub_download,
    hf_hub_url,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, validate_repo_id

from .bounded_json import MAX_BYTES, read, shortened
from .version import __version__

NAME = "vtp_config.json"
LIBRARY = "hf-vtp"
CHUNK = 8192  # bytes
# (HTTPError of the client's HTTP library, OSError): a connection that breaks raises the library's own errors
NETWORK = HfHubHTTPError.__bases__
# ValueError, RuntimeError: of an upload that broke off, of a reply that is no JSON; the rest: of other JSON
WHATEVER_FAILS = (*NETWORK, ValueError, RuntimeError, LookupError, TypeError, AttributeError)
ANSWERED = (HfHubHTTPError, FileMetadataError)
NO_HUB = (JSONDecodeError, FileMetadataError, LookupError, TypeError, AttributeError)
SENTENCES = (  # of the first class that an error is
    (GatedRepoError, "{repo} on the Hub is gated; ask for access on its page, then pass token= or log in"),
    (
        RepositoryNotFoundError,
        "there is no repository {repo} on the Hub, or it is private and this token may not see it; check the "
        "name, pass token= or log in with `hf auth login`",
    ),
    (RevisionNotFoundError, "{repo} on the Hub has no such revision; give a branch, a tag or a commit of it"),
    (
        LocalEntryNotFoundError,
        "{repo} is not in the local cache and the Hub cannot be reached; connect, or give a folder",
    ),
    (EntryNotFoundError, f"{{repo}} on the Hub has no {NAME}; push one with VTPConfig.push_to_hub"),
    (OfflineModeIsEnabled, "{repo} cannot be reached while HF_HUB_OFFLINE is set; unset it"),
)
DENIED = {  # by the status of an answer
    401: "the Hub does not know this token, given for {repo}; pass another or log in with `hf auth login`",
    403: "this token may not read {repo} on the Hub; pass one that may, or ask for access on its page",
    407: "a proxy before the Hub wants a password, asked for {repo}; put it into HTTPS_PROXY",
    429: "the Hub was asked too often, now for {repo}; wait some minutes and try again",
}
WRITING = {403: "this token may not write to {repo} on the Hub; pass one that may, or create_pr=True"}


def is_repo_id(name: str) -> bool:
    """Whether this can be the name of a repository, as "user/repo" or "gpt2"."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def fetch(name: str | os.PathLike, **options) -> tuple[object, str]:
    """The value in the vtp_config.json of a folder or a repository, and what to call it in an error.

    `options` are hf_hub_download's. Raises ValueError for a name that is neither or a file that is no JSON,
    OSError with one sentence for what is missing, private or out of reach.
    """
    name = os.fspath(name)
    if os.path.isdir(name):
        path = Path(name) / NAME
        if not path.is_file():
            raise FileNotFoundError(f"the folder {name} has no {NAME}; VTPConfig.save_pretrained makes one")
        return read(path, str(path)), str(path)
    if name.startswith((".", "~", os.sep)) or not is_repo_id(name):
        shown = shortened(repr(name))
        raise ValueError(f"{shown} is neither a folder nor a name on the Hub such as 'user/repo'")
    source = f"{NAME} of {name}"
    return read(download(name, NAME, MAX_BYTES, "pruning config", **options), source), source


def download(repo_id: str, file: str, most: int, what: str, **options) -> Path:
    """A file of a repository, from the cache or the Hub, of at most `most` bytes; `what` it is to be.

    `options` are hf_hub_download's. Raises ValueError for a larger file, OSError with one sentence for what
    is missing, private or out of reach.
    """
    lacks = f"{{repo}} on the Hub has no {file}" if file != NAME else None
    with clearly(repo_id, lacks=lacks):
        answer = hf_hub_download(repo_id, file, dry_run=True, **options)
    size = answer.file_size or 0  # before it is downloaded
    if size <= most and answer.will_download:  # a server may say nothing of the size, or what is not so
        with clearly(repo_id, lacks=lacks):
            url = hf_hub_url(repo_id, file, revision=answer.commit_hash)
            size = _size(url, options.get("token"), most)
    if size > most:
        raise ValueError(f"{file} of {repo_id} is larger than {most} bytes, which no {what} is")
    with clearly(repo_id, lacks=lacks):
        client = {"library_name": LIBRARY, "library_version": __version__}
        return Path(hf_hub_download(repo_id, file, **client, **options))


def _size(url: str, token: str | bool | None, most: int) -> int:
    """Bytes at an address, counted as they come; the connection ends with the first one too many."""
    size, headers = 0, build_hf_headers(token=token, library_name=LIBRARY, library_version=__version__)
    with get_session().stream("GET", url, headers=headers, follow_redirects=True) as response:
        hf_raise_for_status(response)
        for part in response.iter_bytes(CHUNK):
            size += len(part)
            if size > most:
                break
    return size


def push(
    repo_id: str,
    files: Mapping[str, bytes | Path],
    *,
    message: str,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
) -> CommitInfo:
    """Commit files (path in the repository: content) to the Hub; all of them become visible, or none.

    The repository, and the branch `revision`, are made if they are not there. Raises ValueError for a name
    that cannot be one, OSError with one sentence otherwise; a push that failed can be repeated.
    """
    if not is_repo_id(repo_id):
        raise ValueError(f"{shortened(repr(repo_id))} is no name on the Hub; give one such as 'user/repo'")
    if not isinstance(token, str) and get_token() is None:
        raise OSError(f"a push to {repo_id} needs a token; pass token= or log in with `hf auth login`")
    api = HfApi(token=token, library_name=LIBRARY, library_version=__version__)
    with clearly(repo_id, WRITING):
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if private and not api.model_info(repo_id).private:
            raise PermissionError(f"{repo_id} exists and is public; make it private on its page first")
        if revision is not None and not create_pr and not revision.startswith("refs/"):
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        operations = [CommitOperationAdd(name, content) for name, content in files.items()]
        return api.create_commit(
            repo_id, operations, commit_message=message, revision=revision, create_pr=create_pr
        )


@contextmanager
def clearly(
    repo_id: str, own: Mapping[int, str] = MappingProxyType({}), lacks: str | None = None
) -> Iterator[None]:
    """Have the client's errors said in one sentence; they stay as the cause.

    `own` are sentences for the statuses of answers that mean something else here than in DENIED, `lacks` the
    one for a repository without the file.
    """
    try:
        yield
    except PermissionError:
        raise
    except WHATEVER_FAILS as error:
        raise OSError(_sentence(error, {**DENIED, **own}, lacks).format(repo=repo_id)) from error


def _sentence(error: Exception, denied: Mapping[int, str], lacks: str | None = None) -> str:
    hidden = error.__cause__  # the client says what its cache lacks, or that a forced download failed
    if isinstance(hidden, ANSWERED) or (type(error) is ValueError and hidden is not None):
        error = hidden
    for kind, sentence in SENTENCES:
        if isinstance(error, kind):
            return lacks if lacks is not None and kind is EntryNotFoundError else sentence
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if status in denied:
        return denied[status]
    if isinstance(error, NO_HUB):
        return "what answered for {repo} is no Hub, by its reply; look for a proxy, a login page, HF_ENDPOINT"
    if status is not None and status >= 500:
        return f"the Hub has a fault of its own (status {status}), asked for {{repo}}; try again later"
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    reason = shortened(reason).replace("{", "{{").replace("}", "}}")
    if status is None and isinstance(error, NETWORK[0]):
        return f"the connection to the Hub broke while it was asked for {{repo}} ({reason}); try again"
    return f"the Hub refused or failed for {{repo}}: {reason}"
