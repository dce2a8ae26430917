"""Convert image classification folders: one row per image, with the class as the answer."""

import itertools
from collections.abc import Iterator

from convkit.converters import class_folders, class_items, image_store
from convkit.converters.base import Converter, Exclude, Record, Reject
from convkit.converters.class_folders import FolderEntry, Member
from convkit.converters.class_items import Classed, ClassOptions, DatasetName
from convkit.converters.image_store import IMAGE_SUFFIXES, ImageOptions
from convkit.schema import Row, Turn
from convkit.utils.progress import Progress, ignore_progress


class ImageFolderOptions(ImageOptions, ClassOptions):
    """Options of the `image-folder` converter."""

    name: DatasetName = "images"


class ImageFolder(Converter[Classed]):
    """Convert `{train,val,test}/<Class>/<image>` or `<Class>/<image>`; files with equal bytes form one group.

    If val is split off from train, every file of train is hashed while the source is listed. This prevents data leakage
    through copies under other names. Otherwise, listing reads no file.
    """

    name = "image-folder"
    unit = "image"
    version = 3
    Options = ImageFolderOptions
    suffixes = IMAGE_SUFFIXES
    imports = image_store.WORKER_IMPORTS
    options: ImageFolderOptions

    @property
    def dataset_name(self) -> str:
        """The dataset name given by the user."""
        return self.options.name

    def count(self) -> int:
        """Return the number of images from the listing alone, since `items` may read the files."""
        return class_items.count_files(self._members())

    def items(self) -> Iterator[Classed | Reject | Exclude]:
        """Yield images in the order train, val, test, then by class and name."""
        return self.iter_with_progress(ignore_progress)

    def iter_with_progress(self, progress: Progress) -> Iterator[Classed | Reject | Exclude]:
        """Yield `items` and report progress while files are hashed."""
        number = itertools.count(1)

        def group(member: Member) -> str:
            progress(next(number), None)
            return self._group(member)

        return class_items.make_items(self._members(), self.options, group)

    def _members(self) -> Iterator[FolderEntry]:
        return class_folders.list_members(self.root, IMAGE_SUFFIXES, "image")

    def _group(self, member: Member) -> str:
        try:
            return self._content_group(member)
        except OSError:  # the file will be quarantined with this reason
            return f"{member.label}/{member.stem}"

    def _content_group(self, member: Member) -> str:
        return image_store.image_group(image_store.image_digest(self.root / member.path))

    def convert(self, item: Classed) -> Record:
        """Store the image; its suffix follows its content."""
        member = item.member
        picture = image_store.store_file(self.root / member.path, member.name, self.options)
        turn = Turn(images=(picture.path,), user=item.prompt, assistant=member.label)
        row = Row(id=item.row_id, source=self.dataset_name, conversations=(turn,), group=self._content_group(member))
        return Record(member.split, (row,), {picture.path: picture.content}, notes=picture.notes)
