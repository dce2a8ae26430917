"""Load the rules of installed packages: entry points of the group `convkit.rules`, name -> `module:Check`."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from inspect import cleandoc

from convkit.errors import ConvkitError
from convkit.rules.base import Check, Rule

ENTRY_POINTS = "convkit.rules"
_CODE = re.compile(r"(?!CK\d)[A-Z]{2,}\d{3}")
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Plugin:
    """The check of an installed package."""

    check: type[Check]
    origin: str
    """The entry point and package, for messages."""

    def details(self) -> str:
        """Return the docstring of the check and its origin, as a section of a rule's page."""
        return "\n\n".join(["## Details", *filter(None, [cleandoc(self.check.__doc__ or "")]), f"From {self.origin}."])


def load_plugins(points: Iterable[EntryPoint], builtin: Mapping[str, Rule]) -> tuple[Plugin, ...]:
    """Import the checks of entry points.

    Args:
        builtin: convkit's own rules by code, whose codes and slugs cannot be reused.

    Raises:
        ConvkitError: a check cannot be imported, or its rules are invalid.
    """
    plugins = tuple(map(_load, sorted(points, key=lambda point: (point.name, point.value))))
    taken = {name: "convkit" for rule in builtin.values() for name in (rule.code, rule.slug)}
    for plugin in plugins:
        for rule in plugin.check.rules:
            for problem in _problems(rule, taken):
                raise _invalid(plugin.origin, f"{rule.code} {rule.slug}: {problem}")
            taken |= dict.fromkeys((rule.code, rule.slug), plugin.origin)
    return plugins


def _load(point: EntryPoint) -> Plugin:
    origin = f"{point.name!r} ({point.value}) of the package {point.dist.name if point.dist else 'unknown'}"
    try:
        check = point.load()
    except (ImportError, AttributeError) as error:
        raise _invalid(origin, str(error)) from error
    if not (isinstance(check, type) and issubclass(check, Check)):
        raise _invalid(origin, "it is not a subclass of convkit.rules.base.Check")
    if not check.rules or not all(isinstance(rule, Rule) for rule in check.rules):
        raise _invalid(origin, "its attribute `rules` is not a tuple of rules")
    return Plugin(check, origin)


def _problems(rule: Rule, taken: Mapping[str, str]) -> Iterator[str]:
    if not _CODE.fullmatch(rule.code):
        yield "a code is two or more capital letters, other than CK, and three digits"
    if not _SLUG.fullmatch(rule.slug):
        yield "a slug is lowercase words joined by hyphens"
    for name in (rule.code, rule.slug):
        if name in taken:
            yield f"{name} is already a rule of {taken[name]}"
    if rule.fixable:
        yield "only rules of convkit can be fixable"


def _invalid(origin: str, reason: str) -> ConvkitError:
    return ConvkitError(f"The rules {origin} do not load: {reason}. Reinstall, fix or remove the package.")
