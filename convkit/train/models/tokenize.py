"""Tokenize rows through a chat template: what the tokenizers of all model families share.

The template is rendered with sentinels in place of the row's texts, so the template alone places the control tokens.
The texts themselves are encoded without control tokens: `<|end|>` in a user's text stays plain text.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from convkit.errors import ConvkitError
from convkit.schema import IMAGE_MARKER, Row, Turn

IGNORE_INDEX = -100
"""The label of tokens without loss."""
SENTINEL = "\ue000{}\ue001"
SENTINEL_PATTERN = re.compile("\ue000(\\d+)\ue001")


class RowError(ConvkitError):
    """A row cannot become model input."""

    def __init__(self, row_id: str, problem: str, remedy: str) -> None:
        super().__init__(f"Row {row_id!r} {problem}. {remedy}")
        self.row_id = row_id


class RowTooLong(RowError):
    """A row has more tokens than allowed; rows are never truncated."""


@dataclass(frozen=True)
class TokenizedRow:
    """The token ids and labels of a row."""

    input_ids: list[int]
    """Token ids; an image is its placeholder repeated once per image token."""
    labels: list[int]
    """Labels of the same length, unshifted: the token id if it is supervised, else -100."""


def render_template(tokenizer: Any, messages: Sequence[Any], prompt: bool, template: str | None = None) -> str:
    """Render messages through a chat template; through the tokenizer's own by default.

    Raises:
        ConvkitError: the template rejects the messages, or fails.
    """
    try:
        rendered: str = tokenizer.apply_chat_template(
            list(messages), chat_template=template, tokenize=False, add_generation_prompt=prompt
        )
    except Exception as error:  # templates raise errors of any type
        message = " ".join(str(error).split()) or type(error).__name__
        raise ConvkitError(
            f"The chat template cannot render this conversation: {message}. Leave out such rows, or use a template "
            "that supports them."
        ) from None
    return rendered


def check_answers(row: Row) -> None:
    """Raise RowError for a turn without an answer."""
    for index, turn in enumerate(row.conversations):
        if not (turn.assistant or "").strip():
            raise RowError(
                row.id, f"has an empty answer in turn {index}", "Leave the row out, or convert it with its answer."
            )


def check_length(row: Row, tokens: int, max_length: int | None) -> None:
    """Raise RowTooLong for a row that exceeds the maximum; rows are never truncated."""
    if max_length is not None and tokens > max_length:
        raise RowTooLong(
            row.id,
            f"has {tokens:,} tokens, more than {max_length:,}",
            "Raise --max_tokens, lower --num_crops if the model has it, or leave the row out.",
        )


def split_at_markers(row_id: str, turn: Turn) -> list[str]:
    """Split the user's text at its image markers.

    Raises:
        RowError: the number of markers is neither zero nor the number of images.
    """
    texts = turn.user.split(IMAGE_MARKER)
    markers = len(texts) - 1
    if markers and markers != len(turn.images):
        raise RowError(
            row_id,
            f"has {markers} {IMAGE_MARKER} markers for {len(turn.images)} images in a turn",
            "Write one marker for each image, or none.",
        )
    return texts


def without_control_tokens(tokenizer: Any) -> Tokenizer:
    """Copy a tokenizer such that its control tokens are plain text."""
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    description["added_tokens"] = []
    description["post_processor"] = None
    return Tokenizer.from_str(json.dumps(description))
