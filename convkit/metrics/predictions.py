"""The predictions file (predictions.jsonl): one line per turn, with the prediction and the gold answers.

A line repeats the row's fields that scoring needs, so a file can be scored without its dataset.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, GetPydanticSchema, ValidationError

from convkit.dataset import MAX_LINE_BYTES, Line, read_lines
from convkit.errors import ConvkitError
from convkit.schema import SCHEMA_ID, NonEmptyTuple, OptionalGroup, Row, absent
from convkit.utils.files import display_path
from convkit.utils.json_file import first_problem

MAX_TEXT = 100_000
"""Most characters of a text, since the time of an edit distance grows with the product of both lengths."""


def _never_null(type_: Any) -> GetPydanticSchema:
    """Reject null: as in rows, an absent value is None in Python and a missing key in JSON."""
    return GetPydanticSchema(lambda _source, handler: handler(type_))


Text = Annotated[str, Field(max_length=MAX_TEXT)]
Texts = NonEmptyTuple[Text]
Score = Annotated[float, Field(allow_inf_nan=False)]


class Prediction(BaseModel):
    """The prediction for one turn of a row, with its gold answers."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        title="convkit prediction",
        json_schema_extra={"$id": f"{SCHEMA_ID}:prediction"},
    )

    id: str = Field(min_length=1, max_length=512, description="The row's id.")
    source: str = Field(min_length=1, description="The dataset that the row comes from; selects the default metrics.")
    turn: int = Field(ge=0, description="The turn of the row, from 0.")
    prediction: Text = Field(description="The answer of the model.")
    gold: Annotated[str | None, _never_null(Text)] = absent("The row's answer; absent if the turn has no label.")
    answers: Annotated[tuple[str, ...] | None, _never_null(Texts)] = absent(
        "All accepted answers; absent if only the gold answer is accepted."
    )
    group: OptionalGroup = absent("The row's group; rows of a group are resampled together for confidence intervals.")
    sentence_id: OptionalGroup = absent("NLVR2: the statement of the row, which occurs with several image pairs.")
    score: Annotated[float | None, _never_null(Score)] = absent(
        "Score of the positive answer, such as its probability; only the order of scores matters."
    )

    @classmethod
    def from_row(cls, row: Row, turn: int, prediction: str, score: float | None = None) -> Self:
        """Return the prediction for a turn of a row.

        Raises:
            ValidationError: a text is longer than 100,000 characters.
        """
        chosen = row.conversations[turn]
        sentence_id = (row.metadata or {}).get("sentence_id")
        known: dict[str, Any] = {
            "gold": chosen.assistant,
            "answers": chosen.answers,
            "group": row.group,
            "sentence_id": sentence_id if sentence_id and isinstance(sentence_id, str) else None,
            "score": score,
        }
        present = {key: value for key, value in known.items() if value is not None}
        return cls(id=row.id, source=row.source, turn=turn, prediction=prediction, **present)

    @property
    def accepted(self) -> tuple[str, ...]:
        """Return all accepted answers; none if the turn has no label."""
        return self.answers or (() if self.gold is None else (self.gold,))

    @property
    def label(self) -> str:
        """Return the answer as a class name; only for a turn with a label."""
        return self.accepted[0] if self.gold is None else self.gold

    @property
    def cluster(self) -> tuple[bool, str]:
        """Return the bootstrap cluster: the row's group, or else the row."""
        return (self.group is not None, self.group or self.id)

    def to_line(self) -> bytes:
        """Return the prediction as a JSON line without newline; absent keys are omitted."""
        return self.model_dump_json(exclude_none=True).encode()


def read_predictions(path: Path) -> list[Prediction]:
    """Read a whole predictions file; `.jsonl.gz` and `.jsonl.zst` are decompressed.

    Returns:
        The predictions ordered by id and turn, so that scores do not depend on the order of lines.

    Raises:
        OSError: the file cannot be read.
        ConvkitError: a line is not a prediction, a turn occurs twice, or the file is empty.
    """
    name = display_path(path)
    lines: dict[tuple[str, str, int], int] = {}
    predictions = []
    for number, prediction in _parse(path, name):
        key = (prediction.source, prediction.id, prediction.turn)
        if (first := lines.setdefault(key, number)) != number:
            raise ConvkitError(
                f"{name}:{number} repeats turn {prediction.turn} of the row {prediction.id!r} of "
                f"{prediction.source!r} from line {first}. Keep one of the two lines."
            )
        predictions.append(prediction)
    if not predictions:
        raise ConvkitError(f"{name} contains no predictions. Give a file with one line per turn.")
    return sorted(predictions, key=lambda prediction: (prediction.id, prediction.turn))


def _parse(path: Path, name: str) -> Iterator[tuple[int, Prediction]]:
    for line in read_lines(path):
        try:
            yield line.number, Prediction.model_validate_json(line.raw)
        except ValidationError as error:
            raise ConvkitError(
                f"{name}:{line.number} is not a prediction: {_problem(line, error)}. Fix the line; "
                "`convkit schema prediction` prints the format."
            ) from None


def _problem(line: Line, error: ValidationError) -> str:
    if line.overlong:
        return f"it is longer than {MAX_LINE_BYTES:,} bytes"
    return first_problem(error) if line.raw.strip() else "it is empty"
