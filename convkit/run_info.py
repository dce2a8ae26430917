"""run.json: what a run or an evaluation was begun with, beside its options: versions, hardware, data, and the plan.

It is written when it begins, so that its report needs nothing that may have changed or gone since.
"""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from convkit.dataset import first_problem
from convkit.errors import ConvkitError
from convkit.receipt import Receipt
from convkit.schema import Count, Manifest
from convkit.utils.files import write_atomic

RECORD = "run.json"
_STRICT = ConfigDict(extra="forbid", frozen=True)


class Hardware(BaseModel):
    """Of the first process."""

    model_config = _STRICT

    device: str = Field(description="The GPU's name, or cpu.")
    processes: int = Field(ge=1)
    platform: str
    cpus: Count


class Planned(BaseModel):
    """A training run, laid out before its first step."""

    model_config = _STRICT

    method: str
    rows: Count = Field(description="Trained on in each epoch.")
    dropped: Count = Field(description="Left out because they are too long.")
    epochs: Count
    steps: Count
    packs: Count = Field(description="On all processes, in all epochs.")
    tokens: Count = Field(description="Of all rows, in all epochs.")
    digest: str


class Record(BaseModel):
    """What a run directory's run.json holds."""

    model_config = ConfigDict(**_STRICT, title="convkit run")

    versions: dict[str, str] = Field(description="Of packages, by name.")
    hardware: Hardware
    data_dir: Annotated[Path, Field(strict=False)]
    split: str = Field(description="What was trained on, or asked.")
    manifest: Manifest
    receipt: Receipt
    plan: Planned | None = Field(default=None, description="Null of an evaluation.")


def write(directory: Path, record: Record) -> None:
    """Put it into a run directory, in place of an earlier one."""
    write_atomic(directory / RECORD, record.model_dump_json(indent=2).encode() + b"\n", directory)


def read(directory: Path) -> Record | None:
    """What a run was begun with; None where nothing was recorded.

    Raises:
        ConvkitError: it is damaged.
    """
    path = directory / RECORD
    if not path.exists():
        return None
    try:
        return Record.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ConvkitError(
            f"{path} is damaged: {first_problem(error)}. Restore it, or remove it: the report then says nothing of "
            "versions, hardware and data."
        ) from None
