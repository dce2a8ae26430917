"""Frame sampling: n frames of a video, evenly spaced over the frames that really decode.

Frame k of n is decoded frame floor(k*T/n), where T is the number of frames that decode: what the container's
header claims is only a guess, and timestamps (not monotonic in UCF-101's clips) are not looked at. The guess is
what makes one pass enough: the frames it calls for are kept while all are decoded, and only if T turns out
different is the clip decoded a second time. Decoding (`grab`) does not convert; the sampled frames alone become RGB.
Where a stream changes its size, OpenCV scales to the size at the beginning and tells of no other.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from convkit.errors import ItemError
from convkit.media.containers import cut_short

if TYPE_CHECKING:
    import cv2
    from cv2.typing import MatLike

K = TypeVar("K")

CONTAINERS = "avi,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpeg,mpegts,mpegvideo,asf,flv,ogg"
"""FFmpeg's names of the formats that are read."""
MAX_FRAME_PIXELS = 64_000_000
"""Larger frames (8K is 33 million) are refused before one is decoded."""
MAX_FRAMES = 3_000_000
"""Longer clips are refused: more than a day at 30 frames a second, while a few bytes can claim frames without end."""
MAX_PIXELS = 500_000_000_000
"""Of all frames of a clip: two hours of full HD at 30 frames a second, which take minutes to decode and not days."""


def sample_indices(total: int, count: int) -> list[int]:
    """Index of each sampled frame: floor(k*total/count) for k in 0..count-1. A short clip's frames repeat."""
    return [k * total // count for k in range(count)]


def sample_frames(path: Path, count: int, keep: "Callable[[MatLike], K]", *, allow_truncated: bool = False) -> list[K]:
    """Decode a video and return `count` frames, each as `keep` makes it.

    Args:
        path: any container and codec that OpenCV's FFmpeg reads; its first video stream is used.
        count: frames to return, at least 1.
        keep: called once for each distinct sampled frame with an array (height, width, 3) of uint8 in BGR, rotation
            applied; what it returns is kept, so that an encoder here means that raw frames are never collected.
        allow_truncated: use a damaged or cut clip as far as it decodes, if one frame does.

    Raises:
        ItemError: no frame decodes, they are more than `MAX_FRAMES` or `MAX_PIXELS`, or the clip is damaged and
            `allow_truncated` is false.
    """
    with _open(path) as capture:
        claimed = _claimed(capture)
        total, kept = _decode(capture, set(sample_indices(claimed, count)), keep)
    if total == 0:
        raise ItemError("no-frames", f"the file opens as video but none of its frames decodes{_why_not(path)}")
    if total != claimed:
        if not allow_truncated:
            _refuse_if_damaged(path, total, claimed)
        with _open(path) as capture:
            _, kept = _decode(capture, set(sample_indices(total, count)), keep)
    return [kept[index] for index in sample_indices(total, count)]


@cache
def _cv2() -> Any:
    # Read by OpenCV. Decoders' complaints go into findings, not to the terminal from every worker; and a playlist that
    # calls itself a clip opens no other file.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = (
        f"protocol_whitelist;file|format_whitelist;{CONTAINERS}|fpsprobesize;0"  # the frame rate is of no interest
    )
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    cv2.setNumThreads(1)  # parallelism is the engine's: one clip, one core
    return cv2


@contextmanager
def _open(path: Path, *options: int) -> "Iterator[cv2.VideoCapture]":
    cv2 = _cv2()
    if os.fsencode(path).decode(errors="replace") != os.fspath(path):
        raise ItemError("bad-name", "the file's path is not UTF-8, which crashes OpenCV; rename it")
    # Absolute: FFmpeg would take a relative name with a colon for a protocol.
    capture = cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1, *options])
    try:
        if not capture.isOpened():
            raise ItemError("unreadable-video", f"not a video that OpenCV's FFmpeg can open{_why_not(path)}")
        width, height = _size(capture)
        if width * height > MAX_FRAME_PIXELS:
            raise ItemError("huge-frames", f"frames of {width}x{height} pixels; the limit is {MAX_FRAME_PIXELS:,}")
        yield capture
    finally:
        capture.release()


def _decode(capture: "cv2.VideoCapture", wanted: set[int], keep: "Callable[[MatLike], K]") -> tuple[int, dict[int, K]]:
    """Decode to the end: how many frames there are, and those wanted, by index."""
    kept: dict[int, K] = {}
    total = 0
    width, height = _size(capture)
    most = min(MAX_FRAMES, MAX_PIXELS // max(1, width * height))
    while capture.grab():
        if total in wanted:
            _, frame = capture.retrieve()
            kept[total] = keep(frame)
        total += 1
        if total > most:
            what = f"more than {most:,} frames of {width}x{height} pixels decode"
            raise ItemError("endless-video", f"{what}; cut it into shorter clips")
    return total, kept


def _size(capture: "cv2.VideoCapture") -> tuple[int, int]:
    """Width and height of the frames, in pixels."""
    cv2 = _cv2()
    return int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))


def _claimed(capture: "cv2.VideoCapture") -> int:
    """The header's number of frames, or an estimate from the duration; 0 where there is neither."""
    return max(0, int(capture.get(_cv2().CAP_PROP_FRAME_COUNT)))


def _refuse_if_damaged(path: Path, total: int, claimed: int) -> None:
    """A header that miscounts is no damage; packets that do not decode and a file cut short are."""
    packets = _count_packets(path, claimed)
    if packets is not None and total < packets:
        raise ItemError(
            "damaged-video",
            f"{total} of its {packets} readable frames decode (the header claims {claimed}); "
            "--allow_truncated uses it as far as it decodes",
        )
    if reason := cut_short(path):
        raise ItemError("truncated-video", f"{reason}; --allow_truncated uses the {total} frames that decode")


def _count_packets(path: Path, claimed: int) -> int | None:
    """Packets of the video stream, without decoding them; None where OpenCV would count another stream's.

    In this mode OpenCV takes the best video stream of several, not the first; the header's claim tells them apart.
    """
    with _open(path, _cv2().CAP_PROP_FORMAT, -1) as capture:
        if _claimed(capture) != claimed:
            return None
        total = 0
        while total <= MAX_FRAMES and capture.grab():
            total += 1
        return total


def _why_not(path: Path) -> str:
    """The plainest reason why a file gives no frames, as the end of a sentence."""
    try:
        reason = "the file is empty" if path.stat().st_size == 0 else cut_short(path)
    except OSError as error:
        reason = str(error.strerror)
    return f": {reason}" if reason else " (unknown format, missing codec, or damaged)"
