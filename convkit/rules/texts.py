"""CK1xx, part 2: the texts of valid rows, each on its own.

These functions run in workers and have no state. They return problems without a location, so that one result serves
all rows that repeat a text; the caller adds the JSON pointer.
"""

import re
from collections.abc import Iterator
from string import ascii_uppercase
from unicodedata import category

from convkit.findings import Severity
from convkit.metrics.answers import exact_match
from convkit.rules import row
from convkit.rules.base import Problem, Rule
from convkit.schema import IMAGE_MARKER

_MAX_ANSWER = 60
"""Characters of an answer that a message quotes."""


def of_system(text: str) -> tuple[Problem, ...]:
    """Return the problems of a system text."""
    if IMAGE_MARKER in text:
        return (Problem(row.MARKER_COUNT, f"the system text has {IMAGE_MARKER}, but no images"), *of_any(text))
    return of_any(text)


def of_prompt(text: str) -> tuple[Problem, ...]:
    """Return the problems of a user text."""
    if _is_blank(text.replace(IMAGE_MARKER, "")):
        return (Problem(EMPTY_PROMPT, "the user text is blank"),)
    return of_any(text)


def of_answer(text: str) -> tuple[Problem, ...]:
    """Return the problems of an assistant text."""
    if _is_blank(text):
        return (Problem(EMPTY_ANSWER, "the assistant text is blank"),)
    return tuple(_of_answer(text))


def _of_answer(text: str) -> Iterator[Problem]:
    if text[0].isspace() or text[-1].isspace():
        where = "starts" if text[0].isspace() else "ends"
        yield Problem(PADDED_ANSWER, f"the assistant text {where} with whitespace")
    if IMAGE_MARKER in text:
        yield Problem(MARKER_IN_ANSWER, f"the assistant text contains {IMAGE_MARKER}")
    yield from of_any(text)


def of_any(text: str) -> tuple[Problem, ...]:
    """Return the problems that any text can have: wrong characters."""
    if text.isascii() and text.isprintable():
        return ()
    problems = []
    if match := _CONTROL.search(text):
        message = f"character {match.start() + 1} is U+{ord(match[0]):04X}, a control character"
        problems.append(Problem(CONTROL_CHARACTER, message))
    if match := _MISREAD.search(text):
        around = text[max(match.start() - 10, 0) : match.end() + 10]
        problems.append(Problem(MOJIBAKE, f"{around!r} was decoded with the wrong encoding"))
    return tuple(problems)


EMPTY_ANSWER = Rule(
    code="CK104",
    slug="empty-answer",
    severity=Severity.ERROR,
    summary="assistant texts that are empty or invisible",
    why="The row counts as labelled, but the model is trained to answer nothing. Usually the label was lost during "
    "conversion.",
    fix="Write the answer, or leave out the key `assistant` if the split has no labels.",
    instead='{"id":"1","source":"pets","conversations":[{"images":[],"user":"What is it?","assistant":"A cat."}]}',
)
EMPTY_PROMPT = Rule(
    code="CK105",
    slug="empty-prompt",
    severity=Severity.WARNING,
    summary="user texts that are empty, invisible or contain only `<image>` markers",
    why="The model sees an image without a question and learns to respond to every image in this one way.",
    fix="Write a prompt, such as: Describe the image.",
    instead='{"id":"1","source":"pets","conversations":[{"images":[],"user":"Name a pet.","assistant":"A"}]}',
)
_INVISIBLE = ("Cc", "Cf", "Zl", "Zp", "Zs")
"""Unicode categories of invisible characters: control, format, line and paragraph separators, spaces."""


def _is_blank(text: str) -> bool:
    return all(category(character) in _INVISIBLE for character in text)


PADDED_ANSWER = Rule(
    code="CK106",
    slug="padded-answer",
    severity=Severity.WARNING,
    summary="assistant texts with leading or trailing whitespace",
    why="Whitespace changes the tokens, so the model is trained on a different answer than evaluation compares with.",
    fix="Strip the text.",
    instead='{"id":" a","source":"pets","conversations":[{"images":[],"user":" a","assistant":"a"}]}',
    fixable=True,
)
MARKER_IN_ANSWER = Rule(
    code="CK107",
    slug="marker-in-answer",
    severity=Severity.ERROR,
    summary="assistant texts that contain an `<image>` marker",
    why="Code that replaces the markers of a whole conversation inserts an image here and shifts all later ones. "
    "Otherwise the model learns to write the marker.",
    fix="Remove the marker from the answer.",
    instead='{"id":"1","source":"pets","conversations":[{"images":[],"user":"What is it?",'
    '"assistant":"See the image."}]}',
)
MOJIBAKE = Rule(
    code="CK109",
    slug="mojibake",
    severity=Severity.WARNING,
    summary="text that was decoded with the wrong encoding (mojibake)",
    why="The model learns to read and write characters that nobody typed.",
    fix="Decode the source as UTF-8 and convert it again.",
    instead='{"id":"café","source":"pets","conversations":[{"images":[],"user":"café","assistant":"A"}]}',
)
# UTF-8 that was decoded as Latin-1 or Windows-1252: accented letters, punctuation, emoji, a byte order mark; and the
# replacement character. A capital letter before it makes it part of an all-caps word.
_SECOND = bytes(range(0x80, 0xC0))
_CONTINUED = re.escape(_SECOND.decode("latin-1") + _SECOND.decode("cp1252", "ignore"))
_MISREAD = re.compile(f"(?<![A-ZÀ-Þ])(?:[ÂÃ]|â[{_CONTINUED}]|ð[\x9fŸ])[{_CONTINUED}]|ï»¿|\ufffd")
CONTROL_CHARACTER = Rule(
    code="CK110",
    slug="control-character",
    severity=Severity.WARNING,
    summary="control characters in text",
    why="They are invisible, but become tokens that the model reads and learns to write.",
    fix="Remove the character. The only control characters allowed are tabs and line breaks.",
    instead='{"id":"1","source":"pets","conversations":[{"images":[],"user":"a\\tb\\nc","assistant":"a"}],"system":"a"}',
)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff]")

