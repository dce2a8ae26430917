"""Define the options of an evaluation, from which the command line is made. Must be cheap to import."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

Context = Literal["gold", "images_only"]
"""The text before a turn: earlier turns with their gold answers (teacher-forced history), or only their images."""


@dataclass(frozen=True, kw_only=True)
class AnsweringOptions:
    """Which questions are answered, and how."""

    split: Annotated[str, "Split to evaluate."] = "val"
    context: Annotated[
        Context,
        "Text before each turn: gold = earlier turns with their reference answers (teacher-forced history); "
        "images_only = no earlier text, only the earlier images.",
    ] = "gold"
    limit: Annotated[int | None, "Evaluate only the first rows of the split.", Ge(1)] = None
    batch_size: Annotated[int, "Questions per generation batch.", Ge(1)] = 16
    max_new_tokens: Annotated[int, "Maximum tokens to generate per answer.", Ge(1), Le(10_000)] = 64
    max_tokens: Annotated[int, "Maximum tokens per prompt. A longer prompt is an error.", Ge(1)] = 8192
    dataloader_num_workers: Annotated[int, "Worker processes that read images (0 reads in-process).", Ge(0)] = 2


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(AnsweringOptions):
    """An evaluation's options: the dataset, the model, the output directory, and how to answer."""

    data_dir: Annotated[Path, "Dataset directory with a receipt from `convkit validate` for this model."]
    model: Annotated[Path, "Checkpoint directory."]
    output_dir: Annotated[Path, "Directory for predictions.jsonl and scores.json. An interrupted evaluation resumes."]
    adapter: Annotated[Path | None, "LoRA adapter directory, in PEFT's layout."] = None
    bf16: Annotated[bool, "Compute in bfloat16."] = False
    num_crops: Annotated[
        int | None, "Maximum image tiles, for Phi-3-vision. Default: the checkpoint's value.", Ge(1)
    ] = None

    def resume_fingerprint(self) -> dict[str, Any]:
        """Return the options that predictions depend on. Data and weights are compared by their digests."""
        names = ("split", "context", "limit", "batch_size", "max_new_tokens", "bf16", "num_crops")
        return {f"--{name}": getattr(self, name) for name in names}

    def paths(self) -> dict[str, str]:
        """Return the input paths for a person to read. They are not compared on resume."""
        names = ("data_dir", "model", "adapter")
        return {f"--{name}": str(path) for name in names if (path := getattr(self, name))}
