"""Select predictions to show with their prompts and images: the lowest scores first, and a few others."""

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
from convkit.report.curves import format_number
from convkit.report.run_directory import Evaluation, Run
from convkit.report.thumbnails import Thumbnail, ThumbnailBudget
from convkit.run_info import RunInfo
from convkit.schema import Row

MAX_LOWEST, MAX_OTHERS, MAX_SOURCES, MAX_IMAGES = 12, 6, 4, 4
MAX_TEXT = 600


@dataclass(frozen=True)
class Sample:
    """A turn with its prediction, gold answers, prompt and images."""

    id: str
    turn: int
    score: str
    right: bool | None
    """None if the turn has no gold answer."""
    prediction: str
    before: str | None
    """The prediction of the first evaluation; None if there is only one."""
    accepted: list[str]
    prompt: str | None = None
    images: list[Thumbnail] = field(default_factory=list)
    more_images: int = 0


@dataclass(frozen=True)
class Group:
    """The samples of one dataset."""

    title: str
    lowest: list[Sample]
    others: list[Sample]
    note: str


@dataclass(frozen=True)
class _Scored:
    value: float | None
    prediction: Prediction

    @property
    def order(self) -> tuple[float, str]:
        """Return the sort key: by score, and in a fixed random order among equal scores."""
        address = f"{self.prediction.id}\0{self.prediction.turn}".encode()
        return (-1 if self.value is None else self.value), hashlib.sha256(address).hexdigest()


def choose_samples(run: Run) -> list[Group]:
    """Return the samples of each dataset in the last evaluation."""
    if not run.evaluations:
        return []
    last, first = run.evaluations[-1], run.evaluations[0]
    found = group_by_source(read_predictions(last.predictions))
    before = {} if first is last else {_key(p): p.prediction for p in read_predictions(first.predictions)}
    chosen = {source: _lowest_and_others(predictions, _metric(last, source)) for source, predictions in found.items()}
    chosen = dict(list(chosen.items())[:MAX_SOURCES])
    wanted = {scored.prediction.id for lowest, others in chosen.values() for scored in (*lowest, *others)}
    rows, note = _rows(last.info, wanted)
    budget = ThumbnailBudget()
    images = last.info.data_dir / layout.IMAGES if last.info else Path()

    def to_samples(scored: Sequence[_Scored]) -> list[Sample]:
        return [_sample(one, before, rows, images, budget) for one in scored]

    return [
        Group(f"{source}, {last.name}", to_samples(lowest), to_samples(others), note)
        for source, (lowest, others) in chosen.items()
    ]


def _metric(evaluation: Evaluation, source: str) -> str:
    names = [metric.name for found in evaluation.scores.sources if found.source == source for metric in found.metrics]
    return "anls" if "anls" in names else "accuracy"


def _lowest_and_others(predictions: Sequence[Prediction], metric: str) -> tuple[list[_Scored], list[_Scored]]:
    """Return the lowest-scored wrong predictions, and some others."""
    scored = sorted((_Scored(_value(p, metric), p) for p in predictions), key=lambda one: one.order)
    lowest = [one for one in scored if one.value is not None and one.value < 1][:MAX_LOWEST]
    taken = {id(one) for one in lowest}
    others = sorted((one for one in scored if id(one) not in taken), key=lambda one: one.order[1])[:MAX_OTHERS]
    return lowest, others


def _value(prediction: Prediction, metric: str) -> float | None:
    if not prediction.accepted:
        return None
    measure = anls if metric == "anls" else exact_match
    return float(measure(prediction.prediction, prediction.accepted))


def _rows(info: RunInfo | None, wanted: set[str]) -> tuple[dict[tuple[str, str], Row], str]:
    """Return rows by source and id if the dataset is unchanged, else the reason why there are none."""
    if info is None:
        return {}, "Prompts and images are not shown, because there is no run.json."
    try:
        dataset = Dataset.open(info.data_dir)
        if dataset.manifest != info.manifest:
            return {}, f"Prompts and images are not shown, because {info.data_dir} contains another dataset now."
        found = {(row.source, row.id): row for _, row in dataset.rows(info.split) if row.id in wanted}
    except ConvkitError as error:
        return {}, f"Prompts and images are not shown: {error}"
    return found, ""


def _sample(
    scored: _Scored,
    before: dict[tuple[str, str, int], str],
    rows: dict[tuple[str, str], Row],
    images: Path,
    budget: ThumbnailBudget,
) -> Sample:
    prediction = scored.prediction
    row = rows.get((prediction.source, prediction.id))
    earlier = before.get(_key(prediction))
    paths = [path for turn in row.conversations[: prediction.turn + 1] for path in turn.images] if row else []
    has_turn = row is not None and prediction.turn < len(row.conversations)
    return Sample(
        id=prediction.id,
        turn=prediction.turn,
        score="-" if scored.value is None else format_number(scored.value),
        right=None if scored.value is None else scored.value == 1,
        prediction=truncate(prediction.prediction),
        before=None if earlier is None else truncate(earlier),
        accepted=[truncate(answer) for answer in prediction.accepted[:5]],
        prompt=truncate(row.conversations[prediction.turn].user) if row and has_turn else None,
        images=[budget.thumbnail(images, path) for path in paths[:MAX_IMAGES]],
        more_images=max(0, len(paths) - MAX_IMAGES),
    )


def truncate(text: str) -> str:
    """Return a text cut to a bounded length."""
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"


def _key(prediction: Prediction) -> tuple[str, str, int]:
    return prediction.source, prediction.id, prediction.turn
