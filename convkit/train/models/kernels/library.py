"""Operators of ours that torch compiles around, and does not look into."""

from collections.abc import Callable
from typing import Any

import torch

LIBRARY = torch.library.Library("convkit", "DEF")  # type: ignore[no-untyped-call]


def operator(name: str, kernel: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    """An operator, of what computes it and of what makes outputs of the same shapes.

    Not `torch.library.custom_op`: at each call it looks whether outputs share memory with inputs. A profile showed 0.2
    ms of that on a processor (torch 2.11), for which small packs waited. Unlike it, names are given once a process.
    """
    schema = torch.library.infer_schema(kernel, mutates_args=())
    torch.library.define(f"convkit::{name}", schema, lib=LIBRARY)
    torch.library.impl(f"convkit::{name}", "CompositeExplicitAutograd", kernel, lib=LIBRARY)
    torch.library.register_fake(f"convkit::{name}", fake, lib=LIBRARY)
    return getattr(torch.ops.convkit, name).default
