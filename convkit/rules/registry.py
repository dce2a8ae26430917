"""The table of all rules and checks: those of convkit, and those of installed packages.

To add a rule, write a `Rule` and its check in the module of its family and list both in the module's `RULES` and
`CHECKS`. Add a fixture that breaks it to tests/fixtures, then run `make generate`.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib.metadata import entry_points

from convkit.errors import ConvkitError
from convkit.rules import dataset, duplicates, file, labels, media, model, row, splits, texts
from convkit.rules.base import Check, Rule
from convkit.rules.plugins import ENTRY_POINTS, Plugin, load_plugins

_FAMILIES = (file, row, texts, media, dataset, duplicates, splits, labels, model)

RULES: dict[str, Rule] = {
    rule.code: rule for rule in sorted((r for family in _FAMILIES for r in family.RULES), key=lambda rule: rule.code)
}
"""The rules of convkit by code, sorted by code."""

CHECKS: tuple[type[Check], ...] = tuple(
    check for family in (row, media, dataset, duplicates, splits, labels) for check in family.CHECKS
)
"""Checks of whole datasets; the other rules are functions that run per row in workers."""


@cache
def plugins() -> tuple[Plugin, ...]:
    """Return the checks of installed packages.

    Raises:
        ConvkitError: one cannot be imported, or its rules are invalid.
    """
    return load_plugins(entry_points(group=ENTRY_POINTS), RULES)


@cache
def all_rules() -> Mapping[str, Rule]:
    """Return the rules of convkit and of installed packages by code, sorted by code."""
    others = {rule.code: rule for plugin in plugins() for rule in plugin.check.rules}
    return dict(sorted({**RULES, **others}.items()))


def all_checks() -> tuple[type[Check], ...]:
    """Return the checks of convkit and of installed packages."""
    return (*CHECKS, *(plugin.check for plugin in plugins()))


def find_plugin(rule: Rule) -> Plugin | None:
    """Return the check that reports a rule of an installed package; None for a rule of convkit."""
    return next((plugin for plugin in plugins() if rule in plugin.check.rules), None)


def codes(*, with_model: bool) -> tuple[str, ...]:
    """Return the codes of the rules that a run checks; those about models only if a model is named."""
    return tuple(code for code, rule in all_rules().items() if with_model or rule not in model.RULES)


def is_builtin(code: str) -> bool:
    """Return whether a code is one of convkit, of this or another version; those of other packages do not begin so."""
    return code.startswith("CK") and code[2:].isdigit()


def get_rule(name: str) -> Rule:
    """Return the rule with this code or slug, ignoring case.

    Raises:
        ConvkitError: there is no such rule; the message suggests similar ones.
    """
    wanted = name.lower()
    for rule in all_rules().values():
        if wanted in (rule.code.lower(), rule.slug):
            return rule
    raise ConvkitError(f"There is no rule {name!r}. {suggest(name)}")


def suggest(name: str) -> str:
    """Return a sentence that suggests rules with a code or slug similar to an unknown name."""
    wanted = name.strip().lower()
    names = {key: rule for rule in all_rules().values() for key in (rule.code.lower(), rule.slug)}
    near = [rule for key, rule in names.items() if wanted and (key.startswith(wanted) or wanted in rule.slug)]
    near = list(dict.fromkeys(near or [names[key] for key in get_close_matches(wanted, names, 3, 0.75)]))
    if not near:
        return "Run `convkit rule` to list all rules."
    return f"Did you mean {' or '.join(f'{rule.code} {rule.slug}' for rule in near)}?"
