"""Convert videos with the recipe's method in one process, written anew, as a method to compare with.

Usage: python -m benchmarks.recipe_convert SOURCE OUT_DIR METHOD
    sampled    decode up to the last sampled frame, and convert the sampled frames to RGB
    decoded    the same, but decode every frame of the clip
    converted  the same, but convert every frame of the clip
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Frames = NDArray[np.uint8]
FRAMES = 8


def _indices(container: Any) -> list[int]:
    total = container.streams.video[0].frames
    return [int(index) for index in np.arange(0, total, total / FRAMES)]


def sampled(container: Any) -> Frames:
    """Return the frames (8, height, width, 3) in RGB. Decoding stops after the last one."""
    indices = _indices(container)
    kept = []
    for number, frame in enumerate(container.decode(video=0)):
        if number > indices[-1]:
            break
        if number in indices:
            kept.append(frame)
    return np.stack([frame.to_ndarray(format="rgb24") for frame in kept])


def decoded(container: Any) -> Frames:
    """Return the same frames after decoding the whole clip."""
    indices = _indices(container)
    kept = [frame for number, frame in enumerate(container.decode(video=0)) if number in indices]
    return np.stack([frame.to_ndarray(format="rgb24") for frame in kept])


def converted(container: Any) -> Frames:
    """Return the same frames after converting every frame of the clip."""
    indices = _indices(container)
    kept = []
    for number, frame in enumerate(container.decode(video=0)):
        picture = frame.to_ndarray(format="rgb24")
        if number in indices:
            kept.append(picture)
    return np.stack(kept)


METHODS: dict[str, Callable[[Any], Frames]] = {"sampled": sampled, "decoded": decoded, "converted": converted}


def convert(source: Path, out_dir: Path, method: Callable[[Any], Frames]) -> None:
    """Write rows and JPEG files as the recipe does, which leaves closing containers to the garbage collector."""
    labels = sorted({clip.parent.name for clip in source.glob("*/*/*.avi")})
    prompt = f"Classify the video into one of the following classes: {', '.join(labels)}."
    for split in sorted(source.iterdir()):
        rows = []
        for number, clip in enumerate(sorted(split.glob("*/*.avi"))):
            images = []
            for k, picture in enumerate(method(av.open(str(clip)))):
                path = out_dir / "images" / split.name / clip.parent.name / f"{clip.stem}.{k}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).convert("RGB").save(path)
                images.append(path.relative_to(out_dir / "images").as_posix())
            turn = {"images": images, "user": prompt, "assistant": clip.parent.name}
            rows.append({"id": f"{split.name}-{number:010d}", "source": "ucf101", "conversations": [turn]})
        with (out_dir / f"ucf101_{split.name}.jsonl").open("w") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]), METHODS[sys.argv[3]])
