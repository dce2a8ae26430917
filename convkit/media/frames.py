"""Sample n frames of a video, evenly spaced over the frames that decode.

Frame k of n is decoded frame floor(k*T/n), where T is the number of frames that decode. The header's frame count is
only an estimate of T, and timestamps are ignored, since UCF-101's are not monotonic. The frames for the estimated T are
kept while all frames are decoded, so one pass is usually enough. If T differs, the clip is decoded a second time.
Decoding (`grab`) does not convert; only the sampled frames are converted to RGB. If a stream changes its resolution,
OpenCV silently scales all frames to the first one.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from convkit.errors import ItemError
from convkit.media.containers import truncation_reason

if TYPE_CHECKING:
    import cv2
    from cv2.typing import MatLike

K = TypeVar("K")

CONTAINERS = "avi,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpeg,mpegts,mpegvideo,asf,flv,ogg"
"""FFmpeg's names of the supported container formats."""
MAX_FRAME_PIXELS = 64_000_000
"""Maximum pixels per frame (8K has 33 million). Larger frames are refused before decoding."""
MAX_FRAMES = 3_000_000
"""Maximum frames per clip: more than a day at 30 frames per second. A tiny file can declare endless frames."""
MAX_PIXELS = 500_000_000_000
"""Maximum pixels of all frames of a clip: two hours of full HD at 30 frames per second."""


def sample_indices(total: int, count: int) -> list[int]:
    """Return the index of each sampled frame: floor(k*total/count) for k in 0..count-1. Short clips repeat frames."""
    return [k * total // count for k in range(count)]


def sample_frames(
    path: Path, count: int, encode: "Callable[[MatLike], K]", *, allow_truncated: bool = False
) -> list[K]:
    """Decode a video and return `count` sampled frames, each encoded with `encode`.

    Args:
        path: any container and codec that OpenCV's FFmpeg reads; its first video stream is used.
        count: the number of frames to return, at least 1.
        encode: called once for each distinct sampled frame with an array (height, width, 3) of uint8 in BGR, rotation
            applied. Only its result is kept, so raw frames do not accumulate in memory.
        allow_truncated: use a damaged or truncated clip as far as it decodes, if at least one frame does.

    Raises:
        ItemError: no frame decodes, there are more than `MAX_FRAMES` or `MAX_PIXELS`, or the clip is damaged and
            `allow_truncated` is false.
    """
    with _open(path) as capture:
        declared = _declared_frame_count(capture)
        total, kept = _decode(capture, set(sample_indices(declared, count)), encode)
    if total == 0:
        raise ItemError("no-frames", f"the file opens as a video but none of its frames decodes{_failure_reason(path)}")
    if total != declared:
        if not allow_truncated:
            _check_damage(path, total, declared)
        with _open(path) as capture:
            _, kept = _decode(capture, set(sample_indices(total, count)), encode)
    return [kept[index] for index in sample_indices(total, count)]


@cache
def _cv2() -> Any:
    # Read by OpenCV. Decoder messages go into findings, not to the terminal of every worker. A playlist disguised as
    # a clip cannot open other files.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = (
        f"protocol_whitelist;file|format_whitelist;{CONTAINERS}|fpsprobesize;0"  # the frame rate is not used
    )
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    cv2.setNumThreads(1)  # the worker pool runs one clip per core
    return cv2


@contextmanager
def _open(path: Path, *options: int) -> "Iterator[cv2.VideoCapture]":
    cv2 = _cv2()
    if os.fsencode(path).decode(errors="replace") != os.fspath(path):
        raise ItemError("bad-name", "the file's path is not UTF-8, which crashes OpenCV; rename it")
    # Absolute, since FFmpeg would parse a relative name with a colon as a protocol.
    capture = cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1, *options])
    try:
        if not capture.isOpened():
            raise ItemError("unreadable-video", f"not a video that OpenCV's FFmpeg can open{_failure_reason(path)}")
        width, height = _size(capture)
        if width * height > MAX_FRAME_PIXELS:
            raise ItemError("huge-frames", f"frames of {width}x{height} pixels; the limit is {MAX_FRAME_PIXELS:,}")
        yield capture
    finally:
        capture.release()


def _decode(
    capture: "cv2.VideoCapture", wanted: set[int], encode: "Callable[[MatLike], K]"
) -> tuple[int, dict[int, K]]:
    """Decode to the end; return the number of frames, and the encoded frames by index."""
    kept: dict[int, K] = {}
    total = 0
    width, height = _size(capture)
    limit = min(MAX_FRAMES, MAX_PIXELS // max(1, width * height))
    while capture.grab():
        if total in wanted:
            _, frame = capture.retrieve()
            kept[total] = encode(frame)
        total += 1
        if total > limit:
            what = f"more than {limit:,} frames of {width}x{height} pixels decode"
            raise ItemError("endless-video", f"{what}; cut it into shorter clips")
    return total, kept


def _size(capture: "cv2.VideoCapture") -> tuple[int, int]:
    """Return the width and height of the frames in pixels."""
    cv2 = _cv2()
    return int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))


def _declared_frame_count(capture: "cv2.VideoCapture") -> int:
    """Return the header's frame count, or an estimate from the duration; 0 if neither is available."""
    return max(0, int(capture.get(_cv2().CAP_PROP_FRAME_COUNT)))


def _check_damage(path: Path, total: int, declared: int) -> None:
    """Refuse a clip whose packets do not decode or whose file is truncated; a wrong frame count is accepted."""
    packets = _count_packets(path, declared)
    if packets is not None and total < packets:
        raise ItemError(
            "damaged-video",
            f"{total} of its {packets} readable frames decode (the header declares {declared}); "
            "--allow_truncated uses it as far as it decodes",
        )
    if reason := truncation_reason(path):
        raise ItemError("truncated-video", f"{reason}; --allow_truncated uses the {total} frames that decode")


def _count_packets(path: Path, declared: int) -> int | None:
    """Count the packets of the video stream without decoding; None if OpenCV would count another stream.

    In this mode OpenCV selects the best video stream, not the first. The declared frame counts reveal the difference.
    """
    with _open(path, _cv2().CAP_PROP_FORMAT, -1) as capture:
        if _declared_frame_count(capture) != declared:
            return None
        total = 0
        while total <= MAX_FRAMES and capture.grab():
            total += 1
        return total


def _failure_reason(path: Path) -> str:
    """Return the simplest reason why a file has no frames, as the end of a sentence."""
    try:
        reason = "the file is empty" if path.stat().st_size == 0 else truncation_reason(path)
    except OSError as error:
        reason = str(error.strerror)
    return f": {reason}" if reason else " (unknown format, missing codec, or damaged)"
