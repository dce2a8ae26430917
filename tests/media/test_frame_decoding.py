"""Clips are decoded once, within limits on frames and pixels, and every capture is closed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from convkit.errors import ItemError
from convkit.media import frames
from convkit.media.frames import sample_frames
from tests.conftest import ROOT
from tests.fixtures.make_clips import write_clip
from tests.media.clips import CLIP_FRAMES, Counted, copy_frame, patch_header, refusal


def test_frames_that_are_too_large_are_refused(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_FRAME_PIXELS", 160 * 120 - 1)
    error = refusal(clip)
    assert (error.rule, "frames of 160x120 pixels" in error.reason) == ("huge-frames", True)


@pytest.mark.parametrize("allow_truncated", [False, True])
@pytest.mark.parametrize(("limit", "each"), [("MAX_FRAMES", 1), ("MAX_PIXELS", 160 * 120)])
def test_decoding_stops_at_the_limits_of_frames_and_pixels(
    limit: str, each: int, allow_truncated: bool, clip: Path, counted: type[Counted], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, limit, CLIP_FRAMES * each)
    assert len(sample_frames(clip, 8, copy_frame)) == 8
    monkeypatch.setattr(frames, limit, 10 * each)
    counted.grabbed = 0
    with pytest.raises(ItemError, match="more than 10 frames of 160x120 pixels decode") as caught:
        sample_frames(clip, 8, copy_frame, allow_truncated=allow_truncated)
    assert (caught.value.rule, counted.grabbed) == ("endless-video", 11)


def test_counting_packets_stops_at_the_frame_limit(
    clip: Path, tmp_path: Path, counted: type[Counted], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Count undecodable packets, of which there are more than frames."""
    monkeypatch.setattr(frames, "MAX_FRAMES", 10)
    assert frames._count_packets(clip, CLIP_FRAMES) == counted.grabbed == 11


def test_a_name_that_is_not_utf8_is_refused(clip: Path, tmp_path: Path) -> None:
    """Use a process of its own, because OpenCV 4.14 crashes on such a name."""
    shutil.copy(os.fsencode(clip), os.path.join(os.fsencode(tmp_path), b"caf\xe9.avi"))
    script = (
        "import os, sys; from pathlib import Path; from convkit.errors import ItemError; "
        "from convkit.media.frames import sample_frames\n"
        "try: sample_frames(Path(os.fsdecode(os.fsencode(sys.argv[1]) + b'/caf\\xe9.avi')), 8, len)\n"
        "except ItemError as error: print(error.rule)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, "bad-name\n")


def test_a_valid_clip_is_decoded_once_and_eight_frames_are_converted(clip: Path, counted: type[Counted]) -> None:
    kept: list[int] = []
    sample_frames(clip, 8, lambda frame: kept.append(1))
    assert (counted.opened, counted.grabbed, counted.retrieved, len(kept)) == (1, CLIP_FRAMES + 1, 8, 8)


def test_a_repeated_frame_is_encoded_once(tmp_path: Path, counted: type[Counted]) -> None:
    write_clip(tmp_path / "short.avi", 3)
    assert len(sample_frames(tmp_path / "short.avi", 8, lambda frame: frame.shape)) == 8
    assert counted.retrieved == 3


def test_every_capture_is_closed(clip: Path, tmp_path: Path, counted: type[Counted]) -> None:
    sample_frames(patch_header(clip, tmp_path / "patched.avi", 17), 8, copy_frame)
    (tmp_path / "garbage.avi").write_bytes(b"garbage")
    refusal(tmp_path / "garbage.avi")
    assert counted.released == counted.opened == 4
