"""The Python API that `import convkit` offers. Each function does what the command of its name does.

Paths are strings or `os.PathLike`. Options have the names of the command line. Nothing is printed, and errors are
`ConvkitError`. `progress=True` shows progress bars on a terminal, and
logs a line to standard error every 30 seconds elsewhere.
"""

from convkit.api.data import ValidationReport, convert, load_dataset, score, split, stats, validate
from convkit.api.training import TrainResult, encode, evaluate, train

__all__ = [
    "TrainResult",
    "ValidationReport",
    "convert",
    "encode",
    "evaluate",
    "load_dataset",
    "score",
    "split",
    "stats",
    "train",
    "validate",
]
