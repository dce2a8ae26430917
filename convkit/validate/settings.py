"""Define the settings of `convkit validate`, from which its options are made. Must be cheap to import."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge

Media = Literal["decode", "header", "none"]
"""How much of an image file is read: all pixels, the header, or nothing."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of a validation: what is read, which findings count, and where the report goes."""

    format: Annotated[str, "Format of the report."] = "text"
    output: Annotated[Path | None, "Write the report to a file instead of the terminal."] = None
    media: Annotated[Media, "How much of each image to read. Only decode finds truncated images."] = "decode"
    model: Annotated[
        str,
        "Model to train: a token profile such as qwen2.5-vl or phi-3.5-vision:num_crops=16 (an unknown name lists "
        "all), or a checkpoint directory. Adds rules CK4xx.",
    ] = ""
    max_length: Annotated[int | None, "With --model: maximum tokens per row.", Ge(1)] = None
    tokenizer: Annotated[Path | None, "With --model: the model's tokenizer.json, to count text exactly."] = None
    workers: Annotated[int | None, "Worker processes; 0 runs in-process. Default: CPU count.", Ge(0)] = None
    select: Annotated[list[str] | None, "Report only these rules: codes, prefixes (CK2), or slugs."] = None
    ignore: Annotated[list[str] | None, "Do not report these rules."] = None
    error: Annotated[list[str] | None, "Report findings of these rules as errors."] = None
    warn: Annotated[list[str] | None, "Report findings of these rules as warnings."] = None
    config: Annotated[
        Path | None,
        "Config file. Default: convkit.toml, or [tool.convkit] in pyproject.toml, in the working directory or the "
        "nearest parent.",
    ] = None
    baseline: Annotated[Path | None, "Accept the findings listed in this file."] = None
    write_baseline: Annotated[bool, "Write the baseline from the current findings."] = False
    fix: Annotated[bool, "Fix what can be fixed automatically, then validate."] = False


def rule_names(options: Iterable[str] | None) -> list[str]:
    """Return the rule names of a repeated option, each value of which may be a comma-separated list."""
    return [name.strip() for option in options or () for name in option.split(",")]
