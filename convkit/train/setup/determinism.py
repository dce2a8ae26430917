"""The same bits each time, also on a GPU."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_VARIABLES = {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without it cuBLAS may add up in any order
    "FLASH_ATTENTION_DETERMINISTIC": "1",  # read by transformers
}


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Where it is wanted, allow only operations that give the same bits each time; an operation that cannot raises."""
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    os.environ.update({name: value for name, value in _VARIABLES.items() if name not in os.environ})
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
