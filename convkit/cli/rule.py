"""`convkit rule [CODE|SLUG]`: explain a validation rule, or list all rules."""

import sys
from typing import Annotated

import typer


def rule(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="CODE|SLUG", help="Code or slug, such as CK201 or missing-image. Default: list all rules."
        ),
    ] = None,
) -> None:
    """Explain a rule of `convkit validate`, or list all rules."""
    from convkit.reporters.rule_page import examples, page
    from convkit.rules.registry import all_rules, find_plugin, get_rule

    if name is not None:
        found = get_rule(name)
        sys.stdout.write(page(found, examples().get(found.code)))
        if plugin := find_plugin(found):
            sys.stdout.write(f"\n{plugin.details()}\n")
        return
    rules = all_rules().values()
    widths = [max(map(len, names)) for names in zip(*((rule.code, rule.slug) for rule in rules), strict=True)]
    for rule in rules:
        typer.echo(f"{rule.code:<{widths[0]}}  {rule.slug:<{widths[1]}}  {rule.severity:<7}  {rule.summary}")
