"""Folders of images by class: one row an image, its class as the answer."""

import itertools
from collections.abc import Iterator

from convkit.converters import class_folders, pictures
from convkit.converters.base import Converter, Exclude, Record, Reject
from convkit.converters.class_folders import Classed, ClassOptions, DatasetName, Entry, Member
from convkit.converters.pictures import IMAGE_SUFFIXES, PictureOptions
from convkit.schema import Row, Turn
from convkit.utils.progress import Progress, ignore_progress


class ImageFolderOptions(PictureOptions, ClassOptions):
    """Options of `image-folder`."""

    name: DatasetName = "images"


class ImageFolder(Converter[Classed]):
    """`{train,val,test}/<Class>/<image>` or `<Class>/<image>`; equal files are one group, whatever their names.

    Where val is carved out of train, every file of train is read once more for its digest, while the source is
    listed: so no image of val is in train under another name. Otherwise listing reads no file.
    """

    name = "image-folder"
    unit = "image"
    version = 3
    Options = ImageFolderOptions
    suffixes = IMAGE_SUFFIXES
    imports = pictures.IMPORTS
    options: ImageFolderOptions

    @property
    def dataset_name(self) -> str:
        """The name that the user gave."""
        return self.options.name

    def count(self) -> int:
        """From the listing alone: `items` may have to read the files."""
        return class_folders.count(self._members())

    def items(self) -> Iterator[Classed | Reject | Exclude]:
        """Images in the order train, val, test, then by class and name."""
        return self.iter_with_progress(ignore_progress)

    def iter_with_progress(self, progress: Progress) -> Iterator[Classed | Reject | Exclude]:
        """The same."""
        number = itertools.count(1)

        def group(member: Member) -> str:
            progress(next(number), None)
            return self._group(member)

        return class_folders.arrange(self._members(), self.options, group)

    def _members(self) -> Iterator[Entry]:
        return class_folders.members(self.root, IMAGE_SUFFIXES, "image")

    def _group(self, member: Member) -> str:
        try:
            return self._content_group(member)
        except OSError:  # it will be quarantined with this reason
            return f"{member.label}/{member.stem}"

    def _content_group(self, member: Member) -> str:
        return pictures.group_of(pictures.digest_of(self.root / member.path))

    def convert(self, item: Classed) -> Record:
        """Bring the image along; its suffix follows its content."""
        member = item.member
        picture = pictures.from_file(self.root / member.path, member.name, self.options)
        turn = Turn(images=(picture.path,), user=item.prompt, assistant=member.label)
        row = Row(id=item.row_id, source=self.dataset_name, conversations=(turn,), group=self._content_group(member))
        return Record(member.split, (row,), {picture.path: picture.content}, notes=picture.notes)
