"""`convkit rule [CODE|SLUG]`: explain a validation rule, or list all rules."""

import sys
from typing import Annotated

import typer


def rule(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[CODE|SLUG]", help="Code or slug, such as CK201 or missing-image. Default: list all rules."
        ),
    ] = None,
) -> None:
    """Explain a rule of `convkit validate`, or list all rules."""
    from convkit.reporters.rule_page import examples, page
    from convkit.rules.registry import RULES, get_rule

    if name is not None:
        found = get_rule(name)
        sys.stdout.write(page(found, examples().get(found.code)))
        return
    width = max(len(rule.slug) for rule in RULES.values())
    for rule in RULES.values():
        typer.echo(f"{rule.code}  {rule.slug:<{width}}  {rule.severity:<7}  {rule.summary}")
