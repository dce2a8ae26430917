"""What a project wants of the validator: which findings count, and how much; on the command line and in a file.

The file is the nearest `convkit.toml`, or `pyproject.toml` with a table `[tool.convkit]`, from the working directory
upwards. Never from the data upwards: a data set from somebody else must not say by which rules it is judged.
"""

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from convkit.errors import ConvkitError
from convkit.findings import Finding, Severity, by_code
from convkit.rules.registry import RULES, suggest

FILE = "convkit.toml"
PYPROJECT = "pyproject.toml"
_PREFIX = re.compile(r"CK\d{0,3}")


@dataclass(frozen=True)
class Selection:
    """Which findings count, by code, the beginning of codes, or slug; of two that fit, the longer one decides.

    All rules always run, so what is ignored can be counted, and no receipt is written on the strength of not looking.

    Raises:
        ConvkitError: a name is none of a rule; the message has those that are meant perhaps.
    """

    select: tuple[str, ...] = ("CK",)
    ignore: tuple[str, ...] = ()
    severity: Mapping[str, Severity] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (*self.select, *self.ignore, *self.severity):
            if not any(_fit(name, code) for code in RULES):
                raise ConvkitError(
                    f"{name!r} is neither a rule nor the beginning of rules' codes, such as CK2. {suggest(name)}"
                )

    def selects(self, code: str) -> bool:
        """Whether findings of a rule count."""
        return _best(self.select, code) > _best(self.ignore, code)

    def apply(self, findings: Iterable[Finding]) -> list[Finding]:
        """The findings that count, with the severity that they are to have."""
        return [
            finding if severity is finding.severity else finding.model_copy(update={"severity": severity})
            for finding in findings
            if self.selects(finding.code)
            for severity in (self._severity(finding),)
        ]

    def hidden_errors(self, findings: Iterable[Finding]) -> Counter[str]:
        """Errors by rule that would not be errors any more: they keep a receipt from being written all the same."""
        errors = [finding for finding in findings if finding.severity is Severity.ERROR]
        kept = (finding for finding in self.apply(errors) if finding.severity is Severity.ERROR)
        return by_code(errors) - by_code(kept)

    def refuses(self, findings: Sequence[Finding]) -> bool:
        """Whether findings keep a receipt from being written: errors by the rules, and what is an error here."""
        return any(finding.severity is Severity.ERROR for finding in (*findings, *self.apply(findings)))

    def _severity(self, finding: Finding) -> Severity:
        fitting = [name for name in self.severity if _fit(name, finding.code)]
        return self.severity[max(fitting, key=lambda name: _fit(name, finding.code))] if fitting else finding.severity


def describe_hidden_errors(hidden: Mapping[str, int]) -> str:
    """Why there is no receipt where `Selection.hidden_errors` says so."""
    counts = ", ".join(f"{count:,} of {code} {RULES[code].slug}" for code, count in sorted(hidden.items()))
    return f"errors that are ignored or made warnings still count for it ({counts}); mend them"


def _fit(name: str, code: str) -> int:
    """How closely a name is about a rule: the length of the code that it stands for, 0 if it is about others."""
    if code in RULES and name == RULES[code].slug:
        return len(code)
    return len(name) if _PREFIX.fullmatch(name) and code.startswith(name) else 0


def _best(names: Iterable[str], code: str) -> int:
    return max((_fit(name, code) for name in names), default=0)


DEFAULT_SELECTION = Selection()


class Settings(BaseModel):
    """The keys of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    select: tuple[str, ...] = Field(default=("CK",), description="Rules whose findings count.")
    ignore: tuple[str, ...] = Field(default=(), description="Rules whose findings do not count.")
    severity: dict[str, Severity] = Field(default_factory=dict, description="error or warning, by rule.")
    baseline: Path | None = Field(default=None, description="The baseline file, relative to this file.")

    def selection(
        self,
        select: Sequence[str] = (),
        ignore: Sequence[str] = (),
        error: Sequence[str] = (),
        warn: Sequence[str] = (),
    ) -> Selection:
        """The selection, with what the command line says instead; severities are added to those of the file."""
        here = dict.fromkeys(error, Severity.ERROR) | dict.fromkeys(warn, Severity.WARNING)
        return Selection(tuple(select) or self.select, tuple(ignore) or self.ignore, {**self.severity, **here})


def load(file: Path | None = None) -> Settings:
    """The settings of a file, or of the nearest one; the defaults if there is none.

    Raises:
        ConvkitError: it cannot be read, is not TOML, or has keys or values that are not known.
    """
    if file is None:
        file = find(Path.cwd())
        if file is None:
            return Settings()
    table = _table(file)
    if table is None:
        raise ConvkitError(f"{file} has no table [tool.convkit]. Add it, or give another file.")
    try:
        settings = Settings.model_validate(table)
        settings.selection()
    except ValidationError as error:
        raise ConvkitError(f"{file}: {_explained(error)}") from None
    except ConvkitError as error:
        raise ConvkitError(f"{file}: {error}") from None
    if settings.baseline:
        settings = settings.model_copy(update={"baseline": file.parent / settings.baseline})
    return settings


def find(folder: Path) -> Path | None:
    """The nearest file with settings, from a folder upwards; one without `[tool.convkit]` is passed over."""
    for place in (folder, *folder.parents):
        for file in (place / FILE, place / PYPROJECT):
            if file.is_file() and _table(file) is not None:
                return file
    return None


def _table(file: Path) -> Any:
    try:
        document: Any = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConvkitError(f"{file} cannot be read ({error.strerror}). Check --config.") from None
    except ValueError as error:  # of TOML and of UTF-8
        raise ConvkitError(f"{file} is not TOML: {error}. Mend it, or give another file with --config.") from None
    if file.name != PYPROJECT:
        return document
    tool = document.get("tool")
    return tool.get("convkit") if isinstance(tool, dict) else None


def _explained(error: ValidationError) -> str:
    detail = error.errors(include_url=False)[0]
    key = ".".join(map(str, detail["loc"]))
    if detail["type"] == "extra_forbidden":
        return f"the key {key!r} is not known. Known are: {', '.join(Settings.model_fields)}."
    return f"{key}: {detail['msg']}."
