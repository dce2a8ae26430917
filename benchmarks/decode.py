"""Decode every frame with convkit's decoder, without anything else: the minimum cost of a conversion.

Usage: python -m benchmarks.decode SOURCE WORKERS SAMPLED QUALITY
    SAMPLED frames of each clip are encoded as JPEG of that QUALITY in memory; 0 encodes none
"""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

CHUNK = 4


def count_frames(sampled: int, quality: int, path: str) -> int:
    """Decode a clip in one thread, encode the sampled frames, and return the number of frames."""
    import cv2

    cv2.setNumThreads(1)
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    header_count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    wanted = {k * header_count // sampled for k in range(sampled)}
    total = 0
    while capture.grab():
        if total in wanted:
            _, frame = capture.retrieve()
            cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])
        total += 1
    capture.release()
    return total


def decode(source: Path, workers: int, sampled: int, quality: int) -> int:
    """Decode all clips of a source in worker processes, and return the number of frames."""
    paths = sorted(str(path) for path in source.glob("*/*/*.avi"))
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        return sum(pool.map(partial(count_frames, sampled, quality), paths, chunksize=CHUNK))


if __name__ == "__main__":
    print(decode(Path(sys.argv[1]), *map(int, sys.argv[2:])))
