"""Reading a run directory: whole, unfinished, or damaged, which ends in an error that names the file."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from convkit import run_info
from convkit.dataset import read_lines
from convkit.errors import ConvkitError
from convkit.metrics.results import Scores
from convkit.run_info import RunInfo
from convkit.utils.files import display_path
from convkit.utils.json_file import first_problem, read_model

MAX_FILE_BYTES = 64 * 2**20
Finite = Annotated[float, Field(allow_inf_nan=False)]
T = TypeVar("T")
_OPTIONS = TypeAdapter(dict[str, JsonValue])


class Step(BaseModel):
    """A line of metrics.jsonl, as far as it is shown."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    step: int = Field(ge=1)
    loss: Finite
    learning_rate: Finite
    grad_norm: Finite | None
    rows: int = Field(ge=0)
    tokens: int = Field(ge=0)
    supervised_tokens: int = Field(ge=0)
    seconds: Finite
    images_per_second: Finite | None = None
    memory_gib: Finite | None = None
    skipped: bool = False


@dataclass(frozen=True)
class Evaluation:
    """A finished one."""

    name: str
    step: int | None
    """Of the run that it was made in; None if it was made by `convkit evaluate`."""
    folder: Path
    scores: Scores
    record: RunInfo | None
    """With the split that was asked."""

    @property
    def predictions(self) -> Path:
        """The file that was scored."""
        return self.folder / "predictions.jsonl"


@dataclass(frozen=True)
class Run:
    """All that a report is made from, but for predictions, rows and images."""

    name: str
    kind: Literal["training", "evaluation"]
    options: dict[str, JsonValue]
    record: RunInfo | None
    steps: list[Step]
    evaluations: list[Evaluation]
    unfinished: list[str]
    """Names of evaluations that were begun."""
    dropped: int
    finished: bool


def run(directory: Path, evaluations: Sequence[Path] = ()) -> Run:
    """Read a run directory.

    Args:
        evaluations: directories of further evaluations.

    Raises:
        ConvkitError: it is none, or a file of it is damaged.
    """
    training, evaluation = directory / "config.json", directory / "evaluation.json"
    if not training.is_file() and not evaluation.is_file():
        raise ConvkitError(
            f"{directory} is no run directory: it has neither config.json nor evaluation.json. Give the --output_dir "
            "of convkit train or convkit evaluate."
        )
    is_training = training.is_file()
    options = _parsed(training if is_training else evaluation, _OPTIONS)
    recorded = run_info.read(directory)
    asked = recorded and recorded.model_copy(update={"split": options.get("eval_split")})
    folders = sorted((directory / "evaluations").glob("step-*")) if is_training else []
    own = [(folder, _evaluation(folder, _step(folder), asked)) for folder in folders]
    for folder in evaluations:
        if not (folder / "scores.json").is_file():
            raise ConvkitError(f"{folder} has no scores.json. Give the --output_dir of a finished convkit evaluate.")
    others = evaluations if is_training else [directory, *evaluations]
    found = [*own, *((folder, _evaluation(folder, None, run_info.read(folder))) for folder in others)]
    return Run(
        name=_name(directory),
        kind="training" if is_training else "evaluation",
        options=options,
        record=recorded,
        steps=_steps(directory / "metrics.jsonl") if is_training else [],
        evaluations=[evaluation for _, evaluation in found if evaluation],
        unfinished=[_name(folder) for folder, evaluation in found if evaluation is None],
        dropped=_count(directory / "dropped.jsonl"),
        finished=(directory / "final").is_dir() if is_training else bool(found[0][1]),
    )


def _evaluation(folder: Path, step: int | None, asked: RunInfo | None) -> Evaluation | None:
    """None where it has no scores, which are written last."""
    path = folder / "scores.json"
    if not path.is_file():
        return None
    name = _name(folder) if step is None else "before training" if step == 0 else f"after step {step:,}"
    return Evaluation(name, step, folder, _parsed(path, TypeAdapter(Scores)), asked)


def _step(folder: Path) -> int:
    if not (found := re.fullmatch(r"step-(\d{1,18})", folder.name)):
        raise ConvkitError(f"{folder} is no evaluation of a step. Remove it from the run directory.")
    return int(found[1])


def _steps(path: Path) -> list[Step]:
    """The steps that were done; a last line that was cut off is of a step that was not."""
    if not path.is_file():
        return []
    content = path.read_bytes()
    found = []
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), 1):
        try:
            found.append(Step.model_validate_json(line))
        except ValidationError as error:
            raise ConvkitError(
                f"{path}:{number} is no line of a step: {first_problem(error)}. Go on with the run by --resume auto, "
                "which writes later steps again, or remove the line."
            ) from None
    return found


def _count(path: Path) -> int:
    return sum(1 for _ in read_lines(path)) if path.is_file() else 0


def _parsed(path: Path, kind: TypeAdapter[T]) -> T:
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        raise ConvkitError(f"{path} has {size:,} bytes, more than convkit writes there. Restore the file.")
    return read_model(path, kind, "Restore it, or run the same command again in another --output_dir.")


def _name(path: Path) -> str:
    return display_path(path.absolute().name) or "run"


def shown(value: Any) -> str:
    """An option's value as it is written on a command line."""
    return value if isinstance(value, str) else "-" if value is None else TypeAdapter(Any).dump_json(value).decode()
