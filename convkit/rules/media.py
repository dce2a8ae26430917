"""CK2xx: the files that rows name."""

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
    summary="A row names an image that does not exist.",
    why="Training stops at this row, which may be hours in, or trains on a row whose picture is not there.",
    fix="Restore the file under images/, or convert the source again.",
)
UNSAFE_PATH = Rule(
    code="CK202",
    slug="unsafe-path",
    severity=Severity.ERROR,
    summary="An image path is absolute, leaves images/, is a URL, or is not written the portable way.",
    why="A data set from somebody else could name any file of the machine that reads it, and a path with a backslash "
    "or a drive letter exists on one system only.",
    fix="Copy the file into images/ and write its path relative to that folder, with / between the parts.",
)
OUTSIDE_IMAGES = Rule(
    code="CK203",
    slug="outside-images",
    severity=Severity.ERROR,
    summary="An image is a symbolic link that leaves images/.",
    why="The data set is not complete in itself: copied or uploaded, it lacks the file; and a link in a data set from "
    "somebody else could point to any file of the machine that reads it.",
    fix="Replace the link by a copy of the file.",
)
UNDECODABLE_IMAGE = Rule(
    code="CK204",
    slug="undecodable-image",
    severity=Severity.ERROR,
    summary="An image cannot be decoded to its end.",
    why="Training stops when it comes to this image. Truncated files are the common case: their header is sound, so "
    "only a full decode finds them.",
    fix="Restore the file from its source; accepted are JPEG, PNG, WebP, GIF, BMP and TIFF.",
)
PIXEL_BOMB = Rule(
    code="CK205",
    slug="pixel-bomb",
    severity=Severity.ERROR,
    summary="An image has more than 178,956,970 pixels by its header.",
    why="A file of a few bytes can ask for more memory than the machine has; one such row ends a run on all its GPUs.",
    fix="Scale the image down.",
)
EMPTY_IMAGE = Rule(
    code="CK206",
    slug="empty-image",
    severity=Severity.ERROR,
    summary="An image file has no bytes.",
    why="It is what a download or a copy leaves behind that failed; training stops when it comes to it.",
    fix="Restore the file from its source.",
)
NOT_A_FILE = Rule(
    code="CK207",
    slug="not-a-file",
    severity=Severity.ERROR,
    summary="An image path leads to a folder, a device or a pipe.",
    why="It cannot be decoded, and reading from a pipe or a device may never end.",
    fix="Name the image file itself.",
)
ORIENTATION_PENDING = Rule(
    code="CK208",
    slug="orientation-pending",
    severity=Severity.WARNING,
    summary="An image is stored on its side or mirrored, and its EXIF data say how to turn it.",
    why="Some loaders turn it and others do not, so the model may see it lying in training and upright later.",
    fix="Turn the pixels and drop the tag: `convkit convert` does, or PIL.ImageOps.exif_transpose.",
)
CMYK_IMAGE = Rule(
    code="CK209",
    slug="cmyk-image",
    severity=Severity.WARNING,
    summary="An image is stored in the four inks of print.",
    why="Its colours in RGB depend on an ink profile that loaders pass over, so they are not those that people see; "
    "a loader that does not convert hands on four channels, and the processor stops.",
    fix="Convert the image to RGB.",
)
WIDE_IMAGE = Rule(
    code="CK210",
    slug="wide-image",
    severity=Severity.ERROR,
    summary="The grey levels of an image are 16-bit, 32-bit or floats.",
    why="Converting it to RGB cuts off all above 255 instead of scaling: mostly the model is shown a white picture, "
    "and nobody is told.",
    fix="Scale the image to 8 bits: `convkit convert` does.",
)
TRANSPARENT_IMAGE = Rule(
    code="CK211",
    slug="transparent-image",
    severity=Severity.WARNING,
    summary="An image has transparent parts, or a channel for them.",
    why="Converting it to RGB drops the transparency and shows whatever colour lies below, often black under black "
    "text.",
    fix="Flatten the image on a ground of your choice: `convkit convert` takes white.",
)
PALETTE_IMAGE = Rule(
    code="CK212",
    slug="palette-image",
    severity=Severity.WARNING,
    summary="The pixels of an image are numbers in a table of colours.",
    why="A loader that does not convert to RGB takes these numbers for grey levels.",
    fix="Convert the image to RGB.",
)
UNUSUAL_MODE = Rule(
    code="CK213",
    slug="unusual-mode",
    severity=Severity.WARNING,
    summary="The pixels of an image are neither RGB nor grey, such as black and white in one bit, or LAB.",
    why="A loader that does not convert to RGB hands on values that mean something else: 0 and 1 are both black.",
    fix="Convert the image to RGB.",
)
ANIMATED_IMAGE = Rule(
    code="CK214",
    slug="animated-image",
    severity=Severity.WARNING,
    summary="An image file holds more than one frame or page.",
    why="Models are shown the first one only. What is asked about the others cannot be answered.",
    fix="Store the frame that is meant; or each as an image of its own, all named by the row.",
)
WRONG_EXTENSION = Rule(
    code="CK215",
    slug="wrong-extension",
    severity=Severity.WARNING,
    summary="The ending of an image's name is that of another format than the file has.",
    why="Loaders and viewers that go by the name fail; and the file may not be the one that was meant.",
    fix="Rename the file, here and in its rows.",
)
EXTREME_ASPECT_RATIO = Rule(
    code="CK216",
    slug="extreme-aspect-ratio",
    severity=Severity.WARNING,
    summary="An image is more than 20 times as long as it is wide, or the other way round.",
    why="Squeezed into a square it is unreadable; cut into tiles it takes more tokens than it shows; and some "
    "processors refuse it in the middle of a run.",
    fix="Cut the image into pieces, or remove it; mostly it is a ruler or a separator of a web page.",
)
TINY_IMAGE = Rule(
    code="CK217",
    slug="tiny-image",
    severity=Severity.WARNING,
    summary="A side of an image has fewer than 8 pixels.",
    why="It is less than one patch of a vision model, so there is nothing to see; some processors refuse it, and one "
    "with a side of 1 or 3 pixels is taken for channels.",
    fix="Remove the image; mostly it is a tracking pixel, or the remains of a picture that was cut out wrongly.",
)
BLANK_IMAGE = Rule(
    code="CK218",
    slug="blank-image",
    severity=Severity.WARNING,
    summary="All pixels of an image are equal, and the row shows nothing else.",
    why="There is nothing to see: the model is trained to answer from the text alone. Mostly the picture was lost.",
    fix="Restore the picture, or remove the row.",
)
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
"""A camera's MPO is a JPEG with previews behind it."""
_BY_SLUG = {rule.slug: rule for rule in RULES}


