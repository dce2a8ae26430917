"""Truncated videos are detected from the length that their container declares."""

import os
import struct
from pathlib import Path

import pytest

from convkit.errors import ItemError
from convkit.media.containers import truncation_reason
from convkit.media.frames import sample_frames
from tests.fixtures.make_clips import write_clip


def _box(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


FTYP = _box(b"ftyp", b"isom")
EBML = b"\x1a\x45\xdf\xa3\x84webm"
SEGMENT = b"\x18\x53\x80\x67"
EIGHT = b"\x01" + (50).to_bytes(7, "big")
LARGE = struct.pack(">I4sQ", 1, b"mdat", 16 + 100)


@pytest.mark.parametrize(
    ("content", "stated"),
    [
        (FTYP + _box(b"moov", bytes(50)), None),
        ((FTYP + _box(b"moov", bytes(50)))[:-1], 12 + 58),
        ((FTYP + _box(b"moov", bytes(50)))[: 12 + 8], 12 + 58),
        (FTYP + LARGE + bytes(100), None),
        (FTYP + LARGE + bytes(99), 12 + 116),
        (FTYP + struct.pack(">I4s", 0, b"mdat") + bytes(30), None),
        (FTYP + struct.pack(">I4s", 5, b"what") + bytes(30), None),
        (FTYP + _box(b"moov", bytes(50)) + b"\0\0\0", None),
        (b"", None),
        (b"RIFF" + struct.pack("<I", 4) + b"AVI ", None),
        (b"RIFF" + struct.pack("<I", 4) + b"AVI " + b"trailing", None),
        (b"RIFF" + struct.pack("<I", 5) + b"AVI ", 13),
        (b"\x1a\x45\xdf\xa3" + bytes(40), None),
        (EBML + SEGMENT + b"\xb2" + bytes(50), None),
        (EBML + SEGMENT + b"\xb2" + bytes(49), 14 + 50),
        (EBML + SEGMENT + b"\x40\x32" + bytes(49), 15 + 50),
        (EBML + SEGMENT + EIGHT + bytes(50), None),
        (EBML + SEGMENT + EIGHT + bytes(50) + b"trailing", None),
        (EBML + SEGMENT + EIGHT + bytes(49), 21 + 50),
        (EBML + SEGMENT + EIGHT, 21 + 50),
        (EBML + SEGMENT + EIGHT[:-1], None),
        (EBML + SEGMENT, None),
        (EBML + SEGMENT + b"\xff" + bytes(50), None),
        (EBML + SEGMENT + b"\x01" + b"\xff" * 7 + bytes(50), None),
        (EBML + SEGMENT + b"\0" * 60, None),
        (EBML + b"\x18\x53\x80\x68\xb2", None),
    ],
    ids=[
        "mp4",
        "mp4-last-byte",
        "mp4-headers-only",
        "mp4-64-bit",
        "mp4-64-bit-cut",
        "mp4-to-the-end",
        "mp4-no-box",
        "mp4-trailing",
        "empty",
        "avi",
        "avi-trailing",
        "avi-cut",
        "mkv-no-header",
        "mkv",
        "mkv-cut",
        "mkv-2-bytes-cut",
        "mkv-8-bytes",
        "mkv-trailing",
        "mkv-8-bytes-cut",
        "mkv-no-content",
        "mkv-length-cut",
        "mkv-no-length",
        "mkv-live",
        "mkv-live-8-bytes",
        "mkv-no-such-length",
        "mkv-no-segment",
    ],
)
def test_missing_bytes_are_reported_for_truncated_files(content: bytes, stated: int | None, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    expected = stated and f"the file is cut short: {len(content):,} of {stated:,} bytes"
    assert truncation_reason(tmp_path / "file") == expected


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_an_avi_file_written_to_a_pipe_declares_no_size(size: int, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"RIFF" + struct.pack("<I", size) + b"AVI " + bytes(100))
    assert truncation_reason(tmp_path / "file") is None


def test_a_truncated_matroska_clip_is_refused(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mkv", 40)
    assert truncation_reason(tmp_path / "clip.mkv") is None
    assert len(sample_frames(tmp_path / "clip.mkv", 8, len)) == 8
    os.truncate(tmp_path / "clip.mkv", (tmp_path / "clip.mkv").stat().st_size // 2)
    with pytest.raises(ItemError, match="the file is cut short") as caught:
        sample_frames(tmp_path / "clip.mkv", 8, len)
    assert caught.value.rule == "truncated-video"
    assert len(sample_frames(tmp_path / "clip.mkv", 8, len, allow_truncated=True)) == 8


def test_a_chain_of_a_million_boxes_ends(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(FTYP + _box(b"free") * 1_000_000)
    assert truncation_reason(tmp_path / "file") is None


def test_complete_files_are_not_reported(tmp_path: Path, shared_data: Path) -> None:
    write_clip(tmp_path / "made.avi", 5)
    files = [tmp_path / "made.avi", *(p for p in (shared_data / "data/video").rglob("*.m*") if p.suffix != ".json")]
    assert len(files) > 10
    assert [path.name for path in files if truncation_reason(path)] == []


@pytest.mark.parametrize("name", ["torchcodec/testsrc2.mp4", "decord/video_0.mov", "energon/sync_test.mkv"])
def test_truncated_real_files_are_reported(name: str, shared_data: Path, tmp_path: Path) -> None:
    whole = (shared_data / "data/video" / name).read_bytes()
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    reason = truncation_reason(tmp_path / "cut")
    assert reason is not None
    assert reason.startswith(f"the file is cut short: {len(whole) // 2:,} of ")
