"""Predictions beside what was asked and shown: the worst ones first, and a few of the others."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from convkit import layout
from convkit.dataset import Dataset
from convkit.errors import ConvkitError
from convkit.metrics.answers import anls, exact_match
from convkit.metrics.predictions import Prediction, read_predictions
from convkit.metrics.score import group_by_source
from convkit.report.curves import number
from convkit.report.load import Evaluation, Run
from convkit.report.pictures import Budget, Picture
from convkit.run_info import RunInfo
from convkit.schema import Row

MAX_WORST, MAX_OTHERS, MAX_SOURCES, MAX_IMAGES = 12, 6, 4, 4
MAX_TEXT = 600


@dataclass(frozen=True)
class Sample:
    """One turn."""

    id: str
    turn: int
    score: str
    right: bool | None
    """None where there is nothing to compare with."""
    prediction: str
    before: str | None
    """What was predicted in the first evaluation; None where there is but one."""
    accepted: list[str]
    prompt: str | None = None
    pictures: list[Picture] = field(default_factory=list)
    more_pictures: int = 0


@dataclass(frozen=True)
class Group:
    """Samples of one data set."""

    title: str
    worst: list[Sample]
    others: list[Sample]
    note: str


@dataclass(frozen=True)
class _Scored:
    value: float | None
    prediction: Prediction

    @property
    def order(self) -> tuple[float, str]:
        """Of equal ones the first ones are any, though always the same."""
        address = f"{self.prediction.id}\0{self.prediction.turn}".encode()
        return (-1 if self.value is None else self.value), hashlib.sha256(address).hexdigest()


def samples(run: Run) -> list[Group]:
    """Of the last evaluation, each data set's."""
    if not run.evaluations:
        return []
    last, first = run.evaluations[-1], run.evaluations[0]
    found = group_by_source(read_predictions(last.predictions))
    before = {} if first is last else {_key(p): p.prediction for p in read_predictions(first.predictions)}
    chosen = {source: _choose(predictions, _metric(last, source)) for source, predictions in found.items()}
    chosen = dict(list(chosen.items())[:MAX_SOURCES])
    wanted = {scored.prediction.id for worst, others in chosen.values() for scored in (*worst, *others)}
    rows, note = _rows(last.record, wanted)
    budget = Budget()
    images = last.record.data_dir / layout.IMAGES if last.record else Path()

    def shown(scored: Sequence[_Scored]) -> list[Sample]:
        return [_sample(one, before, rows, images, budget) for one in scored]

    return [
        Group(f"{source}, {last.name}", shown(worst), shown(others), note) for source, (worst, others) in chosen.items()
    ]


def _metric(evaluation: Evaluation, source: str) -> str:
    names = [metric.name for found in evaluation.scores.sources if found.source == source for metric in found.metrics]
    return "anls" if "anls" in names else "accuracy"


def _choose(predictions: Sequence[Prediction], metric: str) -> tuple[list[_Scored], list[_Scored]]:
    """The worst of those that are not right, and others."""
    scored = sorted((_Scored(_value(p, metric), p) for p in predictions), key=lambda one: one.order)
    worst = [one for one in scored if one.value is not None and one.value < 1][:MAX_WORST]
    taken = {id(one) for one in worst}
    others = sorted((one for one in scored if id(one) not in taken), key=lambda one: one.order[1])[:MAX_OTHERS]
    return worst, others


def _value(prediction: Prediction, metric: str) -> float | None:
    if not prediction.accepted:
        return None
    measure = anls if metric == "anls" else exact_match
    return float(measure(prediction.prediction, prediction.accepted))


def _rows(asked: RunInfo | None, wanted: set[str]) -> tuple[dict[tuple[str, str], Row], str]:
    """Rows of the data set by source and id, as far as it is still the same; else why there are none."""
    if asked is None:
        return {}, "There is no run.json, so prompts and images are not shown."
    try:
        dataset = Dataset.open(asked.data_dir)
        if dataset.manifest != asked.manifest:
            return {}, f"{asked.data_dir} holds another data set by now, so prompts and images are not shown."
        found = {(row.source, row.id): row for _, row in dataset.rows(asked.split) if row.id in wanted}
    except ConvkitError as error:
        return {}, f"Prompts and images are not shown: {error}"
    return found, ""


def _sample(
    scored: _Scored,
    before: dict[tuple[str, str, int], str],
    rows: dict[tuple[str, str], Row],
    images: Path,
    budget: Budget,
) -> Sample:
    prediction = scored.prediction
    row = rows.get((prediction.source, prediction.id))
    earlier = before.get(_key(prediction))
    paths = [path for turn in row.conversations[: prediction.turn + 1] for path in turn.images] if row else []
    has_turn = row is not None and prediction.turn < len(row.conversations)
    return Sample(
        id=prediction.id,
        turn=prediction.turn,
        score="-" if scored.value is None else number(scored.value),
        right=None if scored.value is None else scored.value == 1,
        prediction=short(prediction.prediction),
        before=None if earlier is None else short(earlier),
        accepted=[short(answer) for answer in prediction.accepted[:5]],
        prompt=short(row.conversations[prediction.turn].user) if row and has_turn else None,
        pictures=[budget.picture(images, path) for path in paths[:MAX_IMAGES]],
        more_pictures=max(0, len(paths) - MAX_IMAGES),
    )


def short(text: str) -> str:
    """A text of bounded length."""
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"


def _key(prediction: Prediction) -> tuple[str, str, int]:
    return prediction.source, prediction.id, prediction.turn
