"""CK2xx: the image files that rows reference."""

from collections.abc import Iterable, Iterator
from posixpath import splitext
from typing import TYPE_CHECKING

from convkit.findings import Finding, Severity
from convkit.rules.base import Check, DatasetFiles, ImageRef, Location, Problem, Rule
from convkit.rules.lookup import image_paths, sound_rows
from convkit.utils.digests import digest

if TYPE_CHECKING:
    from convkit.media.images import ImageInfo

MISSING_IMAGE = Rule(
    code="CK201",
    slug="missing-image",
    severity=Severity.ERROR,
    summary="image paths that do not exist",
    why="Training stops at this row, possibly hours into a run, or uses the row without its image.",
    fix="Restore the file in images/, or convert the source again.",
)
UNSAFE_PATH = Rule(
    code="CK202",
    slug="unsafe-path",
    severity=Severity.ERROR,
    summary="image paths that are absolute, leave images/, are URLs or are not portable",
    why="A dataset from an untrusted source could read any file on your machine. Paths with backslashes or drive "
    "letters work on one operating system only.",
    fix="Copy the file into images/ and write its path relative to that folder, with `/` as separator.",
)
OUTSIDE_IMAGES = Rule(
    code="CK203",
    slug="outside-images",
    severity=Severity.ERROR,
    summary="images that are symbolic links to files outside images/",
    why="The image is lost when the dataset is copied or uploaded. A link in an untrusted dataset could point to any "
    "file on your machine.",
    fix="Replace the link with a copy of the file.",
)
UNDECODABLE_IMAGE = Rule(
    code="CK204",
    slug="undecodable-image",
    severity=Severity.ERROR,
    summary="images that cannot be decoded completely",
    why="Training stops at this image. Most are truncated files: their header is valid, so only a full decode finds "
    "them.",
    fix="Restore the file from its source. Supported formats are JPEG, PNG, WebP, GIF, BMP and TIFF.",
)
PIXEL_BOMB = Rule(
    code="CK205",
    slug="pixel-bomb",
    severity=Severity.ERROR,
    summary="images that declare more than 178,956,970 pixels (decompression bombs)",
    why="A file of a few bytes can ask for more memory than the machine has. One such row ends a run on all GPUs.",
    fix="Downscale the image.",
)
EMPTY_IMAGE = Rule(
    code="CK206",
    slug="empty-image",
    severity=Severity.ERROR,
    summary="image files of zero bytes",
    why="An interrupted download or copy leaves such files. Training stops at this image.",
    fix="Restore the file from its source.",
)
NOT_A_FILE = Rule(
    code="CK207",
    slug="not-a-file",
    severity=Severity.ERROR,
    summary="image paths that lead to a folder, a device or a pipe",
    why="It cannot be decoded, and reading from a pipe or a device may never end.",
    fix="Use the path of the image file itself.",
)


def unsafe_path(quoted: str) -> str:
    """Return the message of CK202."""
    return f"{quoted} is not a portable path relative to images/"


def image_problem(slug: str, message: str, pointer: str) -> Problem:
    """Convert a problem from `convkit.media.images`, which knows rules by slug only."""
    return Problem(_BY_SLUG[slug], message, pointer)


ORIENTATION_PENDING = Rule(
    code="CK208",
    slug="orientation-pending",
    severity=Severity.WARNING,
    summary="images with an EXIF orientation other than upright",
    why="Some loaders apply the orientation and others do not. The model may see the image rotated in training, but "
    "upright later.",
    fix="Rotate the pixels and remove the tag, as `convkit convert` and `PIL.ImageOps.exif_transpose` do.",
)
CMYK_IMAGE = Rule(
    code="CK209",
    slug="cmyk-image",
    severity=Severity.WARNING,
    summary="images in CMYK colour",
    why="The RGB colours depend on an ICC profile that most loaders ignore, so the model sees wrong colours. Without "
    "a conversion the image processor gets four channels and fails.",
    fix="Convert the image to RGB.",
)
WIDE_IMAGE = Rule(
    code="CK210",
    slug="wide-image",
    severity=Severity.ERROR,
    summary="greyscale images with 16-bit, 32-bit or float pixels",
    why="Conversion to RGB clips values above 255 instead of scaling them. Usually the model silently gets a white "
    "image.",
    fix="Scale the image to 8 bits, as `convkit convert` does.",
)
TRANSPARENT_IMAGE = Rule(
    code="CK211",
    slug="transparent-image",
    severity=Severity.WARNING,
    summary="images with transparency or an alpha channel",
    why="Conversion to RGB drops the alpha channel and shows the hidden colours, often black text on black.",
    fix="Flatten the image onto a background of your choice; `convkit convert` uses white.",
)
PALETTE_IMAGE = Rule(
    code="CK212",
    slug="palette-image",
    severity=Severity.WARNING,
    summary="images with a colour palette",
    why="Without a conversion to RGB, a loader treats palette indices as grey levels.",
    fix="Convert the image to RGB.",
)
UNUSUAL_MODE = Rule(
    code="CK213",
    slug="unusual-mode",
    severity=Severity.WARNING,
    summary="images in an unusual pixel mode, such as 1-bit or LAB",
    why="Without a conversion to RGB, a loader misreads the values. In a 1-bit image, both 0 and 1 look black.",
    fix="Convert the image to RGB.",
)
ANIMATED_IMAGE = Rule(
    code="CK214",
    slug="animated-image",
    severity=Severity.WARNING,
    summary="image files with more than one frame or page",
    why="Models see only the first frame. Questions about the others cannot be answered.",
    fix="Store the intended frame only, or store each frame as a separate image of the row.",
)
WRONG_EXTENSION = Rule(
    code="CK215",
    slug="wrong-extension",
    severity=Severity.WARNING,
    summary="image files whose extension does not match their format",
    why="Loaders and viewers that trust the extension fail. It may also be the wrong file.",
    fix="Rename the file, and update its path in all rows.",
)
EXTREME_ASPECT_RATIO = Rule(
    code="CK216",
    slug="extreme-aspect-ratio",
    severity=Severity.WARNING,
    summary="images with an aspect ratio above 20:1",
    why="Resized to a square, the image is unreadable; split into tiles, it takes many tokens for little content. "
    "Some image processors reject it in the middle of a run.",
    fix="Crop the image into pieces, or remove it. Usually it is a ruler or a separator from a web page.",
)
TINY_IMAGE = Rule(
    code="CK217",
    slug="tiny-image",
    severity=Severity.WARNING,
    summary="images with a side shorter than 8 pixels",
    why="The image is smaller than one patch of a vision encoder. Some image processors reject it, or mistake a side "
    "of 1 or 3 pixels for the colour channels.",
    fix="Remove the image. Usually it is a tracking pixel or the result of a bad crop.",
)
MAX_ASPECT_RATIO = 20
MIN_SIDE = 8
_PLAIN_MODES = ("RGB", "L", "RGBA", "LA")
_MODES = {"CMYK": CMYK_IMAGE, "I": WIDE_IMAGE, "F": WIDE_IMAGE, "P": PALETTE_IMAGE, "PA": PALETTE_IMAGE}
_EXTENSIONS = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    ".png": "PNG",
    ".webp": "WEBP",
    ".gif": "GIF",
    ".bmp": "BMP",
}
_SAME_FORMAT = {"MPO": "JPEG"}
"""A camera's MPO file is a JPEG followed by preview images."""


