"""Download files of a Hugging Face dataset with the Hub's own client, cache and credentials."""

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from convkit.errors import MissingExtra, SourceError

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

_UNAUTHORIZED = 401
_FORBIDDEN = 403


def download_file(repo: str, filename: str) -> tuple[Path, str]:
    """Download a file, or find it in the cache; the client shows its progress on a terminal.

    Args:
        repo: the dataset, OWNER/NAME.
        filename: the file's path in it.

    Returns:
        The path in the cache, and the commit hash of the revision.

    Raises:
        SourceError: the file is not available; the message has the cause and a remedy.
        MissingExtra: the client is not installed.
        OSError: the disk is full, or a similar error.
    """
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise MissingExtra("huggingface_hub", "hub", f"Downloading {filename} from the Hugging Face hub") from error
    path = _download(lambda: hf_hub_download(repo, filename, repo_type="dataset"), repo, f"file {filename}", filename)
    # The cache's layout: snapshots/<commit hash>/<the file's path in the repository>.
    return path, path.parents[len(PurePosixPath(filename).parts) - 1].name


def download_folder(repo: str, pattern: str) -> tuple[Path, str]:
    """Download the files of a folder, or find them in the cache; all of them are of one revision.

    Args:
        repo: the dataset, OWNER/NAME.
        pattern: FOLDER/*SUFFIX, or *SUFFIX. Other patterns are refused: the whole folder is returned, and the cache may
            hold more of it than was requested. As in the client, `*` also matches files in subfolders.

    Returns:
        The folder in the cache, and the commit hash of the revision.

    Raises:
        SourceError: the files are not available, or there are none; the message has the cause and a remedy.
        MissingExtra: the client is not installed.
        OSError: the disk is full, or a similar error.
    """
    folder, _, name = pattern.rpartition("/")
    if "*" in folder or name.count("*") != 1 or not name.startswith("*"):
        raise ValueError(f"{pattern!r} is not a pattern FOLDER/*SUFFIX for all files of a folder")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingExtra("huggingface_hub", "hub", f"Downloading {pattern} from the Hugging Face hub") from error

    def download() -> str:
        return snapshot_download(repo, repo_type="dataset", allow_patterns=[pattern])

    snapshot = _download(download, repo, f"files {pattern}", pattern)
    if next((snapshot / folder).rglob(name), None) is None:
        why = f"the dataset has none. Find its files on {_page(repo)} and pass a folder of them to --source."
        raise SourceError(f"The files {pattern} of the dataset {repo} cannot be downloaded: {why}")
    return snapshot / folder, snapshot.name


def _download(download: Callable[[], str], repo: str, what: str, files: str) -> Path:
    """Return the path that the client downloaded to.

    Args:
        what: the download's name in error messages.
        files: the file name or pattern, for the remedy.
    """
    try:
        return Path(download())
    except Exception as error:
        # Any exception: a lost connection raises different types, depending on the client's version and HTTP library.
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
            raise
        why = _explain(error, repo, files)
        raise SourceError(f"The {what} of the dataset {repo} cannot be downloaded: {why}") from error


def _page(repo: str) -> str:
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/datasets/{repo}"


def _explain(error: Exception, repo: str, files: str) -> str:
    """Return why files are not available, and a remedy."""
    from huggingface_hub import errors

    page = _page(repo)
    by_hand = f"download {files} by hand from {page} and pass it to --source"
    # The client reports that the file is not in the cache either; the cause is what kept it from the Hub.
    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    if isinstance(error, errors.OfflineModeIsEnabled):
        missing = "not all of the files are" if "*" in files else "the file is not"
        return f"HF_HUB_OFFLINE is set, and {missing} in the cache. Unset it, or {by_hand}."
    if isinstance(error, errors.HfHubHTTPError):
        return _explain_http_error(error, page, by_hand)
    return f"the hub cannot be reached ({_one_line(error)}). Check the network and try again, or {by_hand}."


def _explain_http_error(error: "HfHubHTTPError", page: str, by_hand: str) -> str:
    """Explain an HTTP error of the Hub, with a remedy."""
    from huggingface_hub import errors

    status = error.response.status_code
    log_in = "set HF_TOKEN or run: hf auth login"
    if isinstance(error, errors.EntryNotFoundError):
        return f"the dataset has no such file, so it was moved or renamed. Find it on {page} and pass it to --source."
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
        return f"the dataset does not exist, or is private. If you have access, {log_in}; or {by_hand}."
    if status in {_UNAUTHORIZED, _FORBIDDEN}:
        return f"the hub refused access ({_one_line(error)}). To use another token, {log_in}; or {by_hand}."
    return f"the hub answered with an error ({_one_line(error)}). Try again later, or {by_hand}."


def _one_line(error: Exception) -> str:
    """Return an error's message on one line, without the full stop."""
    return (" ".join(str(error).split()) or type(error).__name__).rstrip(".")
