"""The JSON Schemas in schemas/, generated from the models: `python -m convkit.schemas`, or with --check to compare."""

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from convkit.findings import Report
from convkit.metrics.predictions import Prediction
from convkit.metrics.results import Comparison, Scores
from convkit.schema import Manifest, Row
from convkit.stats import Stats
from convkit.utils import generated

DIRECTORY = Path(__file__).parent.parent / "schemas"
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
    """The text of a model's schema file; what says what it is comes first, then the models' own order."""
    # What we write always has its defaults, so an output's are required. Rows and manifests are read, too.
    schema = model.model_json_schema(mode="serialization" if model in _OUTPUTS else "validation")
    ordered: dict[str, Any] = {"$schema": DIALECT, **{key: schema.pop(key) for key in _FIRST}, **schema}
    return json.dumps(ordered, indent=2, ensure_ascii=False) + "\n"


def files(directory: Path = DIRECTORY) -> dict[Path, str]:
    """The schema files and their texts."""
    return {directory / name: generate(model) for name, model in MODELS.items()}


if __name__ == "__main__":
    sys.exit(generated.run("convkit.schemas", sys.argv[1:], files(), []))
