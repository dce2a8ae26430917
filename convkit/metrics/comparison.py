"""The result of `convkit score --compare`, as data."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from convkit.schema import SCHEMA_ID

_STRICT = ConfigDict(extra="forbid", frozen=True)


class Item(BaseModel):
    """What has a score of its own."""

    model_config = _STRICT

    id: str = Field(description="The row's id; of a statement, for consistency, its sentence_id.")
    turn: int | None = Field(ge=0, description="The turn of the row; null for a statement.")


class Difference(BaseModel):
    """One metric of one data set, of both files."""

    model_config = _STRICT

    name: str
    baseline: float | None = Field(description="The value of the baseline; null where it cannot be told.")
    value: float | None = Field(description="The value of the predictions; null where it cannot be told.")
    difference: float | None = Field(description="value - baseline.")
    low: float | None = Field(
        description="Lower end of the difference's confidence interval; null where there is none."
    )
    high: float | None = Field(
        description="Upper end of the difference's confidence interval; null where there is none."
    )
    test: Literal["sign", "bootstrap"] | None = Field(
        description="What p_value is of: the exact sign test where items are right or wrong, else the paired bootstrap."
    )
    p_value: float | None = Field(
        description="How probable so large a difference were if there was none; null where it cannot be told."
    )
    count: int = Field(ge=0, description="Items compared: turns, or statements for consistency.")
    won: list[Item] | None = Field(description="Items that the predictions score higher on; null for auroc.")
    lost: list[Item] | None = Field(description="Items that the predictions score lower on; null for auroc.")
    reason: str | None = Field(description="Why there is no value; null where there is one.")


class SourceComparison(BaseModel):
    """One data set."""

    model_config = _STRICT

    source: str
    rows: int = Field(ge=1)
    turns: int = Field(ge=1, description="Turns predicted in both files, labelled or not.")
    unlabelled: int = Field(ge=0, description="Turns without a gold answer, which no metric counts.")
    metrics: list[Difference]


class Comparison(BaseModel):
    """The result of `convkit score --compare --format json`."""

    model_config = ConfigDict(
        **_STRICT, title="convkit comparison", json_schema_extra={"$id": f"{SCHEMA_ID}:comparison"}
    )

    comparison_version: Literal[1] = Field(default=1, description="The version of this format.")
    confidence: float = Field(description="Of the intervals.")
    resamples: int = Field(ge=0, description="Of the bootstrap.")
    seed: int = Field(ge=0, description="Of the bootstrap.")
    complete: bool = Field(description="Whether every turn was compared by every metric that was asked for by name.")
    sources: list[SourceComparison]
