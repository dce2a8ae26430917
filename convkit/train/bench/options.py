"""Define the options of `convkit bench`, from which the command line is made. Must be cheap to import."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge

from convkit.train.config import Config, resolve

MethodName = Literal["full", "frozen", "lora", "qlora"]
WorkloadName = Literal["document", "video", "mixed"]
ModelSize = Literal["full", "tiny"]

METHODS: dict[MethodName, dict[str, Any]] = {
    "full": {},
    "frozen": {"freeze_vision_model": True},
    "lora": {"use_lora": True},
    "qlora": {"use_qlora": True},
}
"""The options of `convkit train` that select each fine-tuning method."""
TRAIN_DEFAULTS: dict[str, Any] = {
    "lora_rank": 32,
    "lora_alpha_ratio": 0.5,
    "dataloader_num_workers": min(8, os.cpu_count() or 1),
}
"""Defaults that differ from `convkit train`: the recipe's LoRA adapters for DocVQA, and up to 8 workers."""
NO_EFFECT_ON_SPEED = frozenset(
    (
        *("model", "output_dir", "num_train_epochs", "warmup_steps", "deepspeed", "fsdp"),
        *("eval_split", "eval_steps", "eval_limit", "eval_batch_size", "eval_max_new_tokens"),
        *("save_steps", "save_total_limit", "check_checkpoint", "resume", "report_to", "logging_steps"),
    )
)
"""Options of `convkit train` that `convkit bench train` does not have, since no measured step depends on them."""
SET_BY_BENCH_OPTIONS = frozenset(("data_dir", "use_lora", "use_qlora"))
"""Options of `convkit train` that `BenchOptions` replaces."""


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """The options of `convkit bench train` that are not options of `convkit train`."""

    method: Annotated[MethodName, "Fine-tuning method."] = "full"
    workload: Annotated[
        WorkloadName, "Synthetic rows: document = one page of 17 crops; video = 8 frames; mixed = a mixture."
    ] = "document"
    data_dir: Annotated[Path | None, "Train on this dataset directory instead. It needs no receipt."] = None
    model_size: Annotated[
        ModelSize, "full = the size of Phi-3.5-vision; tiny = two layers, to try a command on the CPU."
    ] = "full"
    steps: Annotated[int, "Measured steps.", Ge(1)] = 5
    warmup_steps: Annotated[int, "Steps before the measured ones, for compilation and memory allocation.", Ge(1)] = 3
    profile_steps: Annotated[
        int, "Measured steps to repeat under torch.profiler, which gives the GPU's idle time.", Ge(0)
    ] = 1

    def config(self, given: Mapping[str, Any]) -> Config:
        """Return the training options of the method and the workload, overridden by the given ones.

        Raises:
            ConvkitError: options are unknown, out of bounds, or contradict each other.
        """
        from convkit.train.bench.workloads import WORKLOADS

        defaults = {
            **TRAIN_DEFAULTS,
            "num_crops": WORKLOADS[self.workload].num_crops,
            "bf16": self.model_size == "full" and not given.get("fp16"),
            "data_dir": self.data_dir or Path(),
            "model": Path("random"),
            "output_dir": Path(),
        }
        return resolve({**defaults, **METHODS[self.method], **given})


@dataclass(frozen=True, kw_only=True)
class DataLoadingOptions:
    """The options of `convkit bench data`."""

    data_dir: Annotated[Path | None, "Dataset directory. Default: synthetic rows of --workload."] = None
    split: Annotated[str, "Split to read, with --data_dir."] = "train"
    workload: Annotated[WorkloadName, "Synthetic rows, without --data_dir."] = "document"
    num_crops: Annotated[int | None, "Maximum tiles per image. Default: the workload's.", Ge(1)] = None
    rows: Annotated[int, "Rows per measurement.", Ge(10)] = 200
    workers: Annotated[
        list[int] | None, "Worker processes to measure with; repeatable. Default: 1, 2, 4, ... CPU count.", Ge(1)
    ] = None
    target_rate: Annotated[
        list[float] | None, "Training throughput in images/s: print how many workers it needs; repeatable."
    ] = None

    def worker_counts(self) -> list[int]:
        """Return the numbers of worker processes to measure with."""
        cores = os.cpu_count() or 1
        return self.workers or [2**power for power in range(cores.bit_length())]
