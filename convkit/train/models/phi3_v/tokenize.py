"""Tokenize rows for Phi-3-vision."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from convkit.errors import ConvkitError
from convkit.schema import Row, Turn
from convkit.train.models.tokenize import (
    IGNORE_INDEX,
    SENTINEL,
    SENTINEL_PATTERN,
    RowError,
    TokenizedRow,
    check_answers,
    check_length,
    render_template,
    split_at_markers,
    without_control_tokens,
)

_SPACE = re.compile(r"^[^\S\x1c-\x1f]+")  # white space as tokenizers define it


@dataclass(frozen=True)
class _Piece:
    """A piece of the conversation: text, a control token (`control`), or an image (`image`)."""

    text: str = ""
    control: str | None = None
    image: bool = False
    supervised: bool = False
    answer: bool = False
    """The text follows a generation prompt, and is encoded separately, as generated text is."""


@dataclass
class _Sequence:
    """The tokens so far, and the text since the last control token or image, which is encoded in one piece."""

    input_ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    section: str = ""
    supervised: list[bool] = field(default_factory=list)
    """For each character of the section."""
    strips: bool = False
    """The control token before the section strips white space after it."""

    def add(self, token: int, supervised: bool, times: int = 1) -> None:
        self.input_ids += [token] * times
        self.labels += [token if supervised else IGNORE_INDEX] * times


class Phi3VRowTokenizer:
    """Tokenize rows with a Llama-style tokenizer.

    Args:
        tokenizer: a fast tokenizer with a chat template.
        image_token_id: the placeholder for each image token.
        roles: the control tokens that begin a message; all tokens from an answer up to the next role are supervised.

    Raises:
        ConvkitError: the tokenizer has no chat template.
    """

    def __init__(self, tokenizer: Any, image_token_id: int, roles: frozenset[str]) -> None:
        if not tokenizer.chat_template:
            raise ConvkitError(
                "The tokenizer has no chat template, so convkit cannot format conversations for this model. Take "
                "tokenizer_config.json from the instruction-tuned checkpoint."
            )
        self._tokenizer = tokenizer
        self._image_token_id = image_token_id
        self._roles = roles
        self._controls: dict[str, Any] = {str(token): token for token in tokenizer.added_tokens_decoder.values()}
        alternatives = "|".join(re.escape(name) for name in sorted(self._controls, key=len, reverse=True))
        self._control_pattern = re.compile(f"({alternatives})")
        self._plain = without_control_tokens(tokenizer)

    def encode(self, row: Row, image_tokens: Sequence[int], max_length: int | None = None) -> TokenizedRow:
        """Tokenize a row for training.

        Args:
            row: a row with all its answers.
            image_tokens: the number of tokens of each image, over all turns in order.
            max_length: the maximum number of tokens.

        Raises:
            RowTooLong: the row has more than `max_length` tokens.
            RowError: an answer is missing or empty, or markers, images and image_tokens do not match.
        """
        check_answers(row)
        return self._encode(row, image_tokens, max_length, answered=True)

    def encode_prompt(self, row: Row, image_tokens: Sequence[int], max_length: int | None = None) -> TokenizedRow:
        """Tokenize the prompt of a row's last answer, without labels; see `encode`."""
        return self._encode(row, image_tokens, max_length, answered=False)

    def _encode(self, row: Row, image_tokens: Sequence[int], max_length: int | None, answered: bool) -> TokenizedRow:
        images = sum(len(turn.images) for turn in row.conversations)
        if images != len(image_tokens):
            raise RowError(
                row.id, f"has {images} images, but {len(image_tokens)} token counts were given", "Pass one per image."
            )
        counts = iter(image_tokens)
        sequence = _Sequence()
        sequence.add(self._tokenizer.bos_token_id, supervised=False)
        for piece in self._pieces(row, answered):
            self._append(sequence, piece, counts)
        self._flush(sequence)
        labels = sequence.labels if answered else [IGNORE_INDEX] * len(sequence.labels)
        check_length(row, len(labels), max_length)
        return TokenizedRow(sequence.input_ids, labels)

    def _append(self, sequence: _Sequence, piece: _Piece, counts: Iterator[int]) -> None:
        if piece.image:
            self._flush(sequence)
            sequence.add(self._image_token_id, False, next(counts))
            sequence.add(self._tokenizer.bos_token_id, False)
        elif piece.control is not None:
            self._flush(sequence)
            sequence.add(self._tokenizer.convert_tokens_to_ids(piece.control), piece.supervised)
            sequence.strips = self._controls[piece.control].rstrip
        else:
            if piece.answer:
                self._flush(sequence)
            sequence.section += piece.text
            sequence.supervised += [piece.supervised] * len(piece.text)

    def _flush(self, sequence: _Sequence) -> None:
        text, supervised = sequence.section, sequence.supervised
        if sequence.strips:
            text = _SPACE.sub("", text)
            supervised = supervised[len(supervised) - len(text) :]
        if text:
            encoding = self._plain.encode(text, add_special_tokens=False)
            for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
                sequence.add(token, supervised[max(start, end - 1)])
        sequence.section, sequence.supervised, sequence.strips = "", [], False

    def _pieces(self, row: Row, answered: bool) -> Iterator[_Piece]:
        """Yield the conversation as rendered by the template, with the row's texts in place of the sentinels."""
        contents: list[tuple[str, list[_Piece]]] = [("system", [_Piece(row.system)])] if row.system is not None else []
        for turn in row.conversations:
            contents.append(("user", list(_user_pieces(row.id, turn))))
            contents.append(("assistant", [_Piece(turn.assistant or "", supervised=True, answer=True)]))
        if not answered:
            contents.pop()
        messages = [{"role": role, "content": SENTINEL.format(i)} for i, (role, _) in enumerate(contents)]
        rendered = render_template(self._tokenizer, messages, prompt=not answered)
        parts = SENTINEL_PATTERN.split(rendered)
        if [int(index) for index in parts[1::2]] != list(range(len(contents))):
            raise ConvkitError(
                "The tokenizer's chat template leaves out or repeats a message. This model needs a template that "
                "renders each system, user and assistant message once, in order."
            )
        supervised = False
        for index, part in enumerate(parts):
            if index % 2:
                role, pieces = contents[int(part)]
                supervised = role == "assistant"
                yield from pieces
                continue
            for text in filter(None, self._control_pattern.split(part)):
                supervised = supervised and text not in self._roles
                control = text if text in self._controls else None
                yield _Piece("" if control else text, control, supervised=supervised)
        if answered:
            yield _Piece(control=self._tokenizer.eos_token, supervised=True)


def _user_pieces(row_id: str, turn: Turn) -> Iterator[_Piece]:
    """Yield images at their markers; without markers, before the text and a line break."""
    texts = split_at_markers(row_id, turn)
    if len(texts) == 1:
        yield from [_Piece(image=True)] * len(turn.images)
        yield _Piece("\n" + turn.user if turn.images else turn.user)
        return
    for index, text in enumerate(texts):
        if index:
            yield _Piece(image=True)
        yield _Piece(text)
