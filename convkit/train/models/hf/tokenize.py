"""Tokenize rows with any chat template, given each image's text from the processor.

The template is rendered with sentinels in place of the row's texts, so the template alone places the control tokens.
The prompt of an answer is encoded exactly as for generation, and the answer is appended to it.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from convkit.errors import ConvkitError
from convkit.schema import IMAGE_MARKER, Row
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

_BOUNDARY = "\ue002"
"""A prefix for text that is encoded separately although a control token precedes it in the whole text."""
_WHITE = " \t\r\n\u2581"


@dataclass(frozen=True)
class _Piece:
    """Text of the template, or of the row (`data`), where control tokens are plain text."""

    text: str
    data: bool = False
    supervised: bool = False


@dataclass(frozen=True)
class _Token:
    id: int
    supervised: bool


class ChatTemplateTokenizer:
    """Tokenize rows with one tokenizer and chat template.

    Args:
        tokenizer: a fast tokenizer.
        template: the chat template, in Jinja.
        image_token: the text that the template writes for an image.

    Raises:
        ConvkitError: there is no template, or nothing ends an answer.
    """

    def __init__(self, tokenizer: Any, template: str | None, image_token: str) -> None:
        if not template:
            raise ConvkitError(
                "The checkpoint has no chat template, so convkit cannot format conversations for this model. Take the "
                "files of the instruction-tuned checkpoint."
            )
        self._tokenizer, self._template, self._image_token = tokenizer, template, image_token
        added = tokenizer.added_tokens_decoder
        # Added white space tokens are vocabulary; all other added tokens are control tokens.
        self._controls = {str(token): (id, token) for id, token in added.items() if str(token).strip(_WHITE)}
        alternatives = "|".join(re.escape(name) for name in sorted(self._controls, key=len, reverse=True))
        # Matches repetitions together, because an image repeats its token hundreds of times.
        self._control_pattern = re.compile(rf"({alternatives})(\1*)")
        self._plain = without_control_tokens(tokenizer)
        self._plain.add_tokens([token for token in added.values() if str(token) not in self._controls])
        self._plain.add_special_tokens([_BOUNDARY])
        self._bos = self._added_bos()
        self._answer_prefix, self.end = self._answer_prefix_and_end()

    def encode(self, row: Row, images: Sequence[str], max_length: int | None = None) -> TokenizedRow:
        """Tokenize a row for training.

        Args:
            row: a row with all its answers.
            images: the processor's text for each image, over all turns in order.
            max_length: the maximum number of tokens.

        Raises:
            RowTooLong: the row has more than `max_length` tokens.
            RowError: an answer is missing or empty, or markers, images and `images` do not match.
        """
        check_answers(row)
        tokens = self._tokens([*self._prompt(row, images), *self._answer(row)])
        check_length(row, len(tokens), max_length)
        return TokenizedRow(
            [token.id for token in tokens],
            [token.id if token.supervised else IGNORE_INDEX for token in tokens],
        )

    def encode_prompt(self, row: Row, images: Sequence[str], max_length: int | None = None) -> TokenizedRow:
        """Tokenize the prompt of a row's last answer, without labels; see `encode`."""
        ids = [token.id for token in self._tokens(self._prompt(row, images))]
        check_length(row, len(ids), max_length)
        return TokenizedRow(ids, [IGNORE_INDEX] * len(ids))

    def count(self, text: str) -> int:
        """Return the number of tokens of a text, control tokens included."""
        return len(self._tokenizer(text, add_special_tokens=False).input_ids)

    def _prompt(self, row: Row, images: Sequence[str]) -> list[_Piece]:
        """Return the pieces before the last answer, which end like a generation prompt."""
        expected = sum(len(turn.images) for turn in row.conversations)
        if expected != len(images):
            raise RowError(row.id, f"has {expected} images, but {len(images)} were given", "Pass one per image.")
        messages, texts = self._messages(row, in_text=False)
        rendered = self._render(messages[:-1], prompt=True)
        marked = any(turn.images and IMAGE_MARKER in turn.user for turn in row.conversations)
        if marked and self._order(rendered) != self._expected_order(messages[:-1]):
            # The template moves images to a fixed position: write them into the text, where the row's markers are.
            messages, texts = self._messages(row, in_text=True)
            rendered = self._render(messages[:-1], prompt=True)
        found = self._order(rendered)
        if found.count(self._image_token) != len(images) or [
            int(index) for index in SENTINEL_PATTERN.findall("".join(found))
        ] != list(range(len(texts) - 1)):
            raise ConvkitError(
                "The chat template leaves out or repeats a message or an image. This model needs a template that "
                "renders each system, user and assistant message once, in order."
            )
        return list(self._pieces(rendered, texts, iter(images)))

    def _answer(self, row: Row) -> list[_Piece]:
        """Return the pieces after the prompt: the last answer, its end token, and any template text after it."""
        messages, texts = self._messages(row, in_text=True)
        sentinel = SENTINEL.format(len(texts) - 1)
        _, found, after = self._render(messages, prompt=False).rpartition(sentinel)
        if not found:
            raise ConvkitError(
                "The chat template leaves out the last answer. Take the template of the official checkpoint."
            )
        ended = bool(self._control_pattern.search(after))
        pieces = list(self._pieces(sentinel + (after if ended else ""), texts, iter(())))
        end = [] if ended else [_Piece(str(self._tokenizer.eos_token), supervised=True)]
        return [_Piece(self._answer_prefix, supervised=True), *pieces, *end]

    def _messages(self, row: Row, in_text: bool) -> tuple[list[dict[str, Any]], list[_Piece]]:
        """Return the conversation as messages for the template, and the texts that the sentinels stand for.

        Args:
            row: the row.
            in_text: write images as tokens in the text, not as separate message parts.
        """
        texts: list[_Piece] = []

        def sentinel(text: str, supervised: bool = False) -> str:
            if _BOUNDARY in text:
                raise RowError(row.id, f"has the character {_BOUNDARY!r}, which convkit reserves", "Remove it.")
            texts.append(_Piece(text, data=True, supervised=supervised))
            return SENTINEL.format(len(texts) - 1)

        messages = [_message("system", [_text(sentinel(row.system))])] if row.system is not None else []
        for turn in row.conversations:
            parts = [_text(sentinel(text)) for text in split_at_markers(row.id, turn)]
            if len(parts) == 1:
                messages.append(_message("user", [*[_IMAGE] * len(turn.images), *parts]))
            elif in_text:
                messages.append(_message("user", [_text(self._image_token.join(part["text"] for part in parts))]))
            else:
                mixed = [part for text in parts for part in (_IMAGE, text)][1:]
                messages.append(_message("user", mixed))
            messages.append(_message("assistant", [_text(sentinel(turn.assistant or "", supervised=True))]))
        return messages, texts

    def _render(self, messages: Sequence[dict[str, Any]], prompt: bool) -> str:
        return render_template(self._tokenizer, messages, prompt, self._template)

    def _order(self, rendered: str) -> list[str]:
        return re.findall(f"{SENTINEL_PATTERN.pattern.replace('(', '(?:')}|{re.escape(self._image_token)}", rendered)

    def _expected_order(self, messages: Iterable[dict[str, Any]]) -> list[str]:
        parts = (part for message in messages for part in message["content"])
        return self._order("".join(self._image_token if part["type"] == "image" else part["text"] for part in parts))

    def _pieces(self, rendered: str, texts: Sequence[_Piece], images: Iterator[str]) -> Iterator[_Piece]:
        """Yield the rendered text with texts and images inserted; the end token of an answer is supervised."""
        ends = False
        parts = SENTINEL_PATTERN.split(rendered)
        for index, part in enumerate(parts):
            if index % 2:
                yield texts[int(part)]
                ends = texts[int(part)].supervised
                continue
            end, part = self._split_end(part) if ends else ("", part)
            if end:
                yield _Piece(end, supervised=True)
            begins = (
                index + 1 < len(parts)
                and texts[int(parts[index + 1])].supervised
                and part.endswith(self._answer_prefix)
            )
            part, prefix = (part[: len(part) - len(self._answer_prefix)], self._answer_prefix) if begins else (part, "")
            for number, text in enumerate(part.split(self._image_token)):
                if number:
                    yield _Piece(next(images))
                yield _Piece(text)
            yield _Piece(prefix, supervised=True)

    def _split_end(self, text: str) -> tuple[str, str]:
        """Split off the white space and control token that end an answer."""
        before, end, after = text.partition(self.end)
        return (before + end, after) if end and not before.strip() else ("", text)

    def _answer_prefix_and_end(self) -> tuple[str, str]:
        """Return the template text between prompt and answer, and the control token that ends an answer.

        The first is generated by the model, and mostly empty or a space. If the template ends answers with no control
        token, the tokenizer's EOS is returned, and only the last answer gets it.
        """
        sentinel = SENTINEL.format(0)
        messages = [_message("user", [_text("u")]), _message("assistant", [_text(sentinel)])]
        prompt = self._render(messages[:1], prompt=True)
        before, _, after = self._render(messages, prompt=False).rpartition(sentinel)
        found = self._control_pattern.search(after)
        if not found and self._tokenizer.eos_token is None:
            raise ConvkitError(
                "The chat template ends no answer with a control token, and the tokenizer has no eos_token, so "
                "generation could not stop. Take tokenizer_config.json from the official checkpoint."
            )
        prefix = before.removeprefix(prompt) if before.startswith(prompt) else ""
        return prefix, found.group(1) if found else str(self._tokenizer.eos_token)

    def _added_bos(self) -> list[int]:
        """Return the BOS id if the tokenizer adds one to every text, else nothing."""
        bos = self._tokenizer.bos_token_id
        return [bos] if bos is not None and self._tokenizer("").input_ids[:1] == [bos] else []

    def _tokens(self, pieces: Sequence[_Piece]) -> list[_Token]:
        """Encode pieces; the text between two control tokens is encoded in one piece."""
        tokens: list[_Token] = []
        section = _Section(follows_control=False)
        if self._bos and not "".join(p.text for p in pieces[:2]).startswith(self._tokenizer.bos_token):
            tokens.append(_Token(self._bos[0], False))
            section.follows_control = True
        for piece in pieces:
            text, *rest = [piece.text] if piece.data else self._control_pattern.split(piece.text)
            section.add(text, piece.supervised)
            for name, again, text in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
                id, control = self._controls[name]
                tokens += self._encode_section(section.stripped(right=control.lstrip))
                tokens += [_Token(id, piece.supervised)] * (1 + len(again) // len(name))
                section = _Section(follows_control=True, strips=control.rstrip)
                section.add(text, piece.supervised)
        return tokens + self._encode_section(section.stripped())

    def _encode_section(self, section: "_Section") -> list[_Token]:
        """Encode a section in one piece; split it where a token would span the end of a prompt and its answer."""
        tokens = list(self._encode_whole(section))
        for start in section.answers():
            prompt = list(self._encode_whole(section[:start]))
            if tokens[: len(prompt)] != prompt:
                return self._encode_section(section[:start]) + self._encode_section(section[start:])
        return tokens

    def _encode_whole(self, section: "_Section") -> Iterator[_Token]:
        if not section.text:
            return
        boundary = _BOUNDARY if section.follows_control else ""
        encoding = self._plain.encode(boundary + section.text, add_special_tokens=False)
        for id, (start, end) in list(zip(encoding.ids, encoding.offsets, strict=True))[len(boundary) :]:
            yield _Token(id, section.supervised[max(start, end - 1, len(boundary)) - len(boundary)])


@dataclass
class _Section:
    """The text between two consecutive control tokens."""

    follows_control: bool
    """A control token precedes the section, or an earlier section that was encoded separately."""
    strips: bool = False
    """The control token before it strips white space after it."""
    text: str = ""
    supervised: list[bool] = field(default_factory=list)
    """For each character of `text`."""

    def add(self, text: str, supervised: bool) -> None:
        self.text += text
        self.supervised += [supervised] * len(text)

    def answers(self) -> list[int]:
        """Return the start offsets of answers within the section."""
        return [i for i, (before, now) in enumerate(pairwise(self.supervised), 1) if now and not before]

    def __getitem__(self, part: slice) -> "_Section":
        return _Section(
            self.follows_control or bool(part.start), text=self.text[part], supervised=self.supervised[part]
        )

    def stripped(self, right: bool = False) -> "_Section":
        """Strip the white space that the neighbouring control tokens strip."""
        if self.strips:
            self.supervised = self.supervised[len(self.text) - len(self.text.lstrip()) :]
            self.text = self.text.lstrip()
        if right:
            self.text = self.text.rstrip()
        return self


_IMAGE = {"type": "image"}


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _message(role: str, parts: list[dict[str, str]]) -> dict[str, Any]:
    return {"role": role, "content": parts}
