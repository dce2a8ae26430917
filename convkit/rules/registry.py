"""The rules, one family a file.

A new rule is written into its family's file: a `Rule` in its `RULES`, and what finds it (for sound rows, a `Check`
in its `CHECKS`); and a fixture in tests/fixtures/datasets/invalid/ that carries its code.
"""

from difflib import get_close_matches

from convkit.errors import ConvkitError
from convkit.rules import corpus, duplicates, file, labels, media, model, row, splits
from convkit.rules.base import Check, Rule

RULES: dict[str, Rule] = {rule.code: rule for family in (file, row, media, corpus, model) for rule in family.RULES}
"""All rules by code, in the order of their codes."""

CHECKS: tuple[type[Check], ...] = tuple(
    check for part in (row, media, corpus, duplicates, splits, labels) for check in part.CHECKS
)
"""What is asked of sound rows and whole data sets."""


def codes(*, with_model: bool) -> tuple[str, ...]:
    """The rules of a run; those about a model are asked only where one is named."""
    return tuple(code for code, rule in RULES.items() if with_model or rule not in model.RULES)


def get_rule(name: str) -> Rule:
    """The rule with a code or a slug, in capitals or not.

    Raises:
        ConvkitError: there is none; the message lists those that are meant perhaps.
    """
    wanted = name.lower()
    for rule in RULES.values():
        if wanted in (rule.code.lower(), rule.slug):
            return rule
    raise ConvkitError(f"There is no rule {name!r}. {meant(name)}")


def meant(name: str) -> str:
    """What somebody meant perhaps who asked for a rule that there is not: a sentence."""
    wanted = name.strip().lower()
    names = {key: rule for rule in RULES.values() for key in (rule.code.lower(), rule.slug)}
    near = [rule for key, rule in names.items() if wanted and (key.startswith(wanted) or wanted in rule.slug)]
    near = list(dict.fromkeys(near or [names[key] for key in get_close_matches(wanted, names, 3, 0.75)]))
    if not near:
        return "Run `convkit rule` to see all rules."
    return f"Did you mean {' or '.join(f'{rule.code} {rule.slug}' for rule in near)}?"
