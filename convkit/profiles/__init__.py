"""Token profiles: count the tokens of a row for a model, from its text and image sizes, without loading the model.

Nothing here imports torch or transformers. The tests compare every profile with its model's processor.
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
"""Most digits of an option's value, since loops may run up to it."""


def get_profile(spec: str) -> TokenProfile:
    """Return the profile for a name with options, such as `phi-3.5-vision:num_crops=16`.

    Raises:
        ConvkitError: the name or an option is unknown, or a value is not a positive integer; the message lists the
            choices.
    """
    name, _, options = spec.partition(":")
    if name not in PROFILES:
        near = "".join(f"Did you mean {match!r}? " for match in get_close_matches(name.lower(), PROFILES, 1))
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
    """Return the canonical spelling of a profile: options in field order, without defaults.

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
    """Return a token counter from a model's tokenizer.json, without downloads or code execution.

    Raises:
        ConvkitError: the file is missing or is not a tokenizer.
        MissingExtra: the package tokenizers is not installed.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise MissingExtra("tokenizers", "tokens", "Counting text tokens exactly") from None
    if not path.is_file():
        raise ConvkitError(f"{path} does not exist or is not a file. Give the model's tokenizer.json.")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise ConvkitError(f"{path} is not a valid tokenizer.json: {error}. Give the model's tokenizer.json.") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return _FileTokenCounter(path, lambda text: len(tokenizer.encode(text, add_special_tokens=False)))


@dataclass(frozen=True)
class _FileTokenCounter:
    """A token counter that is pickled as its file path; each worker loads the file once."""

    path: Path
    count: TokenCounter

    def __call__(self, text: str) -> int:
        return self.count(text)

    def __reduce__(self) -> tuple[Callable[[Path], TokenCounter], tuple[Path]]:
        return load_tokenizer, (self.path,)


@dataclass(frozen=True)
class TargetModel:
    """The model that tokens are counted for."""

    profile: TokenProfile
    tokenizer: TokenCounter | None = None
    """The model's tokenizer; None estimates text tokens."""
    max_length: int | None = None
    """The most tokens of a row in training."""
    spec: str = ""
    """The canonical name of the profile with its options, which the receipt records."""

    @classmethod
    def from_options(cls, spec: str, tokenizer: Path | None = None, max_length: int | None = None) -> "TargetModel":
        """Return the target model for command-line options.

        Raises:
            ConvkitError: there is no such profile, option or tokenizer.
        """
        return cls(
            get_profile(spec), load_tokenizer(tokenizer) if tokenizer else None, max_length, canonical_name(spec)
        )

    def options(self) -> dict[str, int | bool | None]:
        """Return the options that affect findings, in addition to the profile."""
        return {"max_length": self.max_length, "exact": self.tokenizer is not None}

    def count(self, row: Row, sizes: Sequence[ImageSize]) -> TokenCount:
        """Count the tokens of a row with this tokenizer, see `TokenProfile.row_tokens`."""
        return self.profile.row_tokens(row, sizes, self.tokenizer)
