"""Compressed row files are read like plain ones; damaged files and decompression bombs are refused."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from convkit.errors import ConvkitError, MissingExtra
from tests.fixtures.builders import lines, row
from tests.validate.helpers import report_of, set_chunk_bytes


def compressed(path: Path, content: bytes) -> Path:
    import zstandard

    packed = gzip.compress(content) if path.suffix == ".gz" else zstandard.ZstdCompressor().compress(content)
    path.write_bytes(packed)
    return path


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_rows_have_the_findings_of_plain_ones(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_chunk_bytes(monkeypatch, 64)
    content = lines(row("1"), row("2"), row("1")) + b"{"
    path = compressed(tmp_path / f"x.jsonl{suffix}", content[:-1])
    with path.open("ab") as file:  # a second frame goes on where the first ends
        file.write(compressed(tmp_path / f"y.jsonl{suffix}", b"{").read_bytes())
    report = report_of(path)
    assert [(f.code, f.line) for f in report.findings] == [("CK301", 3), ("CK009", 4)]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize(
    "damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"no archive", lambda raw: raw[:-9] + b"x" * 9]
)
def test_damaged_compressed_files_are_refused(tmp_path: Path, suffix: str, damage: Callable[[bytes], bytes]) -> None:
    path = compressed(tmp_path / f"x.jsonl{suffix}", b"".join(lines(row(str(k))) for k in range(50)))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ConvkitError, match=r"x\.jsonl\.(gz|zst) cannot be decompressed: .*Copy the file again"):
        report_of(path)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_decompression_bomb_is_refused(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convkit.utils.compressed.MAX_EXPANSION", 10)
    path = compressed(tmp_path / f"x.jsonl{suffix}", b" " * 2**20)
    with pytest.raises(ConvkitError, match="more than 10 times its size"):
        report_of(path)


def test_without_zstandard_the_extra_to_install_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = compressed(tmp_path / "x.jsonl.zst", b"{}\n")
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    with pytest.raises(MissingExtra, match=r"pip install 'convkit-vlm\[zstd\]'"):
        report_of(path)
