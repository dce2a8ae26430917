"""Read a run directory, finished or unfinished; a damaged file is an error that names it."""

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
    """A line of metrics.jsonl, with the fields that the report shows."""

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
    """A finished evaluation with its scores."""

    name: str
    step: int | None
    """The training step after which it ran; None for `convkit evaluate`."""
    folder: Path
    scores: Scores
    info: RunInfo | None
    """The run.json, with the evaluated split."""

    @property
    def predictions(self) -> Path:
        """Return the path of the scored predictions file."""
        return self.folder / "predictions.jsonl"


@dataclass(frozen=True)
class Run:
    """The contents of a run directory, except predictions, rows and images."""

    name: str
    kind: Literal["training", "evaluation"]
    options: dict[str, JsonValue]
    info: RunInfo | None
    steps: list[Step]
    evaluations: list[Evaluation]
    unfinished: list[str]
    """Names of unfinished evaluations."""
    dropped: int
    finished: bool


def read_run(directory: Path, evaluations: Sequence[Path] = ()) -> Run:
    """Read a run directory of `convkit train` or `convkit evaluate`.

    Args:
        directory: the run directory.
        evaluations: directories of further evaluations.

    Raises:
        ConvkitError: it is not a run directory, or a file is damaged.
    """
    training, evaluation = directory / "config.json", directory / "evaluation.json"
    if not training.is_file() and not evaluation.is_file():
        raise ConvkitError(
            f"{directory} is not a run directory: it has neither config.json nor evaluation.json. Give the "
            "--output_dir of convkit train or convkit evaluate."
        )
    for folder in evaluations:
        if not (folder / "scores.json").is_file():
            raise ConvkitError(f"{folder} has no scores.json. Give the --output_dir of a finished convkit evaluate.")
    return _read_training(directory, evaluations) if training.is_file() else _read_evaluation(directory, evaluations)


def _read_training(directory: Path, evaluations: Sequence[Path]) -> Run:
    options = _read_json(directory / "config.json", _OPTIONS)
    info = run_info.read(directory)
    of_split = info and info.model_copy(update={"split": options.get("eval_split")})
    folders = sorted((directory / "evaluations").glob("step-*"))
    found = [(folder, _evaluation(folder, _step(folder), of_split)) for folder in folders]
    found += _separate_evaluations(evaluations)
    return Run(
        name=_name(directory),
        kind="training",
        options=options,
        info=info,
        steps=_steps(directory / "metrics.jsonl"),
        evaluations=[evaluation for _, evaluation in found if evaluation],
        unfinished=[_name(folder) for folder, evaluation in found if evaluation is None],
        dropped=_count(directory / "dropped.jsonl"),
        finished=(directory / "final").is_dir(),
    )


def _read_evaluation(directory: Path, evaluations: Sequence[Path]) -> Run:
    options = _read_json(directory / "evaluation.json", _OPTIONS)
    found = _separate_evaluations([directory, *evaluations])
    return Run(
        name=_name(directory),
        kind="evaluation",
        options=options,
        info=run_info.read(directory),
        steps=[],
        evaluations=[evaluation for _, evaluation in found if evaluation],
        unfinished=[_name(folder) for folder, evaluation in found if evaluation is None],
        dropped=_count(directory / "dropped.jsonl"),
        finished=found[0][1] is not None,
    )


def _separate_evaluations(folders: Sequence[Path]) -> list[tuple[Path, Evaluation | None]]:
    """Read the output directories of `convkit evaluate`."""
    return [(folder, _evaluation(folder, None, run_info.read(folder))) for folder in folders]


def _evaluation(folder: Path, step: int | None, info: RunInfo | None) -> Evaluation | None:
    """Return an evaluation; None if it has no scores, which are written last."""
    path = folder / "scores.json"
    if not path.is_file():
        return None
    name = _name(folder) if step is None else "before training" if step == 0 else f"after step {step:,}"
    return Evaluation(name, step, folder, _read_json(path, TypeAdapter(Scores)), info)


def _step(folder: Path) -> int:
    if not (found := re.fullmatch(r"step-(\d{1,18})", folder.name)):
        raise ConvkitError(f"{folder} is not an evaluation of a step. Remove it from the run directory.")
    return int(found[1])


def _steps(path: Path) -> list[Step]:
    """Return the completed steps; an incomplete last line is ignored."""
    if not path.is_file():
        return []
    content = path.read_bytes()
    found = []
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), 1):
        try:
            found.append(Step.model_validate_json(line))
        except ValidationError as error:
            raise ConvkitError(
                f"{path}:{number} is not a valid step: {first_problem(error)}. Resume the run with --resume auto, "
                "which rewrites later steps, or remove the line."
            ) from None
    return found


def _count(path: Path) -> int:
    return sum(1 for _ in read_lines(path)) if path.is_file() else 0


def _read_json(path: Path, kind: TypeAdapter[T]) -> T:
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        raise ConvkitError(f"{path} has {size:,} bytes, more than convkit writes there. Restore the file.")
    return read_model(path, kind, "Restore it, or run the same command again in another --output_dir.")


def _name(path: Path) -> str:
    return display_path(path.absolute().name) or "run"


def format_option(value: Any) -> str:
    """Return an option's value as it is written on the command line."""
    return value if isinstance(value, str) else "-" if value is None else TypeAdapter(Any).dump_json(value).decode()
