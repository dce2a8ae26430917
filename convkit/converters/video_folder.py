"""Convert video classification folders: one row per clip, with sampled frames as images and the class as the answer."""

from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from convkit.converters import class_folders, class_items
from convkit.converters.base import Converter, Exclude, Record, Reject
from convkit.converters.class_folders import FolderEntry, Member
from convkit.converters.class_items import Classed, ClassOptions, DatasetName
from convkit.media.frames import sample_frames
from convkit.schema import Row, Turn

if TYPE_CHECKING:
    from cv2.typing import MatLike

VIDEO_SUFFIXES = frozenset(
    [".avi", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ogv", ".ts"]
)


class VideoOptions(ClassOptions):
    """Options shared by all converters of video class folders."""

    num_frames: int = Field(8, ge=1, le=1024, description="Frames per clip, evenly spaced; short clips repeat frames.")
    prompt: str = Field(
        "Classify the video into one of the following classes: {classes}.",
        pattern=r"\{classes\}",
        description="User prompt; {classes} is replaced by the sorted class names.",
    )
    jpeg_quality: int = Field(90, ge=1, le=100, description="JPEG quality of the frames.")
    max_side: int | None = Field(
        None, ge=16, description="Scale larger frames down to this maximum width and height in pixels."
    )
    allow_truncated: bool = Field(False, description="Use damaged or truncated clips as far as they decode.")


class VideoFolderOptions(VideoOptions):
    """Options of the `video-folder` converter."""

    name: DatasetName = "videos"


class VideoFolder(Converter[Classed]):
    """Convert `{train,val,test}/<Class>/<clip>` or `<Class>/<clip>`; each clip is its own group."""

    name = "video-folder"
    unit = "clip"
    version = 2
    Options: ClassVar[type[VideoOptions]] = VideoFolderOptions
    suffixes = VIDEO_SUFFIXES
    imports = ("cv2",)
    options: VideoOptions

    @property
    def dataset_name(self) -> str:
        """The dataset name given by the user."""
        return self.options.name if isinstance(self.options, VideoFolderOptions) else self.name

    def count(self) -> int:
        """Return the number of clips; listing is cheap compared with decoding."""
        return class_items.count_files(self.members())

    def group(self, member: Member) -> str:
        """Return the group that splits keep together: clips with one name may be the same film in two formats."""
        return f"{member.label}/{PurePosixPath(member.path).stem}"

    def members(self) -> Iterator[FolderEntry]:
        """Yield the source's clips with their splits."""
        return class_folders.list_members(self.root, VIDEO_SUFFIXES, "video")

    def items(self) -> Iterator[Classed | Reject | Exclude]:
        """Yield clips in the order train, val, test, then by class and name."""
        return class_items.make_items(self.members(), self.options, self.group)

    def convert(self, item: Classed) -> Record:
        """Sample the clip's frames and store them as JPEG files named `<clip>.<k>.jpg`."""
        options, member = self.options, item.member
        encode = _jpeg_encoder(options.jpeg_quality, options.max_side)
        frames = sample_frames(
            self.root / member.path, options.num_frames, encode, allow_truncated=options.allow_truncated
        )
        media = {f"{member.name}.{k}.jpg": frame for k, frame in enumerate(frames)}
        turn = Turn(images=tuple(media), user=item.prompt, assistant=member.label)
        row = Row(id=item.row_id, source=self.dataset_name, conversations=(turn,), group=self.group(member))
        return Record(member.split, (row,), media)


def _jpeg_encoder(quality: int, max_side: int | None) -> "Callable[[MatLike], bytes]":
    import cv2

    def encode(frame: "MatLike") -> bytes:
        height, width = frame.shape[:2]
        if max_side and max(height, width) > max_side:
            scale = max_side / max(height, width)
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        _, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])
        return data.tobytes()

    return encode
