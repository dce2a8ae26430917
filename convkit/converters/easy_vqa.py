"""Convert easy-VQA: 48,248 questions about 5,000 images of one shape each, from the PyPI package `easy-vqa`.

Layout: `{train,test}/questions.json` = [[question, answer, image id], ...] and `{train,test}/images/<id>.png`.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pydantic import Field, TypeAdapter, ValidationError

from convkit.converters import image_store
from convkit.converters.base import Converter, Exclude, Item, Options, Record, Reject
from convkit.converters.image_store import ImageOptions
from convkit.errors import SourceError
from convkit.schema import Row, Turn

_QUESTIONS = TypeAdapter(list[tuple[str, str, int]])


class EasyVQAOptions(Options):
    """Options of the `easy-vqa` converter."""

    one_question_per_row: bool = Field(
        False, description="One row per question, instead of one row per image with its questions as turns."
    )
    val_fraction: float = Field(0.1, ge=0, lt=1, description="Fraction of train's images to split off as val; 0: none.")
    limit: int | None = Field(None, ge=1, description="Maximum number of images per split.")
    seed: int = Field(0, description="Random seed for selecting the images of val.")


@dataclass(frozen=True)
class Picture(Item):
    """Hold one image with all its questions."""

    folder: str
    image_id: int
    split: str
    group: str
    turns: tuple[tuple[str, str], ...]
    """The questions and answers, in the order of the source."""

    @property
    def units(self) -> int:
        """Return the number of questions."""
        return len(self.turns)


class EasyVQA(Converter[Picture]):
    """Convert an image and its questions to one conversation; equal images form one group in one split."""

    name = "easy-vqa"
    unit = "question"
    version = 1
    Options = EasyVQAOptions
    default_source = "package:easy_vqa/data"
    options: EasyVQAOptions

    def count(self) -> int:
        """Return the number of questions, without reading any image."""
        return sum(len(self._questions(folder)) for folder in ("train", "test"))

    def items(self) -> Iterator[Picture | Reject | Exclude]:
        """Yield images in the order train, val, test, then by id."""
        train = list(self._pictures("train"))
        chosen = self._val_groups([p.group for p in train if isinstance(p, Picture)])
        for split in ("train", "val"):
            wanted = (p for p in train if _split_for(p, chosen) == split)
            yield from self._limited(_with_split(p, split) for p in wanted)
        yield from self._limited(self._pictures("test"))

    def _pictures(self, folder: str) -> Iterator[Picture | Reject]:
        by_image: dict[int, list[tuple[str, str]]] = {}
        for question, answer, image_id in self._questions(folder):
            by_image.setdefault(image_id, []).append((question, answer))
        for image_id, turns in sorted(by_image.items()):
            address = f"{folder}/images/{image_id}.png"
            try:
                digest = hashlib.sha256((self.root / address).read_bytes()).hexdigest()
            except OSError:
                reason = f"{folder}/questions.json asks about this picture, which is not there or cannot be read"
                yield Reject(address, "missing-image", reason, len(turns))
            else:
                yield Picture(address, folder, image_id, folder, f"picture-{digest[:16]}", tuple(turns))

    def _questions(self, folder: str) -> list[tuple[str, str, int]]:
        path = self.root / folder / "questions.json"
        try:
            return _QUESTIONS.validate_python(json.loads(path.read_bytes()))
        except FileNotFoundError as error:
            raise SourceError(
                f"{self.root} is not easy-VQA's data: there is no {folder}/questions.json. Omit --source to use "
                "the data of the package easy-vqa."
            ) from error
        except (ValueError, ValidationError) as error:
            first = str(error).splitlines()[0]
            raise SourceError(f"{path} is not a list of [question, answer, image id]: {first}. Restore it.") from error

    def _val_groups(self, groups: list[str]) -> set[str]:
        distinct = sorted(set(groups), key=lambda g: hashlib.sha256(f"{self.options.seed}/{g}".encode()).digest())
        return set(distinct[: round(self.options.val_fraction * len(distinct))])

    def _limited(self, pictures: Iterator[Picture | Reject]) -> Iterator[Picture | Reject | Exclude]:
        seen = 0
        for picture in pictures:
            seen += isinstance(picture, Picture)
            over = self.options.limit is not None and seen > self.options.limit
            yield Exclude("beyond --limit", picture.units) if over else picture

    def convert(self, item: Picture) -> Record:
        """Store the image unchanged as `<split>/<id>.png`, and make its rows."""
        stored = image_store.store_file(self.root / item.address, f"{item.split}/{item.image_id}", ImageOptions())
        image = stored.path
        turns = [Turn(images=(), user=question, assistant=answer) for question, answer in item.turns]
        first = Turn(images=(image,), user=turns[0].user, assistant=turns[0].assistant)
        name = f"{item.split}-{item.image_id:06d}"
        if self.options.one_question_per_row:
            with_image = [t.model_copy(update={"images": (image,)}) for t in turns]
            rows = tuple(self._row(f"{name}-{k:02d}", item, (turn,)) for k, turn in enumerate(with_image))
        else:
            rows = (self._row(name, item, (first, *turns[1:])),)
        return Record(item.split, rows, {image: stored.content}, item.units, stored.notes)

    def _row(self, row_id: str, item: Picture, turns: tuple[Turn, ...]) -> Row:
        return Row(id=row_id, source=self.name, conversations=turns, group=item.group)


def _split_for(picture: Picture | Reject, chosen: set[str]) -> str:
    return "val" if isinstance(picture, Picture) and picture.group in chosen else "train"


def _with_split(picture: Picture | Reject, split: str) -> Picture | Reject:
    return replace(picture, split=split) if isinstance(picture, Picture) else picture
