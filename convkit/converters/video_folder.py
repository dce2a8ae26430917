"""Folders of videos by class: one row a clip, its frames as images, its class as the answer."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import BeforeValidator, Field

from convkit.converters import class_folders
from convkit.converters.base import Converter, Exclude, Item, Options, Record, Reject
from convkit.converters.class_folders import Entry, Member
from convkit.media.frames import sample_frames
from convkit.schema import Conversation, Turn

if TYPE_CHECKING:
    from cv2.typing import MatLike

VIDEO_SUFFIXES = frozenset(
    [".avi", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ogv", ".ts"]
)


def _commas(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


class VideoOptions(Options):
    """Options of every converter of videos by class."""

    num_frames: int = Field(8, ge=1, le=1024, description="Frames a clip, evenly spaced; short clips repeat frames.")
    classes: Annotated[tuple[str, ...], BeforeValidator(_commas)] = Field(
        (), description="Only these classes, separated by commas. Default: all."
    )
    limit: int | None = Field(None, ge=1, description="At most this many clips of each class in each split.")
    val_fraction: float = Field(
        0.1, ge=0, lt=1, description="Share of train's groups that become val where the source has no val; 0: none."
    )
    prompt: str = Field(
        "Classify the video into one of the following classes: {classes}.",
        pattern=r"\{classes\}",
        description="The user's text; {classes} stands for the sorted class names.",
    )
    jpeg_quality: int = Field(90, ge=1, le=100, description="Quality of the frames' JPEG.")
    max_side: int | None = Field(None, ge=16, description="Shrink frames to at most this many pixels a side.")
    allow_truncated: bool = Field(False, description="Use damaged clips as far as they decode.")
    seed: int = Field(0, description="Decides which groups become val.")


class VideoFolderOptions(VideoOptions):
    """Options of `video-folder`."""

    name: str = Field("videos", pattern=r"^[A-Za-z0-9_-]+$", description="Name of the data set in rows and file names.")


@dataclass(frozen=True)
class Clip(Item):
    """One clip and the row that it becomes."""

    size: int
    row_id: str
    split: str
    label: str
    group: str
    images: str
    """Path of its frames without `.<k>.jpg`."""
    prompt: str


class VideoFolder(Converter[Clip]):
    """`{train,val,test}/<Class>/<clip>` or `<Class>/<clip>`; each clip is a group of its own."""

    name = "video-folder"
    unit = "clip"
    version = 1
    Options: ClassVar[type[VideoOptions]] = VideoFolderOptions
    suffixes = VIDEO_SUFFIXES
    options: VideoOptions

    @property
    def dataset(self) -> str:
        """The name that the user gave."""
        return self.options.name if isinstance(self.options, VideoFolderOptions) else self.name

    def count(self) -> int:
        """Listing folders is cheap beside decoding what is in them."""
        return sum(1 for _ in self.items())

    def group(self, member: Member) -> str:
        """What may not be separated by a split."""
        return f"{member.label}/{member.stem}"

    def members(self) -> Iterator[Entry]:
        """The source's clips, each in the split that the source gives it."""
        return class_folders.members(self.root, VIDEO_SUFFIXES, "video")

    def items(self) -> Iterator[Clip | Reject | Exclude]:
        """Clips in the order train, val, test, then by class and name."""
        options = self.options
        entries = list(class_folders.choose_classes(self.members(), options.classes))
        entries = class_folders.carve_val(entries, options.val_fraction, options.seed, self.group)
        labels = sorted({entry.label for entry in entries if isinstance(entry, Member)})
        prompt = options.prompt.replace("{classes}", ", ".join(labels))
        number = 0
        for entry in class_folders.limit_each_class(entries, options.limit):
            if isinstance(entry, Member):
                yield self._clip(entry, number, prompt)
                number += 1
            else:
                yield entry

    def _clip(self, member: Member, number: int, prompt: str) -> Clip:
        return Clip(
            address=member.path,
            size=member.size,
            row_id=f"{member.split}-{number:010d}",
            split=member.split,
            label=member.label,
            group=self.group(member),
            images=f"{member.split}/{member.label}/{member.stem}",
            prompt=prompt,
        )

    def convert(self, item: Clip) -> Record:
        """Sample the clip's frames; they are JPEG files named `<clip>.<k>.jpg`."""
        options = self.options
        encode = _jpeg_encoder(options.jpeg_quality, options.max_side)
        frames = sample_frames(
            self.root / item.address, options.num_frames, encode, allow_truncated=options.allow_truncated
        )
        media = {f"{item.images}.{k}.jpg": frame for k, frame in enumerate(frames)}
        turn = Turn(images=tuple(media), user=item.prompt, assistant=item.label)
        row = Conversation(id=item.row_id, source=self.dataset, conversations=(turn,), group=item.group)
        return Record(item.split, (row,), media)


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
