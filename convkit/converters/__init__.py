"""Register the built-in converters in a table that is read without importing them.

Installed packages add converters as entry points of the group `convkit.converters`: name -> `module:Class`.
"""

from dataclasses import dataclass
from importlib import import_module
from inspect import cleandoc
from typing import TYPE_CHECKING, Any

from convkit.errors import ConvkitError

if TYPE_CHECKING:
    from convkit.converters.base import Converter

ENTRY_POINTS = "convkit.converters"


@dataclass(frozen=True)
class ConverterEntry:
    """Describe one registered converter."""

    target: str
    """The converter class as `module:Class`."""
    summary: str
    layout: str = ""
    """The files that the source must contain."""


CONVERTERS = {
    "cauldron": ConverterEntry(
        "convkit.converters.cauldron:Cauldron",
        "The Cauldron, and other Parquet files of conversations about images.",
        "SOURCE contains *.parquet files with the columns images and texts (The Cauldron) or messages (TRL).",
    ),
    "docvqa": ConverterEntry(
        "convkit.converters.docvqa:DocVQA",
        "DocVQA: questions about scanned pages (official release or Hub).",
        "SOURCE contains {train,val,test}_v1.0_withQT.json and page images, or the *.parquet files of the Hub.",
    ),
    "easy-vqa": ConverterEntry(
        "convkit.converters.easy_vqa:EasyVQA", "easy-VQA: questions about small images; no download."
    ),
    "hateful-memes": ConverterEntry(
        "convkit.converters.hateful_memes:HatefulMemes",
        "Hateful Memes: classify memes by image and text.",
        "SOURCE contains train.jsonl, dev.jsonl and test.jsonl, or dev_seen.jsonl and so on, and the images.",
    ),
    "image-folder": ConverterEntry(
        "convkit.converters.image_folder:ImageFolder",
        "Image classification: any images in class folders.",
        "SOURCE contains CLASS/IMAGE or {train,val,test}/CLASS/IMAGE. The answer of a row is the name of the class.",
    ),
    "nlvr2": ConverterEntry(
        "convkit.converters.nlvr2:NLVR2",
        "NLVR2: is a sentence true of a pair of photographs?",
        "SOURCE contains train.json, dev.json, test1.json or test2.json, and the images in any folders.",
    ),
    "ucf101": ConverterEntry(
        "convkit.converters.ucf101:UCF101",
        "UCF-101 action clips: the official release, or the subset on the Hub.",
        "SOURCE contains {train,val,test}/CLASS/*.avi, or CLASS/*.avi and the folder ucfTrainTestlist.",
    ),
    "video-folder": ConverterEntry(
        "convkit.converters.video_folder:VideoFolder",
        "Video classification: any videos in class folders.",
        "SOURCE contains CLASS/VIDEO or {train,val,test}/CLASS/VIDEO. The answer of a row is the name of the class.",
    ),
}


def available_converters() -> dict[str, ConverterEntry]:
    """Return built-in and installed converters by name; built-in names take precedence."""
    from importlib.metadata import entry_points

    others = {
        point.name: ConverterEntry(
            point.value, f"from the package {point.dist.name}" if point.dist else "from a package"
        )
        for point in entry_points(group=ENTRY_POINTS)
    }
    return dict(sorted({**others, **CONVERTERS}.items()))


def describe_converter(name: str) -> str:
    """Return the help of a converter: its summary and layout, or the docstring of one that an installed package adds.

    Raises:
        ConvkitError: no such converter exists, or its package is broken.
    """
    if name in CONVERTERS:
        return "\n\n".join(filter(None, [CONVERTERS[name].summary, CONVERTERS[name].layout]))
    origin = available_converters()[name].summary
    docstring = cleandoc(load_converter(name).__doc__ or "")
    return f"{docstring}\n\nThis converter is {origin}." if docstring else origin


def load_converter(name: str) -> "type[Converter[Any]]":
    """Import and return the converter class registered under a name.

    Raises:
        ConvkitError: no such converter exists, or its package is broken.
    """
    entry = CONVERTERS.get(name) or available_converters().get(name)
    if entry is None:
        from difflib import get_close_matches

        known = available_converters()
        near = "".join(f"Did you mean {match}? " for match in get_close_matches(name, known, 1))
        raise ConvkitError(f"unknown converter {name!r}. {near}Known: {', '.join(known)}. See: convkit convert --list")
    module, _, attribute = entry.target.partition(":")
    try:
        found: type[Converter[Any]] = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConvkitError(
            f"the converter {name!r} ({entry.target}, {entry.summary}) does not load: {error}. "
            "Reinstall or remove the package that offers it."
        ) from error
    return found
