"""Files of a data set on the Hugging Face hub, through the hub's own client, cache and credentials."""

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from convkit.errors import MissingExtra, SourceError

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

_UNAUTHORIZED = 401
_FORBIDDEN = 403


def fetch(repo: str, filename: str) -> tuple[Path, str]:
    """Download a file, or find it in the cache; the client shows its progress where there is a terminal.

    Args:
        repo: the data set, OWNER/NAME.
        filename: the file's path in it.

    Returns:
        Where it lies in the cache, and the commit hash of the revision that it is of.

    Raises:
        SourceError: it is not to be had; the message has the true reason and a remedy.
        MissingExtra: the client is not installed.
        OSError: the disk is full, or the like.
    """
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise MissingExtra("huggingface_hub", "hub", f"Downloading {filename} from the Hugging Face hub") from error
    path = _download(lambda: hf_hub_download(repo, filename, repo_type="dataset"), repo, f"file {filename}", filename)
    # The cache's layout: snapshots/<commit hash>/<the file's path in the repository>.
    return path, path.parents[len(PurePosixPath(filename).parts) - 1].name


def fetch_folder(repo: str, pattern: str) -> tuple[Path, str]:
    """Download the files of a folder, or find them in the cache; all of them are of one revision.

    Args:
        repo: the data set, OWNER/NAME.
        pattern: FOLDER/*SUFFIX, or *SUFFIX. No other pattern will do: the folder is handed on whole, and the cache may
            hold more of it than was asked for. As for the client, `*` stands for files in sub-folders too.

    Returns:
        The folder in the cache, and the commit hash of the revision that it is of.

    Raises:
        SourceError: they are not to be had, or there are none; the message has the true reason and a remedy.
        MissingExtra: the client is not installed.
        OSError: the disk is full, or the like.
    """
    folder, _, name = pattern.rpartition("/")
    if "*" in folder or name.count("*") != 1 or not name.startswith("*"):
        raise ValueError(f"{pattern!r} is no pattern of all files of a folder: FOLDER/*SUFFIX")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingExtra("huggingface_hub", "hub", f"Downloading {pattern} from the Hugging Face hub") from error

    def download() -> str:
        return snapshot_download(repo, repo_type="dataset", allow_patterns=[pattern])

    snapshot = _download(download, repo, f"files {pattern}", pattern)
    if next((snapshot / folder).rglob(name), None) is None:
        why = f"the data set has none. Find its files on {_page(repo)} and pass a folder of them to --source."
        raise SourceError(f"The files {pattern} of the data set {repo} cannot be downloaded: {why}")
    return snapshot / folder, snapshot.name


def _download(download: Callable[[], str], repo: str, what: str, files: str) -> Path:
    """Where the client puts what it downloads.

    Args:
        what: what is downloaded, for the message of an error.
        files: the name or pattern, for its remedy.
    """
    try:
        return Path(download())
    except Exception as error:
        # Of any kind: what a lost connection raises depends on the HTTP library, and that on the client's version.
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
            raise
        why = _explain(error, repo, files)
        raise SourceError(f"The {what} of the data set {repo} cannot be downloaded: {why}") from error


def _page(repo: str) -> str:
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/datasets/{repo}"


def _explain(error: Exception, repo: str, files: str) -> str:
    """Why files are not to be had, and what to do about it."""
    from huggingface_hub import errors

    page = _page(repo)
    by_hand = f"download {files} by hand from {page} and pass it to --source"
    # The client tells that the file is not in the cache either; what kept it from asking the hub is the cause.
    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    if isinstance(error, errors.OfflineModeIsEnabled):
        missing = "not all of the files are" if "*" in files else "the file is not"
        return f"HF_HUB_OFFLINE is set, and {missing} in the cache. Unset it, or {by_hand}."
    if isinstance(error, errors.HfHubHTTPError):
        return _explain_answer(error, page, by_hand)
    return f"the hub cannot be reached ({_line(error)}). Check the network and try again, or {by_hand}."


def _explain_answer(error: "HfHubHTTPError", page: str, by_hand: str) -> str:
    """What an answer of the hub means, and a remedy."""
    from huggingface_hub import errors

    status = error.response.status_code
    log_in = "set HF_TOKEN or run: hf auth login"
    if isinstance(error, errors.EntryNotFoundError):
        return f"the data set has no such file, so it was moved or renamed. Find it on {page} and pass it to --source."
    if isinstance(error, errors.GatedRepoError) and status == _FORBIDDEN:
        return (
            "access is restricted, and the account of your token has not been granted it. "
            f"Accept the conditions on {page} with that account, or {by_hand}."
        )
    if isinstance(error, errors.GatedRepoError):
        return (
            "access is restricted to those who are logged in and have accepted its conditions. "
            f"Accept them on {page}, then {log_in}; or {by_hand}."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"the data set does not exist, or is private. If you have access, {log_in}; or {by_hand}."
    if status in {_UNAUTHORIZED, _FORBIDDEN}:
        return f"the hub refused access ({_line(error)}). To use another token, {log_in}; or {by_hand}."
    return f"the hub answered with an error ({_line(error)}). Try again later, or {by_hand}."


def _line(error: Exception) -> str:
    """An error's message on one line, without the full stop."""
    return (" ".join(str(error).split()) or type(error).__name__).rstrip(".")
