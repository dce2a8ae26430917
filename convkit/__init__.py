"""Convert, validate and train on datasets for vision-language models.

The functions and types listed in `__all__` are the public API. They are imported when they are first used, so that
`import convkit` is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from convkit.api import TrainResult as TrainResult
    from convkit.api import ValidationReport as ValidationReport
    from convkit.api import convert as convert
    from convkit.api import encode as encode
    from convkit.api import evaluate as evaluate
    from convkit.api import load_dataset as load_dataset
    from convkit.api import score as score
    from convkit.api import split as split
    from convkit.api import stats as stats
    from convkit.api import train as train
    from convkit.api import validate as validate
    from convkit.convert.writer import DatasetWriter as DatasetWriter
    from convkit.converters.base import Converter as Converter
    from convkit.dataset import Dataset as Dataset
    from convkit.errors import ConvkitError as ConvkitError
    from convkit.errors import DatasetError as DatasetError
    from convkit.errors import ItemError as ItemError
    from convkit.errors import MissingExtra as MissingExtra
    from convkit.errors import SourceError as SourceError
    from convkit.findings import Finding as Finding
    from convkit.findings import Severity as Severity
    from convkit.rules.base import Rule as Rule
    from convkit.schema import Manifest as Manifest
    from convkit.schema import Row as Row
    from convkit.schema import Turn as Turn

_PACKAGES = ("convert", "split", "stats", "train", "validate")
"""Public functions that are packages or modules as well, see `convkit.utils.callable_module`."""
_HOMES = {
    "convkit.api": ("TrainResult", "ValidationReport", "encode", "evaluate", "load_dataset", "score"),
    "convkit.convert.writer": ("DatasetWriter",),
    "convkit.converters.base": ("Converter",),
    "convkit.dataset": ("Dataset",),
    "convkit.errors": ("ConvkitError", "DatasetError", "ItemError", "MissingExtra", "SourceError"),
    "convkit.findings": ("Finding", "Severity"),
    "convkit.rules.base": ("Rule",),
    "convkit.schema": ("Manifest", "Row", "Turn"),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}
__all__ = ["__version__", *sorted([*_PACKAGES, *_MODULES])]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f"convkit.{name}")
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'convkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
