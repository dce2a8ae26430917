"""What is asked of the texts of sound rows, each text by itself: functions without state, which run in workers.

The rules are those of the row family; a text's place is added by the caller, so that one answer serves all rows that
repeat the text.
"""

import re
from collections.abc import Iterator
from string import ascii_uppercase
from unicodedata import category

from convkit.metrics.answers import exact_match
from convkit.rules import row
from convkit.rules.base import Problem
from convkit.schema import IMAGE_MARKER

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff]")
# What UTF-8 looks like, read as Latin-1 or its Windows kin: an accented letter, a punctuation mark, an emoji, a byte
# order mark; or the sign that a decoder leaves. A capital before it makes it a part of a word in capitals.
_SECOND = bytes(range(0x80, 0xC0))
_CONTINUED = re.escape(_SECOND.decode("latin-1") + _SECOND.decode("cp1252", "ignore"))
_MISREAD = re.compile(f"(?<![A-ZÀ-Þ])(?:[ÂÃ]|â[{_CONTINUED}]|ð[\x9fŸ])[{_CONTINUED}]|ï»¿|\ufffd")
_CHOICES = "classes|labels|categories|options|choices|answers|words"
# Words that are to be translated, or options that are to be compared, are nothing to choose from.
_CHOOSE = "(?:one|which) of|answer|categorize|choose|classify|pick|select"
_LIST = re.compile(rf"\b(?:{_CHOOSE})\b[^.:?!\n]{{0,80}}\b(?:{_CHOICES}): *(?P<list>[^\n]+)", re.IGNORECASE)
_EITHER = re.compile(r"\bAnswer (?P<one>\w+) or (?P<other>\w+)\.?\s*\Z")
_LETTERED = re.compile(r"^[ \t]*\(?(?P<letter>[A-Z])[).:][ \t]+(?P<text>\S.*?)[ \t]*$", re.MULTILINE)
_UNSEEN = ("Cc", "Cf", "Zl", "Zp", "Zs")
"""Categories of characters without ink: control, format (joiners, marks of direction), line ends, blanks."""
_MAX_SHOWN = 60
_MOST_CHOICES = 1000
"""As many as ImageNet has classes. Each is looked for in the answer, so this and its length bound the time."""
_LONGEST_ANSWER = 1000
"""Characters; more are no choice, but an essay."""


def of_system(text: str) -> tuple[Problem, ...]:
    """The problems of a system text."""
    if IMAGE_MARKER in text:
        return (Problem(row.MARKER_COUNT, f"the system text holds {IMAGE_MARKER}, but has no images"), *of_any(text))
    return of_any(text)


def of_prompt(text: str) -> tuple[Problem, ...]:
    """The problems of a user text."""
    if _is_blank(text.replace(IMAGE_MARKER, "")):
        return (Problem(row.EMPTY_PROMPT, "the user text is blank"),)
    return of_any(text)


def of_answer(text: str) -> tuple[Problem, ...]:
    """The problems of an assistant text."""
    if _is_blank(text):
        return (Problem(row.EMPTY_ANSWER, "the assistant text is blank"),)
    return tuple(_of_answer(text))


def _is_blank(text: str) -> bool:
    return all(category(character) in _UNSEEN for character in text)


def _of_answer(text: str) -> Iterator[Problem]:
    if text[0].isspace() or text[-1].isspace():
        where = "begins" if text[0].isspace() else "ends"
        yield Problem(row.PADDED_ANSWER, f"the assistant text {where} with white space")
    if IMAGE_MARKER in text:
        yield Problem(row.MARKER_IN_ANSWER, f"the assistant text holds {IMAGE_MARKER}")
    yield from of_any(text)


def of_any(text: str) -> tuple[Problem, ...]:
    """The problems that any text can have: its characters."""
    if text.isascii() and text.isprintable():
        return ()
    problems = []
    if match := _CONTROL.search(text):
        problems.append(
            Problem(
                row.CONTROL_CHARACTER, f"character {match.start() + 1} is U+{ord(match[0]):04X}, a control character"
            )
        )
    if match := _MISREAD.search(text):
        around = text[max(match.start() - 10, 0) : match.end() + 10]
        problems.append(Problem(row.MOJIBAKE, f"{around!r} was decoded with the wrong encoding"))
    return tuple(problems)


def choices(prompt: str) -> frozenset[str] | None:
    """The answers that a prompt lists; None where it lists none that is understood.

    Understood are `... one of the following classes: a, b, c.`, `Answer yes or no.`, and lines `A. text`, of which
    both the letter and the text are choices.
    """
    # Most prompts have nothing of the kind, and to look for a character costs a twentieth of a pattern.
    if ":" in prompt and (match := _LIST.search(prompt)):
        parts = re.split(r",| or ", match["list"].rstrip().rstrip("."))
        # What follows a full stop may be the next sentence, or the rest of a name.
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
    return known if 1 < len(known) <= _MOST_CHOICES else None


def not_a_choice(answer: str, known: frozenset[str]) -> tuple[Problem, ...]:
    """CK111 where an answer does not even contain one of the choices as whole words; case does not count."""
    folded = answer.casefold()
    if (
        not folded.strip()
        or len(answer) > _LONGEST_ANSWER
        or any(_has_words(folded, choice.casefold()) for choice in known)
    ):
        return ()
    return (Problem(row.NOT_A_CHOICE, f"{_short(answer)} is none of the choices that the prompt lists"),)


def not_accepted(answer: str, accepted: tuple[str, ...]) -> tuple[Problem, ...]:
    """CK112 where an answer is none of those that are accepted, compared as accuracy does."""
    if exact_match(answer, accepted):
        return ()
    others = f", such as {_short(accepted[0])}" if accepted else ""
    return (Problem(row.NOT_ACCEPTED, f"{_short(answer)} is none of the {len(accepted)} accepted answers{others}"),)


def _short(text: str) -> str:
    return repr(text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…")


def _has_words(text: str, words: str) -> bool:
    start = text.find(words)
    while start >= 0:
        end = start + len(words)
        if not (text[start - 1 : start].isalnum() or text[end : end + 1].isalnum()):
            return True
        start = text.find(words, start + 1)
    return False