NOT_A_CHOICE = Rule(
    code="CK111",
    slug="answer-not-a-choice",
    severity=Severity.WARNING,
    summary="answers that are not among the choices listed in the prompt",
    why="The prompt rules out the answer that the model is trained on. Either the list is incomplete, or the label is "
    "wrong.",
    fix="Correct the label, or list all classes in the prompt.",
    instead='{"id":"0","source":"pets","conversations":[{"images":[],"user":"Classify the video into one of the '
    'following classes: cat, big dog, owl.","assistant":"owl"}]}',
)
_CHOICES = "classes|labels|categories|options|choices|answers|words"
# Verbs of choice only: words to translate or options to compare are not choices.
_CHOOSE = "(?:one|which) of|answer|categorize|choose|classify|pick|select"
_LIST = re.compile(rf"\b(?:{_CHOOSE})\b[^.:?!\n]{{0,80}}\b(?:{_CHOICES}): *(?P<list>[^\n]+)", re.IGNORECASE)
_EITHER = re.compile(r"\bAnswer (?P<one>\w+) or (?P<other>\w+)\.?\s*\Z")
_LETTERED = re.compile(r"^[ \t]*\(?(?P<letter>[A-Z])[).:][ \t]+(?P<text>\S.*?)[ \t]*$", re.MULTILINE)
_MAX_CHOICES = 1000
"""The number of classes of ImageNet. With `_MAX_ANSWER_LENGTH` it bounds the time of the search."""
_MAX_ANSWER_LENGTH = 1000
"""Characters; a longer answer is free text, not a choice."""


def choices(prompt: str) -> frozenset[str] | None:
    """Return the answers that a prompt lists, or None.

    Recognised are `... one of the following classes: a, b, c.`, `Answer yes or no.`, and lines `A. text`, of which
    both the letter and the text are choices.
    """
    # Most prompts list nothing, and testing for a character takes a twentieth of a regular expression search.
    if ":" in prompt and (match := _LIST.search(prompt)):
        parts = re.split(r",| or ", match["list"].rstrip().rstrip("."))
        # Text after a full stop may be the next sentence or the rest of a name.
        named = [whole.strip(" '\"") for part in parts for whole in (part, part.partition(". ")[0])]
    elif " or " in prompt and (match := _EITHER.search(prompt)):
        named = [match["one"], match["other"]]
    elif "\n" not in prompt:
        return None
    else:
        lettered = [(found["letter"], found["text"]) for found in _LETTERED.finditer(prompt)]
        if "".join(letter for letter, _ in lettered) != ascii_uppercase[: len(lettered)]:
            return None
        if any(text.endswith("?") for _, text in lettered):  # several questions
            return None
        named = [part for pair in lettered for part in pair]
    known = frozenset(filter(None, named))
    return known if 1 < len(known) <= _MAX_CHOICES else None


def not_a_choice(answer: str, known: frozenset[str]) -> tuple[Problem, ...]:
    """Return CK111 if an answer contains none of the choices as whole words, ignoring case."""
    folded = answer.casefold()
    if (
        not folded.strip()
        or len(answer) > _MAX_ANSWER_LENGTH
        or any(_has_words(folded, choice.casefold()) for choice in known)
    ):
        return ()
    return (Problem(NOT_A_CHOICE, f"{_short(answer)} is not among the choices listed in the prompt"),)


def _has_words(text: str, words: str) -> bool:
    start = text.find(words)
    while start >= 0:
        end = start + len(words)
        if not (text[start - 1 : start].isalnum() or text[end : end + 1].isalnum()):
            return True
        start = text.find(words, start + 1)
    return False


def _short(text: str) -> str:
    return repr(text if len(text) <= _MAX_ANSWER else f"{text[:_MAX_ANSWER]}…")


NOT_ACCEPTED = Rule(
    code="CK112",
    slug="answer-not-accepted",
    severity=Severity.WARNING,
    summary="assistant texts that are not among the accepted answers of their turn",
    why="Evaluation counts the answer that was trained on as wrong. One of the two was changed without the other, or "
    "belongs to another question.",
    fix="Correct the assistant text, or add it to `answers`. The comparison ignores case, surrounding whitespace and "
    "full stops.",
    instead='{"id":"1","source":"pets","conversations":[{"images":[],"user":"a","assistant":"A cat",'
    '"answers":["A cat","cat"]}]}',
)


def not_accepted(answer: str, accepted: tuple[str, ...]) -> tuple[Problem, ...]:
    """Return CK112 if an answer is not accepted, compared as the accuracy metric does."""
    if exact_match(answer, accepted):
        return ()
    others = f", such as {_short(accepted[0])}" if accepted else ""
    return (Problem(NOT_ACCEPTED, f"{_short(answer)} is not among the {len(accepted)} accepted answers{others}"),)


RULES = (
    EMPTY_ANSWER,
    EMPTY_PROMPT,
    PADDED_ANSWER,
    MARKER_IN_ANSWER,
    MOJIBAKE,
    CONTROL_CHARACTER,
    NOT_A_CHOICE,
    NOT_ACCEPTED,
)
