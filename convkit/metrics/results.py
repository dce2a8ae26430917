"""Result formats of `convkit score`: scores of one predictions file, or the comparison of two."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from convkit.metrics.classes import ClassScore
from convkit.schema import SCHEMA_ID

_STRICT = ConfigDict(extra="forbid", frozen=True)

Low = Annotated[float | None, Field(description="Lower end of the confidence interval; null without an interval.")]
High = Annotated[float | None, Field(description="Upper end of the confidence interval; null without an interval.")]
Reason = Annotated[str | None, Field(description="Why there is no value; null if there is one.")]
Version = Annotated[Literal[1], Field(description="The version of this format.")]
Confidence = Annotated[float, Field(description="Confidence level of the intervals.")]
Resamples = Annotated[int, Field(ge=0, description="Number of bootstrap resamples.")]
Seed = Annotated[int, Field(ge=0, description="Random seed of the bootstrap.")]
Rows = Annotated[int, Field(ge=1)]


class MetricScore(BaseModel):
    """The score of one metric on one dataset."""

    model_config = _STRICT

    name: str
    value: float | None = Field(description="From 0 to 1; null if it cannot be computed, see `reason`.")
    low: Low
    high: High
    count: int = Field(ge=0, description="Items averaged over: turns, or statements for consistency.")
    reason: Reason


class TurnAddress(BaseModel):
    """The row id and index of a turn."""

    model_config = _STRICT

    id: str
    turn: int = Field(ge=0)


class SourceScores(BaseModel):
    """The scores of one dataset (`source`)."""

    model_config = _STRICT

    source: str
    rows: Rows
    turns: int = Field(ge=1, description="Predicted turns, with or without a gold answer.")
    unlabelled: list[TurnAddress] = Field(description="Turns without a gold answer, which no metric counts.")
    incomplete: list[str] = Field(description="Ids of rows with a missing turn before their last one.")
    metrics: list[MetricScore]
    classes: list[ClassScore] | None = Field(description="Null unless the metric `classes` is computed.")


class Scores(BaseModel):
    """The result of `convkit score --format json`."""

    model_config = ConfigDict(**_STRICT, title="convkit scores", json_schema_extra={"$id": f"{SCHEMA_ID}:scores"})

    scores_version: Version = 1
    confidence: Confidence
    resamples: Resamples
    seed: Seed
    complete: bool = Field(description="Whether every turn was scored by every metric requested with --metrics.")
    sources: list[SourceScores]


class ScoredItem(BaseModel):
    """An item with a score of its own: a turn, or a statement for consistency."""

    model_config = _STRICT

    id: str = Field(description="The row's id; for consistency, the statement's sentence_id.")
    turn: int | None = Field(ge=0, description="The turn of the row; null for a statement.")


class MetricDifference(BaseModel):
    """One metric of one dataset, compared between two predictions files."""

    model_config = _STRICT

    name: str
    baseline: float | None = Field(description="Value of the baseline; null if it cannot be computed.")
    value: float | None = Field(description="Value of the predictions; null if it cannot be computed.")
    difference: float | None = Field(description="value - baseline.")
    low: Low
    high: High
    test: Literal["sign", "bootstrap"] | None = Field(
        description="Test behind p_value: the exact sign test if items are right or wrong, else the paired bootstrap."
    )
    p_value: float | None = Field(
        description="Probability of a difference at least this large if both models are equally good; null if it "
        "cannot be computed."
    )
    count: int = Field(ge=0, description="Items compared: turns, or statements for consistency.")
    won: list[ScoredItem] | None = Field(description="Items that the predictions score higher on; null for auroc.")
    lost: list[ScoredItem] | None = Field(description="Items that the predictions score lower on; null for auroc.")
    reason: Reason


class SourceComparison(BaseModel):
    """The comparison on one dataset (`source`)."""

    model_config = _STRICT

    source: str
    rows: Rows
    turns: int = Field(ge=1, description="Turns predicted in both files, with or without a gold answer.")
    unlabelled: int = Field(ge=0, description="Turns without a gold answer, which no metric counts.")
    metrics: list[MetricDifference]


class Comparison(BaseModel):
    """The result of `convkit score --compare --format json`."""

    model_config = ConfigDict(
        **_STRICT, title="convkit comparison", json_schema_extra={"$id": f"{SCHEMA_ID}:comparison"}
    )

    comparison_version: Version = 1
    confidence: Confidence
    resamples: Resamples
    seed: Seed
    complete: bool = Field(description="Whether every turn was compared by every metric requested with --metrics.")
    sources: list[SourceComparison]
