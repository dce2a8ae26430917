"""A row to token ids and labels: the whole conversation once, through the tokenizer's chat template.

The template is rendered with stand-ins for the row's texts, so that it alone decides where control tokens stand.
Whatever the row says is then encoded without any knowledge of control tokens: `<|end|>` in a user's text is six
letters and some signs, never an end.
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
"""The label of what is not trained on."""
SENTINEL = "\ue000{}\ue001"
SENTINEL_PATTERN = re.compile("\ue000(\\d+)\ue001")


class RowError(ConvkitError):
    """A row cannot become model input."""

    def __init__(self, row_id: str, problem: str, remedy: str) -> None:
        super().__init__(f"Row {row_id!r} {problem}. {remedy}")
        self.row_id = row_id


class RowTooLong(RowError):
    """A row has more tokens than allowed; nothing is ever cut."""


@dataclass(frozen=True)
class TokenizedRow:
    """A row as the model reads it."""

    input_ids: list[int]
    """With the placeholder once for every token of an image."""
    labels: list[int]
    """Of the same length, unshifted: the token where it is learnt, else -100."""


def render_template(tokenizer: Any, messages: Sequence[Any], prompt: bool, template: str | None = None) -> str:
    """Messages as a chat template writes them; the tokenizer's own if none is given.

    Raises:
        ConvkitError: the template refuses them, or fails.
    """
    try:
        rendered: str = tokenizer.apply_chat_template(
            list(messages), chat_template=template, tokenize=False, add_generation_prompt=prompt
        )
    except Exception as error:  # a template refuses in whatever words it has
        said = " ".join(str(error).split()) or type(error).__name__
        raise ConvkitError(
            f"The chat template does not write such a conversation: {said}. Leave out rows of this kind, or take a "
            "template that does."
        ) from None
    return rendered


def check_answers(row: Row) -> None:
    """Raises RowError where there is nothing to learn from a turn."""
    for index, turn in enumerate(row.conversations):
        if not (turn.assistant or "").strip():
            raise RowError(
                row.id, f"has an empty answer in turn {index}", "Leave the row out, or convert it with its answer."
            )


def check_length(row: Row, tokens: int, max_length: int | None) -> None:
    """Raises RowTooLong; nothing is ever cut."""
    if max_length is not None and tokens > max_length:
        raise RowTooLong(
            row.id,
            f"has {tokens:,} tokens, more than {max_length:,}",
            "Raise --max_tokens, lower --num_crops where the model has it, or leave the row out.",
        )


def split_at_markers(row_id: str, turn: Turn) -> list[str]:
    """The user's text between its image markers: one piece more than there are; raises RowError."""
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
    """The same tokenizer, to which control tokens are plain text."""
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    description["added_tokens"] = []
    description["post_processor"] = None
    return Tokenizer.from_str(json.dumps(description))
