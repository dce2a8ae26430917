"""CK2xx: the files that rows name."""

from convkit.findings import Severity
from convkit.rules.base import Problem, Rule

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
RULES = (
    MISSING_IMAGE,
    UNSAFE_PATH,
    OUTSIDE_IMAGES,
    UNDECODABLE_IMAGE,
    PIXEL_BOMB,
    EMPTY_IMAGE,
    NOT_A_FILE,
)
_BY_SLUG = {rule.slug: rule for rule in RULES}


def unsafe_path(quoted: str) -> str:
    """The message of CK202."""
    return f"{quoted} is not a plain path relative to images/"


def image_problem(slug: str, message: str, pointer: str) -> Problem:
    """The problem that `convkit.media.images` found, which knows rules by their slugs only."""
    return Problem(_BY_SLUG[slug], message, pointer)