class ImageProperties(Check):
    """CK208 to CK217: the properties in an image's header."""

    def image(self, image_ref: ImageRef, image: "ImageInfo") -> Iterable[Problem]:
        """Yield the problems of an image's format, mode and size."""
        name = repr(image_ref.path)
        long, short = max(image.width, image.height), min(image.width, image.height)
        if image.orientation != 1:
            yield Problem(ORIENTATION_PENDING, f"{name} has EXIF orientation {image.orientation}; upright is 1")
        if image.mode not in _PLAIN_MODES:
            rule = _MODES.get(image.mode, WIDE_IMAGE if image.mode.startswith("I;16") else UNUSUAL_MODE)
            yield Problem(rule, f"{name} has pixel mode {image.mode}")
        if image.transparent:
            yield Problem(TRANSPARENT_IMAGE, f"{name} has transparency")
        if image.animated:
            yield Problem(ANIMATED_IMAGE, f"{name} is a {image.format} with several frames")
        stated = _EXTENSIONS.get(splitext(image_ref.path)[1].lower())
        if stated and stated != _SAME_FORMAT.get(image.format, image.format):
            yield Problem(WRONG_EXTENSION, f"{name} is a {image.format} file")
        if long > MAX_ASPECT_RATIO * short:
            yield Problem(EXTREME_ASPECT_RATIO, f"{name} has {_size(image)}")
        if short < MIN_SIDE:
            yield Problem(TINY_IMAGE, f"{name} has {_size(image)}")


def _size(image: "ImageInfo") -> str:
    return f"{image.width:,} x {image.height:,} pixels"


BLANK_IMAGE = Rule(
    code="CK218",
    slug="blank-image",
    severity=Severity.WARNING,
    summary="rows whose images are all blank (a single colour)",
    why="The images contain no information, so the model is trained to answer from the text alone. Usually the "
    "original image was lost.",
    fix="Restore the image, or remove the row.",
)


class BlankImages(Check):
    """CK218. A blank frame of a clip is normal, so the row that first uses the image is read again."""

    def __init__(self, dataset: DatasetFiles) -> None:
        super().__init__(dataset)
        self._blank: set[int] = set()
        self._lines: dict[int, set[int]] = {}

    def image(self, image_ref: ImageRef, image: "ImageInfo") -> Iterable[Problem]:
        """Store blank images and the lines of their rows."""
        if image.blank:
            self._blank.add(self._digest(image_ref.path))
            self._lines.setdefault(image_ref.file, set()).add(image_ref.line)
        return ()

    def end(self) -> Iterator[Finding]:
        """Yield a finding for each row whose images are all blank."""
        for number, lines in sorted(self._lines.items()):
            file = self.dataset.files[number]
            for line, row in sound_rows(file, lines):
                images = list(image_paths(row))
                if all(self._digest(path) in self._blank for path, _ in images):
                    path, pointer = images[0]
                    problem = Problem(BLANK_IMAGE, f"all pixels of {path!r} have the same colour", pointer)
                    yield Location(file.name, line, row.id).finding(problem)

    def _digest(self, path: str) -> int:
        return digest(path.encode(), self.dataset.key)


RULES = (
    MISSING_IMAGE,
    UNSAFE_PATH,
    OUTSIDE_IMAGES,
    UNDECODABLE_IMAGE,
    PIXEL_BOMB,
    EMPTY_IMAGE,
    NOT_A_FILE,
    ORIENTATION_PENDING,
    CMYK_IMAGE,
    WIDE_IMAGE,
    TRANSPARENT_IMAGE,
    PALETTE_IMAGE,
    UNUSUAL_MODE,
    ANIMATED_IMAGE,
    WRONG_EXTENSION,
    EXTREME_ASPECT_RATIO,
    TINY_IMAGE,
    BLANK_IMAGE,
)
_BY_SLUG = {rule.slug: rule for rule in RULES}
CHECKS: tuple[type[Check], ...] = (ImageProperties, BlankImages)
