"""Decoding alone, with the decoder that convkit uses: the least that a conversion of every frame can cost.

Usage: python -m benchmarks.decode SOURCE WORKERS
"""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

CHUNK = 4


def count_frames(path: str) -> int:
    """Decode a clip to its end, in one thread, without converting a frame."""
    import cv2

    cv2.setNumThreads(1)
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    total = 0
    while capture.grab():
        total += 1
    capture.release()
    return total


def decode(source: Path, workers: int) -> int:
    """Frames in all clips of a source, decoded by so many processes."""
    paths = sorted(str(path) for path in source.glob("*/*/*.avi"))
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        return sum(pool.map(count_frames, paths, chunksize=CHUNK))


if __name__ == "__main__":
    print(decode(Path(sys.argv[1]), int(sys.argv[2])))
