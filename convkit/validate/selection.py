"""Select which findings count, and with which severity."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from convkit.errors import ConvkitError
from convkit.findings import Finding, Severity, by_code
from convkit.rules.registry import all_rules, suggest

_PREFIX = re.compile(r"([A-Z]{2,})\d{0,3}")


@dataclass(frozen=True)
class Selection:
    """Which findings count, by the code, code prefix or slug of their rule. The longest matching name decides.

    All rules always run, so ignored errors are still counted, and a validation receipt is not written because of them.

    Raises:
        ConvkitError: a name matches no rule; the message suggests similar ones.
    """

    select: tuple[str, ...] = ()
    """The rules whose findings count; all of them if empty."""
    ignore: tuple[str, ...] = ()
    severity: Mapping[str, Severity] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (*self.select, *self.ignore, *self.severity):
            if not any(_match_length(name, code) for code in all_rules()):
                raise ConvkitError(
                    f"{name!r} is neither a rule nor a prefix of rule codes, such as CK2. {suggest(name)}"
                )

    def selects(self, code: str) -> bool:
        """Return whether findings of a rule count."""
        selected = _longest_match(self.select, code) if self.select else 1
        return selected > _longest_match(self.ignore, code)

    def apply(self, findings: Iterable[Finding]) -> list[Finding]:
        """Return the findings that count, with the selected severity."""
        return [
            finding if severity is finding.severity else finding.model_copy(update={"severity": severity})
            for finding in findings
            if self.selects(finding.code)
            for severity in (self._severity(finding),)
        ]

    def hidden_errors(self, findings: Iterable[Finding]) -> Counter[str]:
        """Count errors, by rule, that are ignored or downgraded; they still prevent a receipt."""
        errors = [finding for finding in findings if finding.severity is Severity.ERROR]
        kept = (finding for finding in self.apply(errors) if finding.severity is Severity.ERROR)
        return by_code(errors) - by_code(kept)

    def refuses(self, findings: Sequence[Finding]) -> bool:
        """Return whether findings prevent a receipt: errors by the rules, and warnings made errors here."""
        return any(finding.severity is Severity.ERROR for finding in (*findings, *self.apply(findings)))

    def _severity(self, finding: Finding) -> Severity:
        names = [name for name in self.severity if _match_length(name, finding.code)]
        if not names:
            return finding.severity
        return self.severity[max(names, key=lambda name: _match_length(name, finding.code))]


def describe_hidden_errors(hidden: Mapping[str, int]) -> str:
    """Return why no receipt was written, given `Selection.hidden_errors`."""
    counts = ", ".join(f"{count:,} of {code} {all_rules()[code].slug}" for code, count in sorted(hidden.items()))
    return f"ignored or downgraded errors still count ({counts}); fix them"


def _match_length(name: str, code: str) -> int:
    """Return the number of characters of `code` that a name matches; 0 if it matches another rule."""
    rule = all_rules().get(code)
    if rule and name == rule.slug:
        return len(code)
    prefix = _PREFIX.fullmatch(name)
    return len(name) if prefix and code.startswith(name) and code[len(prefix[1])].isdigit() else 0


def _longest_match(names: Iterable[str], code: str) -> int:
    return max((_match_length(name, code) for name in names), default=0)


DEFAULT_SELECTION = Selection()
