"""Rows and images that the tests of transformers' model families share."""

from typing import Any

import torch

from convkit.schema import Row
from convkit.train.models.hf.family import HuggingFaceFamily
from convkit.train.models.tokenize import IGNORE_INDEX

SIZES = {"a.png": (64, 64), "b.png": (90, 40), "c.png": (30, 70)}
TURNS: tuple[dict[str, Any], ...] = (
    {"images": ["a.png", "b.png"], "user": "Is it true?", "assistant": "True."},
    {"images": [], "user": "Why?", "assistant": "A cup, and a logo."},
    {"images": ["c.png"], "user": "What is <image> then?", "assistant": "It is a logo."},
)


def make_row(*turns: dict[str, Any], **keys: Any) -> Row:
    """Return a row; turns without images or answer get none and "Yes."."""
    filled = [{"images": [], "assistant": "Yes.", **turn} for turn in turns]
    return Row.model_validate({"id": "r1", "source": "s", "conversations": filled, **keys})


def supported_turns(family: HuggingFaceFamily, last: int = 3) -> tuple[dict[str, Any], ...]:
    """Return as many turns as one row of the family may have, up to the given one."""
    return TURNS[last - 1 : last] if family.spec.single_turn else TURNS[:last]


def supervised_text(family: HuggingFaceFamily, labels: torch.Tensor) -> str:
    """Decode the labelled tokens of a row."""
    return str(family.processor.tokenizer.decode(labels[labels != IGNORE_INDEX]))


def ends_only_the_last_answer(family: HuggingFaceFamily) -> bool:
    """Return whether the template ends no answer with a control token, as LLaVA-1.5's does."""
    return family.spec.processor.endswith(":LlavaProcessor")


def prompt_differs_from_history(family: HuggingFaceFamily) -> bool:
    """Return whether the template writes a space after an answer's role in the history only, as LLaVA-OneVision's."""
    return "<|im_start|>{{ message['role'] }} " in (family._row_tokenizer._template or "")
