"""Folders of images by class: one row an image, its class as the answer."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from convkit.converters import class_folders, pictures
from convkit.converters.base import Converter, Exclude, Item, Record, Reject
from convkit.converters.class_folders import ClassOptions, Member
from convkit.converters.pictures import PictureOptions
from convkit.schema import Conversation, Turn

IMAGE_SUFFIXES = frozenset([".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"])


class ImageFolderOptions(PictureOptions, ClassOptions):
    """Options of `image-folder`."""

    name: str = Field("images", pattern=r"^[A-Za-z0-9_-]+$", description="Name of the data set in rows and file names.")


@dataclass(frozen=True)
class Image(Item):
    """One image and the row that it becomes."""

    size: int
    row_id: str
    split: str
    label: str
    stem: str
    """Its path in rows, without suffix, where names go by the source."""
    prompt: str


class ImageFolder(Converter[Image]):
    """`{train,val,test}/<Class>/<image>` or `<Class>/<image>`; equal files are one group, whatever their names.

    Where val is carved out of train, every file of train is read once more for its digest, while the source is
    listed: so no image of val is in train under another name. Otherwise listing reads no file.
    """

    name = "image-folder"
    unit = "image"
    version = 1
    Options = ImageFolderOptions
    suffixes = IMAGE_SUFFIXES
    options: ImageFolderOptions

    @property
    def dataset(self) -> str:
        """The name that the user gave."""
        return self.options.name

    def count(self) -> int:
        """From the listing alone: `items` may have to read the files."""
        entries = class_folders.members(self.root, IMAGE_SUFFIXES, "image")
        return sum(1 for _ in class_folders.choose_classes(entries, self.options.classes))

    def items(self) -> Iterator[Image | Reject | Exclude]:
        """Images in the order train, val, test, then by class and name."""
        entries = class_folders.members(self.root, IMAGE_SUFFIXES, "image")
        return class_folders.arrange(entries, self.options, self._group, _image)

    def _group(self, member: Member) -> str:
        try:
            return group_of(self.root / member.path)
        except OSError:  # it will be quarantined with this reason
            return f"{member.label}/{member.stem}"

    def convert(self, item: Image) -> Record:
        """Bring the image along; its suffix follows its content."""
        file = self.root / item.address
        picture = pictures.from_file(file, item.stem, self.options)
        turn = Turn(images=(picture.path,), user=item.prompt, assistant=item.label)
        row = Conversation(id=item.row_id, source=self.dataset, conversations=(turn,), group=group_of(file))
        return Record(item.split, (row,), {picture.path: picture.content}, notes=picture.notes)


def group_of(file: Path) -> str:
    """The group of an image: that of its bytes.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as opened:
        return f"image-{hashlib.file_digest(opened, 'sha256').hexdigest()[:16]}"


def _image(member: Member, number: int, prompt: str) -> Image:
    return Image(
        address=member.path,
        size=member.size,
        row_id=f"{member.split}-{number:010d}",
        split=member.split,
        label=member.label,
        stem=f"{member.split}/{member.label}/{member.stem}",
        prompt=prompt,
    )
