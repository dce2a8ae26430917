"""A row to token ids and labels by any chat template, images already written out as their processor writes them.

The template is rendered with stand-ins for the row's texts, so that it alone decides where control tokens stand. The
prompt of an answer is encoded as it is for generation, and the answer follows upon it.
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

_FENCE = "\ue002"
"""Stands before a text that is encoded by itself, as a control token stands before it in the whole."""
_WHITE = " \t\r\n\u2581"


@dataclass(frozen=True)
class _Piece:
    """Text of the template or of the row (`data`), whose control tokens are none."""

    text: str
    data: bool = False
    trained: bool = False


@dataclass(frozen=True)
class _Token:
    id: int
    trained: bool


class ChatTemplateTokenizer:
    """Encodes rows for one tokenizer.

    Args:
        tokenizer: a fast one.
        template: the chat template, in Jinja.
        image_token: what the template writes for an image.

    Raises:
        ConvkitError: there is no template, or it leaves out or repeats messages.
    """

    def __init__(self, tokenizer: Any, template: str | None, image_token: str) -> None:
        if not template:
            raise ConvkitError(
                "The checkpoint has no chat template, so that nobody can say how a conversation is written for this "
                "model. Take the files of the instruction-tuned checkpoint."
            )
        self._tokenizer, self._template, self._image_token = tokenizer, template, image_token
        added = tokenizer.added_tokens_decoder
        # White space that is kept whole is vocabulary; everything else that was added is control.
        self._controls = {str(token): (id, token) for id, token in added.items() if str(token).strip(_WHITE)}
        alternatives = "|".join(re.escape(name) for name in sorted(self._controls, key=len, reverse=True))
        # With all its repetitions: an image is its token hundreds of times.
        self._control_pattern = re.compile(rf"({alternatives})(\1*)")
        self._plain = without_control_tokens(tokenizer)
        self._plain.add_tokens([token for token in added.values() if str(token) not in self._controls])
        self._plain.add_special_tokens([_FENCE])
        self._bos = self._added_bos()
        self._lead, self.end = self._around()

    def encode(self, row: Row, images: Sequence[str], max_length: int | None = None) -> TokenizedRow:
        """Encode a row for training.

        Args:
            images: what the processor writes for each image, over all turns in order.
            max_length: longer rows are refused.

        Raises:
            RowTooLong: the row has more than `max_length` tokens.
            RowError: an answer is missing or empty, or markers, images and `images` do not match.
        """
        check_answers(row)
        tokens = self._tokens([*self._prompt(row, images), *self._answer(row)])
        check_length(row, len(tokens), max_length)
        return TokenizedRow(
            [token.id for token in tokens],
            [token.id if token.trained else IGNORE_INDEX for token in tokens],
        )

    def encode_prompt(self, row: Row, images: Sequence[str], max_length: int | None = None) -> TokenizedRow:
        """Encode what stands before a row's last answer, ready for generation; see `encode`. No label is set."""
        ids = [token.id for token in self._tokens(self._prompt(row, images))]
        check_length(row, len(ids), max_length)
        return TokenizedRow(ids, [IGNORE_INDEX] * len(ids))

    def count(self, text: str) -> int:
        """Tokens of a text with its control tokens."""
        return len(self._tokenizer(text, add_special_tokens=False).input_ids)

    def _prompt(self, row: Row, images: Sequence[str]) -> list[_Piece]:
        """All before the last answer, ending as a prompt for generation does."""
        expected = sum(len(turn.images) for turn in row.conversations)
        if expected != len(images):
            raise RowError(row.id, f"names {expected} images, but {len(images)} were given", "Pass one for each.")
        messages, texts = self._messages(row, in_text=False)
        rendered = self._render(messages[:-1], prompt=True)
        marked = any(turn.images and IMAGE_MARKER in turn.user for turn in row.conversations)
        if marked and self._order(rendered) != self._wanted(messages[:-1]):
            # The template has a place of its own for images: what the row says in mid-text is written in its text.
            messages, texts = self._messages(row, in_text=True)
            rendered = self._render(messages[:-1], prompt=True)
        found = self._order(rendered)
        if found.count(self._image_token) != len(images) or [
            int(index) for index in SENTINEL_PATTERN.findall("".join(found))
        ] != list(range(len(texts) - 1)):
            raise ConvkitError(
                "The chat template leaves out or repeats a message or an image; this model needs one that writes each "
                "system, user and assistant message once, in order."
            )
        return list(self._pieces(rendered, texts, iter(images)))

    def _answer(self, row: Row) -> list[_Piece]:
        """What follows upon the prompt: the last answer and its end, and what the template writes after it."""
        messages, texts = self._messages(row, in_text=True)
        sentinel = SENTINEL.format(len(texts) - 1)
        _, found, after = self._render(messages, prompt=False).rpartition(sentinel)
        if not found:
            raise ConvkitError("The chat template leaves out the last answer. Take that of the official checkpoint.")
        ended = bool(self._control_pattern.search(after))
        pieces = list(self._pieces(sentinel + (after if ended else ""), texts, iter(())))
        end = [] if ended else [_Piece(str(self._tokenizer.eos_token), trained=True)]
        return [_Piece(self._lead, trained=True), *pieces, *end]

    def _messages(self, row: Row, in_text: bool) -> tuple[list[dict[str, Any]], list[_Piece]]:
        """The conversation as templates take it, and the texts of its stand-ins.

        Args:
            in_text: images are written as their token in the text, not as parts of their own.
        """
        texts: list[_Piece] = []

        def sentinel(text: str, trained: bool = False) -> str:
            if _FENCE in text:
                raise RowError(row.id, f"has the character {_FENCE!r}, which convkit keeps for itself", "Remove it.")
            texts.append(_Piece(text, data=True, trained=trained))
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
            messages.append(_message("assistant", [_text(sentinel(turn.assistant or "", trained=True))]))
        return messages, texts

    def _render(self, messages: Sequence[dict[str, Any]], prompt: bool) -> str:
        return render_template(self._tokenizer, messages, prompt, self._template)

    def _order(self, rendered: str) -> list[str]:
        return re.findall(f"{SENTINEL_PATTERN.pattern.replace('(', '(?:')}|{re.escape(self._image_token)}", rendered)

    def _wanted(self, messages: Iterable[dict[str, Any]]) -> list[str]:
        parts = (part for message in messages for part in message["content"])
        return self._order("".join(self._image_token if part["type"] == "image" else part["text"] for part in parts))

    def _pieces(self, rendered: str, texts: Sequence[_Piece], images: Iterator[str]) -> Iterator[_Piece]:
        """The rendered text with the row's texts and the images in their places; an answer's end is trained on."""
        ends = False
        parts = SENTINEL_PATTERN.split(rendered)
        for index, part in enumerate(parts):
            if index % 2:
                yield texts[int(part)]
                ends = texts[int(part)].trained
                continue
            end, part = self._split_end(part) if ends else ("", part)
            if end:
                yield _Piece(end, trained=True)
            begins = index + 1 < len(parts) and texts[int(parts[index + 1])].trained and part.endswith(self._lead)
            part, lead = (part[: len(part) - len(self._lead)], self._lead) if begins else (part, "")
            for number, text in enumerate(part.split(self._image_token)):
                if number:
                    yield _Piece(next(images))
                yield _Piece(text)
            yield _Piece(lead, trained=True)

    def _split_end(self, text: str) -> tuple[str, str]:
        """The white space and the control token that end an answer, and what follows."""
        before, end, after = text.partition(self.end)
        return (before + end, after) if end and not before.strip() else ("", text)

    def _around(self) -> tuple[str, str]:
        """What the template writes between a prompt and its answer, and the control token that ends an answer.

        The first is for the model to say, and mostly nothing or a space. Without the second it is the tokenizer's end
        of text, which then follows upon the last answer alone.
        """
        sentinel = SENTINEL.format(0)
        messages = [_message("user", [_text("u")]), _message("assistant", [_text(sentinel)])]
        prompt = self._render(messages[:1], prompt=True)
        before, _, after = self._render(messages, prompt=False).rpartition(sentinel)
        found = self._control_pattern.search(after)
        if not found and self._tokenizer.eos_token is None:
            raise ConvkitError(
                "The chat template ends no answer with a control token, and the tokenizer has no eos_token: nobody "
                "could say where to stop. Take tokenizer_config.json from the official checkpoint."
            )
        lead = before.removeprefix(prompt) if before.startswith(prompt) else ""
        return lead, found.group(1) if found else str(self._tokenizer.eos_token)

    def _added_bos(self) -> list[int]:
        """What the tokenizer puts before every text whose template has not done so."""
        bos = self._tokenizer.bos_token_id
        return [bos] if bos is not None and self._tokenizer("").input_ids[:1] == [bos] else []

    def _tokens(self, pieces: Sequence[_Piece]) -> list[_Token]:
        """Encode pieces, the text between two control tokens as one."""
        tokens: list[_Token] = []
        section = _Section(fenced=False)
        if self._bos and not "".join(p.text for p in pieces[:2]).startswith(self._tokenizer.bos_token):
            tokens.append(_Token(self._bos[0], False))
            section.fenced = True
        for piece in pieces:
            text, *rest = [piece.text] if piece.data else self._control_pattern.split(piece.text)
            section.add(text, piece.trained)
            for name, again, text in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
                id, control = self._controls[name]
                tokens += self._encoded(section.stripped(right=control.lstrip))
                tokens += [_Token(id, piece.trained)] * (1 + len(again) // len(name))
                section = _Section(fenced=True, strips=control.rstrip)
                section.add(text, piece.trained)
        return tokens + self._encoded(section.stripped())

    def _encoded(self, section: "_Section") -> list[_Token]:
        """Encode as one, unless an answer's first letters would join its prompt's last token: no prompt ends so."""
        tokens = list(self._together(section))
        for start in section.answers():
            prompt = list(self._together(section[:start]))
            if tokens[: len(prompt)] != prompt:
                return self._encoded(section[:start]) + self._encoded(section[start:])
        return tokens

    def _together(self, section: "_Section") -> Iterator[_Token]:
        if not section.text:
            return
        fence = _FENCE if section.fenced else ""
        encoding = self._plain.encode(fence + section.text, add_special_tokens=False)
        for id, (start, end) in list(zip(encoding.ids, encoding.offsets, strict=True))[len(fence) :]:
            yield _Token(id, section.trained[max(start, end - 1, len(fence)) - len(fence)])


@dataclass
class _Section:
    """The text between two control tokens."""

    fenced: bool
    """It does not begin the whole."""
    strips: bool = False
    """The control token before it swallows white space."""
    text: str = ""
    trained: list[bool] = field(default_factory=list)
    """Of each character."""

    def add(self, text: str, trained: bool) -> None:
        self.text += text
        self.trained += [trained] * len(text)

    def answers(self) -> list[int]:
        """Where they begin within the section."""
        return [i for i, (before, now) in enumerate(pairwise(self.trained), 1) if now and not before]

    def __getitem__(self, part: slice) -> "_Section":
        return _Section(self.fenced or bool(part.start), text=self.text[part], trained=self.trained[part])

    def stripped(self, right: bool = False) -> "_Section":
        """Without the white space that control tokens swallow."""
        if self.strips:
            self.trained = self.trained[len(self.text) - len(self.text.lstrip()) :]
            self.text = self.text.lstrip()
        if right:
            self.text = self.text.rstrip()
        return self


_IMAGE = {"type": "image"}


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _message(role: str, parts: list[dict[str, str]]) -> dict[str, Any]:
    return {"role": role, "content": parts}
