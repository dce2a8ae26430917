"""Decode clips independently, change their headers, and count the uses of OpenCV's capture."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from convkit.errors import ItemError
from convkit.media.frames import sample_frames

Array = np.ndarray[Any, Any]


CLIP_FRAMES = 40


def copy_frame(frame: Array) -> Array:
    return frame.copy()


def decode_all(path: Path) -> list[Array]:
    """Decode every frame in order, independently of convkit."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    found: list[Array] = []
    while True:
        there, frame = capture.read()
        if not there:
            capture.release()
            return found
        found.append(frame)


def header_count(path: Path) -> int:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.release()
    return count


def same_frames(some: list[Array], others: list[Array]) -> bool:
    return len(some) == len(others) and all(np.array_equal(a, b) for a, b in zip(some, others, strict=True))


def patch_header(clip: Path, target: Path, count: int, riff_size: int | None = None) -> Path:
    """Copy an AVI file and change the frame count, and optionally the size, in its headers."""
    data = bytearray(clip.read_bytes())
    for chunk, offset in ((b"avih", 16), (b"strh", 32)):
        at = data.index(chunk) + 8 + offset
        assert int.from_bytes(data[at : at + 4], "little") == CLIP_FRAMES
        data[at : at + 4] = count.to_bytes(4, "little")
    if riff_size is not None:
        data[4:8] = riff_size.to_bytes(4, "little")
    target.write_bytes(data)
    return target


def refusal(path: Path) -> ItemError:
    with pytest.raises(ItemError) as caught:
        sample_frames(path, 8, copy_frame)
    return caught.value


class Counted:
    """Wrap OpenCV's capture and count its uses."""

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
