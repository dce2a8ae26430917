"""The rules, one family a file.

A new rule is written into its family's file: a `Rule` in its `RULES`, and what finds it (for sound rows, a `Check`
in its `CHECKS`); and a fixture in tests/fixtures/datasets/invalid/ that carries its code.
"""

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
        ConvkitError: there is none; the message lists those that are meant perhaps, or all.
    """
    wanted = name.lower()
    for rule in RULES.values():
        if wanted in (rule.code.lower(), rule.slug):
            return rule
    near = [rule for rule in RULES.values() if wanted and (rule.code.lower().startswith(wanted) or wanted in rule.slug)]
    known = ", ".join(f"{rule.code} {rule.slug}" for rule in near or RULES.values())
    raise ConvkitError(f"There is no rule {name!r}. Choose one of: {known}.")
