"""The result of `convkit score`, as data."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from convkit.metrics.classes import ClassScore
from convkit.schema import SCHEMA_ID

_STRICT = ConfigDict(extra="forbid", frozen=True)


class Measure(BaseModel):
    """One metric of one data set."""

    model_config = _STRICT

    name: str
    value: float | None = Field(description="From 0 to 1; null where it cannot be told, which `reason` explains.")
    low: float | None = Field(description="Lower end of the confidence interval; null where there is none.")
    high: float | None = Field(description="Upper end of the confidence interval; null where there is none.")
    count: int = Field(ge=0, description="What the metric is an average over: turns, or statements for consistency.")
    reason: str | None = Field(description="Why there is no value; null where there is one.")


class Turn(BaseModel):
    """The address of a turn."""

    model_config = _STRICT

    id: str
    turn: int = Field(ge=0)


class SourceScores(BaseModel):
    """The scores of one data set."""

    model_config = _STRICT

    source: str
    rows: int = Field(ge=1)
    turns: int = Field(ge=1, description="Turns predicted: the labelled ones, which are scored, and the others.")
    unlabelled: list[Turn] = Field(description="Turns without a gold answer, which no metric counts.")
    incomplete: list[str] = Field(description="Ids of rows of which an earlier turn than the last one is not there.")
    metrics: list[Measure]
    classes: list[ClassScore] | None = Field(description="Null unless the metric `classes` is computed.")


class Scores(BaseModel):
    """The result of `convkit score --format json`."""

    model_config = ConfigDict(**_STRICT, title="convkit scores", json_schema_extra={"$id": f"{SCHEMA_ID}:scores"})

    scores_version: Literal[1] = Field(default=1, description="The version of this format.")
    confidence: float = Field(description="Of the intervals.")
    resamples: int = Field(ge=0, description="Of the bootstrap.")
    seed: int = Field(ge=0, description="Of the bootstrap.")
    complete: bool = Field(description="Whether every turn was scored by every metric that was asked for by name.")
    sources: list[SourceScores]
