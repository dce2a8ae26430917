"""run.json: what a training run or evaluation started with: versions, hardware, dataset, and batch schedule.

It is written at the start, so that the report needs no file that may have changed since.
"""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from convkit.receipt import Receipt
from convkit.schema import Count, Manifest
from convkit.utils.json_file import read_model, write_model

RUN_INFO = "run.json"
_STRICT = ConfigDict(extra="forbid", frozen=True)


class Hardware(BaseModel):
    """The hardware of a run's first process."""

    model_config = _STRICT

    device: str = Field(description="The GPU's name, or cpu.")
    processes: int = Field(ge=1)
    platform: str
    cpus: Count


class ScheduleSummary(BaseModel):
    """The size of a training run, known before its first step."""

    model_config = _STRICT

    method: str
    rows: Count = Field(description="Rows per epoch.")
    dropped: Count = Field(description="Rows that are too long.")
    epochs: Count
    steps: Count
    micro_batches: Count = Field(description="Micro-batches of all processes in all epochs.")
    tokens: Count = Field(description="Tokens of all rows in all epochs.")
    digest: str


class RunInfo(BaseModel):
    """The content of run.json."""

    model_config = ConfigDict(**_STRICT, title="convkit run")

    versions: dict[str, str] = Field(description="Package versions by name.")
    hardware: Hardware
    data_dir: Annotated[Path, Field(strict=False)]
    split: str = Field(description="The split that is trained or evaluated on.")
    manifest: Manifest
    receipt: Receipt
    schedule: ScheduleSummary | None = Field(default=None, description="Null for an evaluation.")


def write(directory: Path, info: RunInfo) -> None:
    """Write run.json into a run directory, replacing an earlier one."""
    write_model(directory / RUN_INFO, info)


def read(directory: Path) -> RunInfo | None:
    """Return the content of a run directory's run.json, or None if there is none.

    Raises:
        ConvkitError: the file is damaged.
    """
    path = directory / RUN_INFO
    if not path.exists():
        return None
    remedy = "Restore it, or remove it: the report then lacks versions, hardware and data."
    return read_model(path, RunInfo, remedy)
