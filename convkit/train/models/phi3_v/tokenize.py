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

_SPACE = re.compile(r"^[^\S\x1c-\x1f]+")  # what tokenizers take for white space


@dataclass(frozen=True)
class _Piece:
    """Text, or a control token (`control`), or an image (`image`), in order of appearance."""

    text: str = ""
    control: str | None = None
    image: bool = False
    trained: bool = False
    answer: bool = False
    """It follows upon a prompt for generation, and is encoded by itself as what is generated is."""


@dataclass
class _Sequence:
    """Tokens so far, and the text since the last control token or image, which is encoded as one."""

    input_ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    section: str = ""
    trained: list[bool] = field(default_factory=list)
    """Of each character of the section."""
    strips: bool = False
    """The control token before the section swallows white space."""

    def add(self, token: int, trained: bool, times: int = 1) -> None:
        self.input_ids += [token] * times
        self.labels += [token if trained else IGNORE_INDEX] * times


class Phi3VRowTokenizer:
    """Encodes rows for one tokenizer of the Llama kind.

    Args:
        tokenizer: a fast tokenizer with a chat template.
        image_token_id: the placeholder.
        roles: control tokens that begin a message; an answer's end tokens reach to the next of them.
    """

    def __init__(self, tokenizer: Any, image_token_id: int, roles: frozenset[str]) -> None:
        if not tokenizer.chat_template:
            raise ConvkitError(
                "The tokenizer has no chat template, so that nobody can say how a conversation is written for this "
                "model. Take the tokenizer_config.json of the instruction-tuned checkpoint."
            )
        self._tokenizer = tokenizer
        self._image_token_id = image_token_id
        self._roles = roles
        self._controls: dict[str, Any] = {str(token): token for token in tokenizer.added_tokens_decoder.values()}
        alternatives = "|".join(re.escape(name) for name in sorted(self._controls, key=len, reverse=True))
        self._control_pattern = re.compile(f"({alternatives})")
        self._plain = without_control_tokens(tokenizer)

    def encode(self, row: Row, image_tokens: Sequence[int], max_length: int | None = None) -> TokenizedRow:
        """Encode a row for training.

        Args:
            image_tokens: what each image takes, over all turns in order.
            max_length: longer rows are refused.

        Raises:
            RowTooLong: the row has more than `max_length` tokens.
            RowError: an answer is missing or empty, or markers, images and image_tokens do not match.
        """
        check_answers(row)
        return self._encode(row, image_tokens, max_length, answered=True)

    def encode_prompt(self, row: Row, image_tokens: Sequence[int], max_length: int | None = None) -> TokenizedRow:
        """Encode what stands before a row's last answer, ready for generation; see `encode`. No label is set."""
        return self._encode(row, image_tokens, max_length, answered=False)

    def _encode(self, row: Row, image_tokens: Sequence[int], max_length: int | None, answered: bool) -> TokenizedRow:
        images = sum(len(turn.images) for turn in row.conversations)
        if images != len(image_tokens):
            raise RowError(row.id, f"names {images} images, but {len(image_tokens)} were given", "Pass one for each.")
        counts = iter(image_tokens)
        sequence = _Sequence()
        sequence.add(self._tokenizer.bos_token_id, trained=False)
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
            sequence.add(self._tokenizer.convert_tokens_to_ids(piece.control), piece.trained)
            sequence.strips = self._controls[piece.control].rstrip
        else:
            if piece.answer:
                self._flush(sequence)
            sequence.section += piece.text
            sequence.trained += [piece.trained] * len(piece.text)

    def _flush(self, sequence: _Sequence) -> None:
        text, trained = sequence.section, sequence.trained
        if sequence.strips:
            text = _SPACE.sub("", text)
            trained = trained[len(trained) - len(text) :]
        if text:
            encoding = self._plain.encode(text, add_special_tokens=False)
            for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
                sequence.add(token, trained[max(start, end - 1)])
        sequence.section, sequence.trained, sequence.strips = "", [], False

    def _pieces(self, row: Row, answered: bool) -> Iterator[_Piece]:
        """The conversation as the template writes it, with the row's texts in their places."""
        contents: list[tuple[str, list[_Piece]]] = [("system", [_Piece(row.system)])] if row.system is not None else []
        for turn in row.conversations:
            contents.append(("user", list(_user_pieces(row.id, turn))))
            contents.append(("assistant", [_Piece(turn.assistant or "", trained=True, answer=True)]))
        if not answered:
            contents.pop()
        messages = [{"role": role, "content": SENTINEL.format(i)} for i, (role, _) in enumerate(contents)]
        rendered = render_template(self._tokenizer, messages, prompt=not answered)
        parts = SENTINEL_PATTERN.split(rendered)
        if [int(index) for index in parts[1::2]] != list(range(len(contents))):
            raise ConvkitError(
                "The tokenizer's chat template leaves out or repeats a message; this model needs one that writes each "
                "system, user and assistant message once, in order."
            )
        trained = False
        for index, part in enumerate(parts):
            if index % 2:
                role, pieces = contents[int(part)]
                trained = role == "assistant"
                yield from pieces
                continue
            for text in filter(None, self._control_pattern.split(part)):
                trained = trained and text not in self._roles
                control = text if text in self._controls else None
                yield _Piece("" if control else text, control, trained=trained)
        if answered:
            yield _Piece(control=self._tokenizer.eos_token, trained=True)


def _user_pieces(row_id: str, turn: Turn) -> Iterator[_Piece]:
    """Images where the markers stand, else before the text, with a line end between."""
    texts = split_at_markers(row_id, turn)
    if len(texts) == 1:
        yield from [_Piece(image=True)] * len(turn.images)
        yield _Piece("\n" + turn.user if turn.images else turn.user)
        return
    for index, text in enumerate(texts):
        if index:
            yield _Piece(image=True)
        yield _Piece(text)