def unsafe_path(quoted: str) -> str:
    """The message of CK202."""
    return f"{quoted} is not a plain path relative to images/"


def image_problem(slug: str, message: str, pointer: str) -> Problem:
    """The problem that `convkit.media.images` found, which knows rules by their slugs only."""
    return Problem(_BY_SLUG[slug], message, pointer)


class StoredOtherwise(Check):
    """CK208 to CK217: what the header says."""

    def image(self, image_ref: ImageRef, image: "ImageInfo") -> Iterable[Problem]:
        """Judge how an image is stored."""
        name = repr(image_ref.path)
        long, short = max(image.width, image.height), min(image.width, image.height)
        if image.orientation != 1:
            yield Problem(ORIENTATION_PENDING, f"{name} has the EXIF orientation {image.orientation}, upright is 1")
        if image.mode not in _PLAIN_MODES:
            rule = _MODES.get(image.mode, WIDE_IMAGE if image.mode.startswith("I;16") else UNUSUAL_MODE)
            yield Problem(rule, f"{name} has pixels of the kind {image.mode}")
        if image.transparent:
            yield Problem(TRANSPARENT_IMAGE, f"{name} has transparency")
        if image.animated:
            yield Problem(ANIMATED_IMAGE, f"{name} is a {image.format} of several frames")
        stated = _EXTENSIONS.get(splitext(image_ref.path)[1].lower())
        if stated and stated != _SAME_FORMAT.get(image.format, image.format):
            yield Problem(WRONG_EXTENSION, f"{name} is a {image.format}")
        if long > MAX_ASPECT_RATIO * short:
            yield Problem(EXTREME_ASPECT_RATIO, f"{name} has {_size(image)}")
        if short < MIN_SIDE:
            yield Problem(TINY_IMAGE, f"{name} has {_size(image)}")


def _size(image: "ImageInfo") -> str:
    return f"{image.width:,} x {image.height:,} pixels"


class BlankImages(Check):
    """CK218. A dark frame of a clip is no mistake: the row that first names the image is read again."""

    def __init__(self, dataset: DatasetFiles) -> None:
        super().__init__(dataset)
        self._blank: set[int] = set()
        self._lines: dict[int, set[int]] = {}

    def image(self, image_ref: ImageRef, image: "ImageInfo") -> Iterable[Problem]:
        """Keep what is blank."""
        if image.blank:
            self._blank.add(self._digest(image_ref.path))
            self._lines.setdefault(image_ref.file, set()).add(image_ref.line)
        return ()

    def end(self) -> Iterator[Finding]:
        """Name the rows that show nothing else."""
        for number, lines in sorted(self._lines.items()):
            file = self.dataset.files[number]
            for line, row in sound_rows(file, lines):
                named = list(image_paths(row))
                if all(self._digest(path) in self._blank for path, _ in named):
                    path, pointer = named[0]
                    problem = Problem(BLANK_IMAGE, f"all pixels of {path!r} are equal", pointer)
                    yield Location(file.name, line, row.id).finding(problem)

    def _digest(self, path: str) -> int:
        return digest(path.encode(), self.dataset.key)


CHECKS: tuple[type[Check], ...] = (StoredOtherwise, BlankImages)
