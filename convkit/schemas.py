"""JSON Schemas (draft 2020-12) of the files that convkit reads and writes, generated from the pydantic models."""

import json
from typing import Any

from pydantic import BaseModel

from convkit.findings import Report
from convkit.metrics.predictions import Prediction
from convkit.metrics.results import Comparison, Scores
from convkit.schema import Manifest, Row
from convkit.stats import Stats

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MODELS: dict[str, type[BaseModel]] = {
    "row.json": Row,
    "manifest.json": Manifest,
    "report.json": Report,
    "stats.json": Stats,
    "prediction.json": Prediction,
    "scores.json": Scores,
    "comparison.json": Comparison,
}
_OUTPUTS = (Report, Stats, Scores, Comparison)
_FIRST = ("$id", "title", "description")


def generate(model: type[BaseModel]) -> str:
    """Return the JSON Schema of a model as text; `$id`, title and description come first."""
    # Output files always contain the keys with defaults, so their schemas require them.
    schema = model.model_json_schema(mode="serialization" if model in _OUTPUTS else "validation")
    ordered: dict[str, Any] = {"$schema": DIALECT, **{key: schema.pop(key) for key in _FIRST}, **schema}
    return json.dumps(ordered, indent=2, ensure_ascii=False) + "\n"
