"""Build, damage and unpack archives in the tests."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from convkit.errors import SourceError
from convkit.sources import RefusedMember
from convkit.sources.archive import unpack
from convkit.utils.progress import ignore_progress

AVI = frozenset({".avi"})


ALL: frozenset[str] = frozenset()


TAR_MODES = {"tar": "w", "tar.gz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}


OLD = 5


def make_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            add_member(tar, name, content)
    return path


def add_member(tar: tarfile.TarFile, name: str, content: bytes = b"", **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    tar.addfile(info, io.BytesIO(content))


def make_zip(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return path


def make_archive(kind: str, path: Path, files: dict[str, bytes]) -> Path:
    return make_zip(path, files) if kind == "zip" else make_tar(path, files, TAR_MODES[kind])


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder by relative path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if not p.is_dir()}


def refusals(refused: tuple[RefusedMember, ...]) -> list[tuple[str, str]]:
    return [(r.address, r.rule) for r in refused]


def unpack_error(path: Path, target: Path, suffixes: frozenset[str] = ALL) -> str:
    with pytest.raises(SourceError) as caught:
        unpack(path, target, suffixes, ignore_progress)
    assert not target.exists()
    assert not target.with_name("source.tmp").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


every_kind = pytest.mark.parametrize("kind", [*TAR_MODES, "zip"])


def replace_bytes(path: Path, old: bytes, new: bytes) -> Path:
    """Replace bytes of a file in place, to create what a correct writer would not write."""
    assert len(old) == len(new)
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    return path
