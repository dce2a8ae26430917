"""Where data comes from: a path, an archive, files on a hub, data inside an installed package.

An address without a path is written `hub:OWNER/NAME/FILE` (a file of a data set on the Hugging Face hub),
`hub:OWNER/NAME/FOLDER/*SUFFIX` (all such files of a folder there) or `package:MODULE/FOLDER` (a folder inside an
installed package).

What reads archives and speaks to the hub is imported only when it is needed: `convkit --help` must stay quick.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from convkit.errors import SourceError
from convkit.utils.files import display_path
from convkit.utils.progress import Progress


@dataclass(frozen=True)
class RefusedMember:
    """A member of an archive that was not unpacked, though it may have belonged to the data."""

    address: str
    """The archive's name, a colon, the member's name; unprintable characters are escaped."""
    rule: str
    """`unsafe-member`, `duplicate-name` or `bad-name`."""
    reason: str


@dataclass(frozen=True)
class Source:
    """A source opened as a folder, or as the one file that holds the data."""

    root: Path
    name: str
    """What the manifest calls it: the last part of the path, or the address with its revision or version."""
    bytes: int | None
    """The size of the archive or file; None for a folder."""
    refused: tuple[RefusedMember, ...] = ()


def open_source(
    address: str | None, default: str | None, suffixes: frozenset[str], work: Path, progress: Progress
) -> Source:
    """Open a source, unpacking or downloading it where need be.

    Args:
        address: the path that the user gave; None: `default` is used.
        default: a `hub:` or `package:` address (see the module); None: the source cannot be obtained automatically.
        suffixes: lower-case suffixes of the files that an archive is unpacked for; empty: all files. A file that has
            one of them is no archive but the data itself, and becomes the root.
        work: where an archive is unpacked, into the folder `source`; one from an earlier run is reused.
        progress: told how far the unpacking is.

    Raises:
        SourceError: the source is missing, empty, damaged, or not to be had; the message ends in a remedy.
        MissingExtra: the hub is needed, but its client is not installed.
        OSError: the disk is full, or the like.
    """
    if address is not None:
        path = Path(address).expanduser()
        return _open_path(path, source_name(path), suffixes, work, progress)
    if default is None:
        raise SourceError(
            "This data cannot be downloaded automatically, so --source is required: "
            "pass the folder that holds the data, or its archive."
        )
    scheme, _, rest = default.partition(":")
    openers = {"hub": _open_hub, "package": _open_package}
    if scheme not in openers:
        raise ValueError(f"{default!r} is no source address: it must begin with one of {', '.join(openers)}")
    return openers[scheme](rest, suffixes, work, progress)


def source_name(path: Path) -> str:
    """What the manifest calls a source of this path: its last part, bytes that are not UTF-8 as escapes."""
    return display_path(os.path.basename(os.path.abspath(path)))


def _open_path(path: Path, name: str, suffixes: frozenset[str], work: Path, progress: Progress) -> Source:
    """A folder as it is, a file of data as it is, or an archive unpacked."""
    if not path.exists():
        raise SourceError(f"The source {path} does not exist. Check the path given with --source.")
    try:
        if path.is_dir():
            _refuse_undecodable(path)
            if next(path.iterdir(), None) is None:
                raise SourceError(f"The source folder {path} is empty. Pass the one that holds the data to --source.")
            return Source(root=path, name=name, bytes=None)
        if not path.is_file():
            raise SourceError(f"The source {path} is neither a folder nor a file. Pass one of these to --source.")
        path.open("rb").close()
        if path.suffix.lower() in suffixes:
            _refuse_undecodable(path)
            return Source(root=path, name=name, bytes=path.stat().st_size)
    except PermissionError as error:
        raise SourceError(
            f"The source {path} cannot be read: {error.strerror}. Check its permissions, or pass a copy to --source."
        ) from error

    from convkit.sources.archive import unpack

    root = work / "source"
    refused = unpack(path, root, suffixes, progress)
    return Source(root=root, name=name, bytes=path.stat().st_size, refused=refused)


def _refuse_undecodable(path: Path) -> None:
    """Decoders take names as text, and some of them end the process over one that is none."""
    shown = display_path(path.absolute())
    if shown != str(path.absolute()):
        raise SourceError(f"The path of the source, {shown}, is not UTF-8. Rename the folder and pass it to --source.")


def _open_hub(rest: str, suffixes: frozenset[str], work: Path, progress: Progress) -> Source:
    """What is on the hub; `rest` is OWNER/NAME/FILE, where FILE may have slashes of its own, or be a pattern."""
    from convkit.sources import hub

    owner, name, file = rest.split("/", 2)
    fetch = hub.fetch_folder if "*" in file else hub.fetch
    path, revision = fetch(f"{owner}/{name}", file)
    return _open_path(path, f"hub:{rest}@{revision}", suffixes, work, progress)


def _open_package(rest: str, suffixes: frozenset[str], work: Path, progress: Progress) -> Source:
    """A folder inside an installed package, which is found without running the package's code."""
    from importlib.util import find_spec

    module, _, folder = rest.partition("/")
    spec = find_spec(module)
    if spec is None:
        raise SourceError(
            f"The data comes inside the Python package {module}, which is not installed. "
            f"Run: pip install {module}, or pass the folder that holds the data to --source."
        )
    for location in spec.submodule_search_locations or ():
        path = Path(location, folder)
        if path.is_dir():
            return _open_path(path, f"package:{rest}{_version_of(module)}", suffixes, work, progress)
    raise SourceError(
        f"The installed Python package {module} has no folder {folder}. "
        f"Run: pip install --force-reinstall {module}, or pass the folder that holds the data to --source."
    )


def _version_of(module: str) -> str:
    """`==` and the version of the distribution that a module belongs to; empty for a module that none claims."""
    from importlib.metadata import packages_distributions, version

    distributions = packages_distributions().get(module)
    return f"=={version(distributions[0])}" if distributions else ""
