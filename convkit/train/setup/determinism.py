"""Bitwise reproducible training, including on a GPU (`--deterministic`)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_VARIABLES = {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without it cuBLAS may sum in any order
    "FLASH_ATTENTION_DETERMINISTIC": "1",  # read by transformers
}


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Allow only deterministic operations if wanted; an operation without a deterministic version raises."""
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
