"""Open the data source of a converter: a folder, an archive, files on the Hub, or data of an installed package.

Default sources are written `hub:OWNER/NAME/FILE` (a file of a dataset on the Hugging Face Hub),
`hub:OWNER/NAME/FOLDER/*SUFFIX` (all such files of a folder there) or `package:MODULE/FOLDER` (a folder inside an
installed package).

Archive readers and the Hub client are imported only when needed, so that `convkit --help` stays fast.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from convkit.errors import SourceError
from convkit.utils.files import display_path
from convkit.utils.progress import Progress


@dataclass(frozen=True)
class RefusedMember:
    """Report an archive member that was not unpacked although it may belong to the data."""

    address: str
    """The archive's name, a colon and the member's name; unprintable characters are escaped."""
    rule: str
    """The rule: `unsafe-member`, `duplicate-name` or `bad-name`."""
    reason: str


@dataclass(frozen=True)
class Source:
    """Hold an opened source: a folder, or a single data file."""

    root: Path
    name: str
    """The name in the manifest: the last part of the path, or the address with its revision or version."""
    bytes: int | None
    """The size of the archive or file; None for a folder."""
    refused: tuple[RefusedMember, ...] = ()


def open_source(
    address: str | None, default: str | None, suffixes: frozenset[str], work: Path, progress: Progress
) -> Source:
    """Open a source; unpack or download it if necessary.

    Args:
        address: the path given by the user; None: `default` is used.
        default: a `hub:` or `package:` address (see the module); None: the source cannot be obtained automatically.
        suffixes: lower-case suffixes of the files to unpack from an archive; empty: all files. A file with one of them
            is a data file, not an archive, and becomes the root.
        work: the folder in which an archive is unpacked to `source`; one unpacked by an earlier run is reused.
        progress: called with the bytes unpacked so far.

    Raises:
        SourceError: the source is missing, empty, damaged, or not available; the message ends with a remedy.
        MissingExtra: the Hub is needed, but its client is not installed.
        OSError: the disk is full, or a similar error.
    """
    if address is not None:
        path = Path(address).expanduser()
        return _open_path(path, source_name(path), suffixes, work, progress)
    if default is None:
        raise SourceError(
            "This data cannot be downloaded automatically, so --source is required: "
            "pass the folder with the data, or its archive."
        )
    scheme, _, rest = default.partition(":")
    openers = {"hub": _open_hub, "package": _open_package}
    if scheme not in openers:
        raise ValueError(f"{default!r} is not a source address: it must begin with one of {', '.join(openers)}")
    return openers[scheme](rest, suffixes, work, progress)


def source_name(path: Path) -> str:
    """Return the manifest's name for a source path: its last part, with bytes that are not UTF-8 escaped."""
    return display_path(os.path.basename(os.path.abspath(path)))


def _open_path(path: Path, name: str, suffixes: frozenset[str], work: Path, progress: Progress) -> Source:
    """Open a folder or a data file as it is, or unpack an archive."""
    if not path.exists():
        raise SourceError(f"The source {path} does not exist. Check the path given with --source.")
    try:
        if path.is_dir():
            _check_utf8_path(path)
            if next(path.iterdir(), None) is None:
                raise SourceError(f"The source folder {path} is empty. Pass the folder with the data to --source.")
            return Source(root=path, name=name, bytes=None)
        if not path.is_file():
            raise SourceError(f"The source {path} is neither a folder nor a file. Pass one of these to --source.")
        path.open("rb").close()
        if path.suffix.lower() in suffixes:
            _check_utf8_path(path)
            return Source(root=path, name=name, bytes=path.stat().st_size)
    except PermissionError as error:
        raise SourceError(
            f"The source {path} cannot be read: {error.strerror}. Check its permissions, or pass a copy to --source."
        ) from error

    from convkit.sources.archive import unpack

    root = work / "source"
    refused = unpack(path, root, suffixes, progress)
    return Source(root=root, name=name, bytes=path.stat().st_size, refused=refused)


def _check_utf8_path(path: Path) -> None:
    """Refuse a path that is not UTF-8, since some decoders crash on it."""
    escaped = display_path(path.absolute())
    if escaped != str(path.absolute()):
        raise SourceError(
            f"The path of the source, {escaped}, is not UTF-8. Rename the folder and pass it to --source."
        )


def _open_hub(rest: str, suffixes: frozenset[str], work: Path, progress: Progress) -> Source:
    """Download from the Hub; `rest` is OWNER/NAME/FILE, where FILE may contain slashes or be a pattern."""
    from convkit.sources import hub

    owner, name, file = rest.split("/", 2)
    fetch = hub.download_folder if "*" in file else hub.download_file
    path, revision = fetch(f"{owner}/{name}", file)
    return _open_path(path, f"hub:{rest}@{revision}", suffixes, work, progress)


def _open_package(rest: str, suffixes: frozenset[str], work: Path, progress: Progress) -> Source:
    """Open a folder inside an installed package, without importing the package."""
    from importlib.util import find_spec

    module, _, folder = rest.partition("/")
    spec = find_spec(module)
    if spec is None:
        raise SourceError(
            f"The data is part of the Python package {module}, which is not installed. "
            f"Run: pip install {module}, or pass the folder with the data to --source."
        )
    for location in spec.submodule_search_locations or ():
        path = Path(location, folder)
        if path.is_dir():
            return _open_path(path, f"package:{rest}{_version_of(module)}", suffixes, work, progress)
    raise SourceError(
        f"The installed Python package {module} has no folder {folder}. "
        f"Run: pip install --force-reinstall {module}, or pass the folder with the data to --source."
    )


def _version_of(module: str) -> str:
    """Return `==` and the version of the distribution that provides a module; empty if there is none."""
    from importlib.metadata import packages_distributions, version

    distributions = packages_distributions().get(module)
    return f"=={version(distributions[0])}" if distributions else ""
