"""The classes of all commands: strict options, suggestions for typing errors, and help in sections."""

import re
from collections.abc import Mapping
from typing import Any

from typer.core import TyperCommand, TyperGroup


class Command(TyperCommand):
    """A command that refuses repeated options, and groups options in its help by `rich_help_panel` without rich."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Check the arguments, then parse them."""
        check_arguments(self, ctx, args)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            if hasattr(error, "message"):  # a usage error
                error.message = str(error.message).removeprefix("Value error, ")  # pydantic's prefix
            raise

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words of the usage line, such as `[OPTIONS] PATH...`."""
        arguments = [parameter for parameter in self.params if parameter.param_type_name == "argument"]
        return ["[OPTIONS]", *map(_argument_usage, arguments)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections in the order of their first parameters."""
        for title, parameters in sections(self, ctx).items():
            with formatter.section(title):
                formatter.write_dl([help_record(parameter, ctx) for parameter in parameters])

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Complete the names of options, spelled with underscores or dashes."""
        dashes, name = incomplete[:2], incomplete[2:]
        return super().shell_complete(ctx, dashes + underscores(name) if dashes == "--" else incomplete)


class Group(TyperGroup):
    """A command with subcommands; its own options are checked like those of a `Command`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Check the arguments, then parse them."""
        check_arguments(self, ctx, args)
        return super().parse_args(ctx, args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a subcommand; its name may be spelled with underscores."""
        return super().get_command(ctx, cmd_name.replace("_", "-"))


def underscores(option: str) -> str:
    """Return the spelling of an option with underscores, as in the recipe; dashes are accepted as well."""
    return option.replace("-", "_")


def sections(command: Any, ctx: Any) -> Mapping[str, list[Any]]:
    """Return the visible parameters of a command by the title of their help section."""
    found: dict[str, list[Any]] = {}
    for parameter in command.get_params(ctx):
        if parameter.get_help_record(ctx) is not None:
            untitled = "Arguments" if parameter.param_type_name == "argument" else "Options"
            found.setdefault(getattr(parameter, "rich_help_panel", None) or untitled, []).append(parameter)
    return found


def _argument_usage(argument: Any) -> str:
    name = f"{argument.metavar}..." if argument.nargs == -1 else argument.metavar
    return name if argument.required else f"[{name}]"


def help_record(parameter: Any, ctx: Any) -> tuple[str, str]:
    """Return the names of a parameter with its type, and its help text with the default and the limits."""
    names, text = parameter.get_help_record(ctx)
    names = re.sub(r"--(\w+) / --no_\1", r"--[no_]\1", names)
    names = names.replace(" range>", ">").replace("<list[Path]>", "<path>")
    text, _, extra = text.removesuffix("]").rpartition("  [") if text.endswith("]") else (text, "", "")
    sentences = [_sentence(part, switch=bool(parameter.secondary_opts)) for part in extra.split("; ")]
    return names, " ".join(filter(None, [text, *sentences]))


def _sentence(extra: str, *, switch: bool) -> str:
    """Return a sentence for a part of Typer's `[default: 2; x>=1; required]`."""
    name, _, default = extra.partition("default: ")
    if default and not name:
        if switch:
            return "" if default.startswith("no_") else "Default: True."
        return f"Default: {default}" + ("" if default.endswith(".") else ".")
    if bounds := re.fullmatch(r"(?:(\S+)<=)?x(?:(<=|>=)(\S+))?", extra):
        low, sign, high = bounds.groups()
        if sign == ">=" and high == "0":
            return ""
        return f"From {low} to {high}." if low else f"At {'least' if sign == '>=' else 'most'} {high}."
    return "Required." if extra == "required" else extra


def check_arguments(command: Any, ctx: Any, args: list[str]) -> None:
    """Stop with a usage error if an option is unknown, or is given twice but takes one value."""
    if ctx.resilient_parsing:  # shell completion
        return
    options = [parameter for parameter in command.get_params(ctx) if parameter.param_type_name == "option"]
    _check_dashes(options, ctx, args)
    try:
        _, _, order = command.make_parser(ctx).parse_args(args=list(args))
    except Exception as error:
        if not hasattr(error, "possibilities"):
            raise
        name = getattr(error, "option_name", "")
        near = _equivalents(options, name) or error.possibilities
        ctx.fail(f"There is no option {name}." + (f" Did you mean {' or '.join(near)}?" if near else ""))
    for option in options:
        if order.count(option) > 1 and not (option.multiple or option.count or (option.is_eager and option.is_flag)):
            separator = " Separate several values by commas." if "comma" in (option.help or "") else ""
            ctx.fail(f"{_spellings(option)} is given more than once, but takes one value.{separator}")


_HUGGING_FACE = {
    "--dataset_name": ["--data_dir"],
    "--epochs": ["--num_train_epochs"],
    "--gradient_accumulation_steps": ["--batch_size"],
    "--load_in_4bit": ["--use_qlora"],
    "--lora_alpha": ["--lora_alpha_ratio"],
    "--lora_r": ["--lora_rank"],
    "--lr": ["--learning_rate"],
    "--max_length": ["--max_tokens"],
    "--per_device_eval_batch_size": ["--eval_batch_size"],
    "--per_device_train_batch_size": ["--batch_size", "--batch_size_per_gpu"],
    "--resume_from_checkpoint": ["--resume"],
    "--use_peft": ["--use_lora"],
}
"""The options that are closest to an option of Hugging Face's trainers."""


def _equivalents(options: list[Any], name: str) -> list[str]:
    known = {opt for option in options for opt in option.opts}
    return [equivalent for equivalent in _HUGGING_FACE.get(name, []) if equivalent in known]


def _check_dashes(options: list[Any], ctx: Any, args: list[str]) -> None:
    """Refuse a long option with a single dash, since `-out data` would mean `-o ut data`."""
    names = [name for option in options for name in (*option.opts, *option.secondary_opts) if name.startswith("--")]
    end = args.index("--") if "--" in args else len(args)
    for argument in args[:end]:
        given = underscores(argument.partition("=")[0].removeprefix("-"))
        if re.fullmatch(r"[a-zA-Z]\w+", given) and argument.startswith("-"):
            for name in names:
                if name.startswith(f"--{given}"):
                    ctx.fail(f"{argument} has a single dash. Did you mean {name}?")


def _spellings(option: Any) -> str:
    return " / ".join([*option.opts, *option.secondary_opts])
