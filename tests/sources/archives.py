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


def tar_of(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            add(tar, name, content)
    return path


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    tar.addfile(info, io.BytesIO(content))


def zip_of(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return path


def make(kind: str, path: Path, files: dict[str, bytes]) -> Path:
    return zip_of(path, files) if kind == "zip" else tar_of(path, files, TAR_MODES[kind])


def tree(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder by relative path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if not p.is_dir()}


def refusals(refused: tuple[RefusedMember, ...]) -> list[tuple[str, str]]:
    return [(r.address, r.rule) for r in refused]


def error_of(path: Path, target: Path, suffixes: frozenset[str] = ALL) -> str:
    with pytest.raises(SourceError) as caught:
        unpack(path, target, suffixes, ignore_progress)
    assert not target.exists()
    assert not target.with_name("source.tmp").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


every_kind = pytest.mark.parametrize("kind", [*TAR_MODES, "zip"])


def patched(path: Path, old: bytes, new: bytes) -> Path:
    """Replace bytes of a file in place, to create what a correct writer would not write."""
    assert len(old) == len(new)
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    return path
