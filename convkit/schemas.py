"""The JSON Schemas in schemas/, generated from the models: `python -m convkit.schemas`, or with --check to compare."""

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from convkit.findings import Report
from convkit.schema import Conversation, Manifest
from convkit.stats import Stats

DIRECTORY = Path(__file__).parent.parent / "schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
MODELS: dict[str, type[BaseModel]] = {
    "row.json": Conversation,
    "manifest.json": Manifest,
    "report.json": Report,
    "stats.json": Stats,
}
_OUTPUTS = (Report, Stats)
_FIRST = ("$id", "title", "description")


def generate(model: type[BaseModel]) -> str:
    """The text of a model's schema file; what says what it is comes first, then the models' own order."""
    # What we write always has its defaults, so an output's are required. Rows and manifests are read, too.
    schema = model.model_json_schema(mode="serialization" if model in _OUTPUTS else "validation")
    ordered: dict[str, Any] = {"$schema": DIALECT, **{key: schema.pop(key) for key in _FIRST}, **schema}
    return json.dumps(ordered, indent=2, ensure_ascii=False) + "\n"


def stale(directory: Path = DIRECTORY) -> list[Path]:
    """The schema files that are not what the models say."""
    paths = {directory / name: generate(model) for name, model in MODELS.items()}
    return [path for path, text in paths.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]


def write(directory: Path = DIRECTORY) -> None:
    """Write all schema files."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, model in MODELS.items():
        (directory / name).write_text(generate(model), encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Write the files, or with --check say which are stale; exit code 1 if any is."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m convkit.schemas [--check]", file=sys.stderr)
        return 2
    if not arguments:
        write()
        return 0
    for path in (paths := stale()):
        print(f"{path} is stale. Run: python -m convkit.schemas", file=sys.stderr)
    return 1 if paths else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
