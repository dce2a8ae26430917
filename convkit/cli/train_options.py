"""Command-line options made from the fields of an options dataclass.

A field is declared as `name: Annotated[type, "help text", constraints...] = default`. The constraints are those of
annotated_types: `Ge`, `Le` and, for integers, `Gt` and `Lt`.
"""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from types import MappingProxyType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer
from annotated_types import Ge, Gt, Le, Lt

REQUIRED = inspect.Parameter.empty
OUT_FIELDS = ("out_dir", "output_dir", "out", "output")
"""Fields whose option also has the short name -o."""
_NONE: Mapping[str, Any] = MappingProxyType({})


def parameter(name: str, annotation: Any, default: Any = REQUIRED) -> inspect.Parameter:
    """Return a keyword parameter for `with_signature`; without a default it is required."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def dataclass_options(
    source: type,
    *,
    without: Collection[str] = (),
    defaults: Mapping[str, Any] = _NONE,
    aliases: Mapping[str, str] = _NONE,
    sections: Mapping[str, str] = _NONE,
    extra: Mapping[str, Mapping[str, Any]] = _NONE,
    unset_is_none: bool = False,
) -> list[inspect.Parameter]:
    """Return an option for each field of a dataclass, in the order of the fields.

    Args:
        source: the dataclass; its fields are declared as in this module's docstring.
        without: names of fields that get no option.
        defaults: defaults by field, in place of the dataclass's own.
        aliases: a second name by field.
        sections: the title of a help section by the name of its first field.
        extra: more arguments of `typer.Option` by field, such as `{"output": {"metavar": "FILE"}}`.
        unset_is_none: give None for an option that is not on the command line, so that a file may set it; the help
            shows the default. The constraints are then left to whoever combines the two.
    """
    hints = get_type_hints(source, include_extras=True)
    made, section = [], None
    for field in fields(source):
        section = sections.get(field.name, section)
        if field.name in without:
            continue
        kind, text, *constraints = get_args(hints[field.name])
        default = defaults.get(field.name, _default(field))
        arguments: dict[str, Any] = {"help": text, "rich_help_panel": section}
        if unset_is_none:
            arguments["help"] += _described(default)
            kind, default = _without_none(kind) | None, None
        else:
            arguments |= _bounds(constraints)
        option = typer.Option(*_names(field.name, kind, aliases), **{**arguments, **extra.get(field.name, {})})
        made.append(parameter(field.name, Annotated[kind, option], default))
    return made


def with_signature(run: Callable[..., None], parameters: Sequence[inspect.Parameter]) -> Callable[..., None]:
    """Return a command that takes these parameters, passes them to `run` and has its help text."""

    def command(**values: Any) -> None:
        run(**values)

    command.__doc__ = run.__doc__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _default(field: "Field[Any]") -> Any:
    """Return the default of a dataclass field, or `REQUIRED`."""
    if field.default_factory is not MISSING:
        return field.default_factory()
    return REQUIRED if field.default is MISSING else field.default


def _described(default: Any) -> str:
    """Return the part of a help text that names the default."""
    if default is REQUIRED:
        return " Required."
    return "" if default is None or default is False else f" Default: {default}."


def _without_none(kind: Any) -> Any:
    """Return X for the type `X | None`, and other types unchanged."""
    if get_origin(kind) in (Union, UnionType):
        return next(part for part in get_args(kind) if part is not type(None))
    return kind


def _names(name: str, kind: Any, aliases: Mapping[str, str]) -> list[str]:
    """Return the names of an option; a switch has a negative form as well."""
    if _without_none(kind) is bool:
        return [f"--{name}/--no_{name}"]
    alias = [f"--{aliases[name]}"] if name in aliases else []
    return [f"--{name}", *alias, *(["-o"] if name in OUT_FIELDS else [])]


def _bounds(constraints: Sequence[Any]) -> dict[str, Any]:
    """Return the `min` and `max` of `typer.Option` for constraints."""
    bounds: dict[str, Any] = {}
    for constraint in constraints:
        match constraint:
            case Ge(ge):
                bounds["min"] = ge
            case Le(le):
                bounds["max"] = le
            case Gt(int() as gt):
                bounds["min"] = gt + 1
            case Lt(int() as lt):
                bounds["max"] = lt - 1
            case _:
                raise TypeError(f"no option can have the constraint {constraint!r}")
    return bounds
