"""What convkit knows of models without loading them: tokens of a row from its text and its images' sizes.

Nothing here imports torch or transformers; the tests compare every family with its real processor.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import lru_cache
from importlib import import_module
from pathlib import Path

from convkit.errors import ConvkitError, MissingExtra
from convkit.profiles.base import ImageSize, TokenCount, TokenCounter, TokenProfile, UnsupportedShape
from convkit.schema import Row

__all__ = [
    "PROFILES",
    "ImageSize",
    "TargetModel",
    "TokenCount",
    "TokenCounter",
    "TokenProfile",
    "UnsupportedShape",
    "canonical_name",
    "get_profile",
    "load_tokenizer",
]

PROFILES = {
    "phi-3.5-vision": "convkit.profiles.phi3:Phi35Vision",
    "phi-3-vision": "convkit.profiles.phi3:Phi3Vision",
    "qwen2-vl": "convkit.profiles.qwen:Qwen2VL",
    "qwen2.5-vl": "convkit.profiles.qwen:Qwen25VL",
    "qwen3-vl": "convkit.profiles.qwen:Qwen3VL",
    "smolvlm": "convkit.profiles.idefics3:SmolVLM",
    "idefics3": "convkit.profiles.idefics3:Idefics3",
    "llava-1.5": "convkit.profiles.llava:Llava15",
    "llava-next": "convkit.profiles.llava:LlavaNext",
    "llava-onevision": "convkit.profiles.llava:LlavaOnevision",
    "internvl3": "convkit.profiles.internvl:InternVL",
    "gemma-3": "convkit.profiles.gemma:Gemma3",
    "paligemma": "convkit.profiles.gemma:PaliGemma",
    "pixtral": "convkit.profiles.pixtral:Pixtral",
    "mistral-3": "convkit.profiles.pixtral:Mistral3",
}
_DIGITS = 8
"""Of an option's value: a number of tiles or pixels, which is counted up to."""


def get_profile(spec: str) -> TokenProfile:
    """The profile of a name, with options after a colon: `phi-3.5-vision:num_crops=16`.

    Raises:
        ConvkitError: the name or an option is unknown, or a value is not a number of one or more; the message lists
            what there is.
    """
    name, _, options = spec.partition(":")
    if name not in PROFILES:
        near = "".join(f"Did you mean {meant!r}? " for meant in get_close_matches(name.lower(), PROFILES, 1))
        raise ConvkitError(f"There is no model profile {name!r}. {near}Choose one of: {', '.join(PROFILES)}.")
    module, cls = PROFILES[name].split(":")
    profile: type[TokenProfile] = getattr(import_module(module), cls)
    known = [field.name for field in fields(profile)]
    values = {}
    for option in filter(None, options.split(",")):
        key, _, value = option.partition("=")
        if key not in known:
            raise ConvkitError(f"The profile {name} has no option {key!r}. Choose one of: {', '.join(known)}.")
        if not (value.isascii() and value.isdigit() and int(value[:_DIGITS])):
            raise ConvkitError(f"{key} must be a whole number of 1 or more, not {value!r}. Write: {name}:{key}=16")
        if len(value) > _DIGITS:
            raise ConvkitError(f"{key} must be at most {'9' * _DIGITS}, not {value[:20]}.")
        values[key] = int(value)
    return profile(**values)


def canonical_name(spec: str) -> str:
    """The one way to spell a profile: options in its own order, and only those that are not what they are anyway.

    Raises:
        ConvkitError: see `get_profile`.
    """
    name = spec.partition(":")[0]
    usual, profile = get_profile(name), get_profile(spec)
    values = {field.name: getattr(profile, field.name) for field in fields(profile)}
    changed = [f"{option}={value}" for option, value in values.items() if value != getattr(usual, option)]
    return f"{name}:{','.join(changed)}" if changed else name


@lru_cache
def load_tokenizer(path: Path) -> TokenCounter:
    """TokenCount with a model's own tokenizer.json; nothing is fetched and nothing in it is run.

    Raises:
        ConvkitError: the file is missing or is not a tokenizer.
        MissingExtra: the package tokenizers is not installed.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise MissingExtra("tokenizers", "tokens", "An exact count of text") from None
    if not path.is_file():
        raise ConvkitError(f"{path} does not exist or is not a file. Give the model's tokenizer.json.")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise ConvkitError(
            f"{path} is not a tokenizer.json: {error}. Give the file of that name of the model."
        ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return _FileTokenCounter(path, lambda text: len(tokenizer.encode(text, add_special_tokens=False)))


@dataclass(frozen=True)
class _FileTokenCounter:
    """Goes to workers by its file, which each of them reads once."""

    path: Path
    count: TokenCounter

    def __call__(self, text: str) -> int:
        return self.count(text)

    def __reduce__(self) -> tuple[Callable[[Path], TokenCounter], tuple[Path]]:
        return load_tokenizer, (self.path,)


@dataclass(frozen=True)
class TargetModel:
    """The model that rows are meant for."""

    profile: TokenProfile
    tokenizer: TokenCounter | None = None
    """Its tokenizer; without it, text is estimated."""
    max_length: int | None = None
    """The longest row in tokens that training takes."""
    spec: str = ""
    """The profile's name and options, see `canonical_name`: a receipt is for it."""

    @classmethod
    def from_options(cls, spec: str, tokenizer: Path | None = None, max_length: int | None = None) -> "TargetModel":
        """What the command line says, looked up.

        Raises:
            ConvkitError: there is no such profile, option or tokenizer.
        """
        return cls(
            get_profile(spec), load_tokenizer(tokenizer) if tokenizer else None, max_length, canonical_name(spec)
        )

    def options(self) -> dict[str, int | bool | None]:
        """What has a bearing on the findings, beside the profile."""
        return {"max_length": self.max_length, "exact": self.tokenizer is not None}

    def count(self, row: Row, sizes: Sequence[ImageSize]) -> TokenCount:
        """`TokenProfile.row_tokens` with this tokenizer."""
        return self.profile.row_tokens(row, sizes, self.tokenizer)
