"""Sections in the help of a command with many options."""

import re
from typing import Any

from typer.core import TyperCommand


class SectionedCommand(TyperCommand):
    """A command whose help groups options by their `rich_help_panel`, without using rich."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections in the order of their first options."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for option in self.get_params(ctx):
            if (record := option.get_help_record(ctx)) is not None:
                names = re.sub(r"--(\w+) / --no_\1", r"--[no_]\1", record[0])
                sections.setdefault(getattr(option, "rich_help_panel", None) or "Options", []).append(
                    (names, record[1])
                )
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)
