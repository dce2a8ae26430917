"""Text for people: escaped control characters, and numbers with their nouns."""


def printable(text: str) -> str:
    """Escape control characters, which keys and file names may contain; the result is one line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def pluralize(number: int, noun: str) -> str:
    """Return number and noun, such as `1 row` or `2 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
