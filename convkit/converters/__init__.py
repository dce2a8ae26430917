"""The converters: a literal table, read without importing any of them.

Others come from installed packages, as entry points of the group `convkit.converters`: name -> `module:Class`.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from convkit.errors import ConvkitError

if TYPE_CHECKING:
    from convkit.converters.base import Converter

ENTRY_POINTS = "convkit.converters"


@dataclass(frozen=True)
class ConverterEntry:
    """A line of the table."""

    target: str
    """`module:Class`."""
    summary: str


CONVERTERS = {
    "cauldron": ConverterEntry(
        "convkit.converters.cauldron:Cauldron",
        "The Cauldron's sets, and other Parquet files of conversations.",
    ),
    "docvqa": ConverterEntry("convkit.converters.docvqa:DocVQA", "DocVQA: questions on scanned pages, as published."),
    "easy-vqa": ConverterEntry(
        "convkit.converters.easy_vqa:EasyVQA", "easy-VQA: questions on small pictures; no download."
    ),
    "hateful-memes": ConverterEntry(
        "convkit.converters.hateful_memes:HatefulMemes", "Hateful Memes: picture and text, labelled."
    ),
    "image-folder": ConverterEntry("convkit.converters.image_folder:ImageFolder", "Any folder of images by class."),
    "nlvr2": ConverterEntry("convkit.converters.nlvr2:NLVR2", "NLVR2: is a sentence true of a pair of photographs?"),
    "ucf101": ConverterEntry(
        "convkit.converters.ucf101:UCF101", "UCF-101 action clips: the release, or the subset on the hub."
    ),
    "video-folder": ConverterEntry("convkit.converters.video_folder:VideoFolder", "Any folder of videos by class."),
}


def available_converters() -> dict[str, ConverterEntry]:
    """convkit's own converters and those of installed packages, by name; convkit's own win."""
    from importlib.metadata import entry_points

    others = {
        point.name: ConverterEntry(
            point.value, f"from the package {point.dist.name}" if point.dist else "from a package"
        )
        for point in entry_points(group=ENTRY_POINTS)
    }
    return dict(sorted({**others, **CONVERTERS}.items()))


def load_converter(name: str) -> "type[Converter[Any]]":
    """The converter of a name.

    Raises:
        ConvkitError: there is none, or the package that offers it is broken.
    """
    entry = CONVERTERS.get(name) or available_converters().get(name)
    if entry is None:
        raise ConvkitError(
            f"there is no converter {name!r}. Known: {', '.join(available_converters())}. See: convkit convert --list"
        )
    module, _, attribute = entry.target.partition(":")
    try:
        found: type[Converter[Any]] = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConvkitError(
            f"the converter {name!r} ({entry.target}, {entry.summary}) does not load: {error}. "
            "Reinstall or remove the package that offers it."
        ) from error
    return found
