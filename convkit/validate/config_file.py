"""Read the config file of a project: the nearest convkit.toml, or pyproject.toml with a table `[tool.convkit]`.

The search goes from the working directory upwards, never from the data: a downloaded dataset must not choose the rules
that it is checked by.
"""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from convkit.errors import ConvkitError
from convkit.findings import Severity
from convkit.validate.selection import Selection

FILE = "convkit.toml"
PYPROJECT = "pyproject.toml"


class ConfigFile(BaseModel):
    """The keys of the config file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    select: tuple[str, ...] = Field(default=(), description="Rules whose findings count; all if empty.")
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
        """Return the selection, overridden by the command line; severities are merged."""
        severities = dict.fromkeys(error, Severity.ERROR) | dict.fromkeys(warn, Severity.WARNING)
        return Selection(tuple(select) or self.select, tuple(ignore) or self.ignore, {**self.severity, **severities})


def read_config_file(file: Path | None = None) -> ConfigFile:
    """Read a config file, or the nearest one; return the defaults if there is none.

    Raises:
        ConvkitError: the file cannot be read, is not TOML, or has unknown keys or values.
    """
    if file is None:
        file = find_config_file(Path.cwd())
        if file is None:
            return ConfigFile()
    table = _table(file)
    if table is None:
        raise ConvkitError(f"{file} has no table [tool.convkit]. Add it, or pass another file.")
    try:
        config = ConfigFile.model_validate(table)
        config.selection()
    except ValidationError as error:
        raise ConvkitError(f"{file}: {_explain(error)}") from None
    except ConvkitError as error:
        raise ConvkitError(f"{file}: {error}") from None
    if config.baseline:
        config = config.model_copy(update={"baseline": file.parent / config.baseline})
    return config


def find_config_file(folder: Path) -> Path | None:
    """Return the nearest config file, from a folder upwards; skips a pyproject.toml without `[tool.convkit]`."""
    for parent in (folder, *folder.parents):
        for file in (parent / FILE, parent / PYPROJECT):
            if file.is_file() and _table(file) is not None:
                return file
    return None


def _table(file: Path) -> Any:
    try:
        document: Any = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConvkitError(f"{file} cannot be read ({error.strerror}). Check --config.") from None
    except ValueError as error:  # of TOML and of UTF-8
        raise ConvkitError(f"{file} is not TOML: {error}. Fix it, or pass another file with --config.") from None
    if file.name != PYPROJECT:
        return document
    tool = document.get("tool")
    return tool.get("convkit") if isinstance(tool, dict) else None


def _explain(error: ValidationError) -> str:
    detail = error.errors(include_url=False)[0]
    key = ".".join(map(str, detail["loc"]))
    if detail["type"] == "extra_forbidden":
        return f"unknown key {key!r}. Known keys: {', '.join(ConfigFile.model_fields)}."
    return f"{key}: {detail['msg']}."
