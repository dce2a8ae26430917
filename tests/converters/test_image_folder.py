"""Image classification folders are converted to rows and splits."""

import os
import shutil
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from convkit.convert.error_budget import Policy
from convkit.convert.run import convert
from convkit.converters.image_folder import ImageFolder
from convkit.converters.image_store import image_digest, image_group
from convkit.errors import SourceError
from convkit.schema import Manifest
from convkit.validate.run import validate
from tests.convert.helpers import quarantined, rows, tree

CLASSES = ("cat", "dog")


def write_image(path: Path, shade: int, kind: str = "PNG", mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = PIL.Image.new("RGB", (8, 8), (shade, 100, 0))
    picture.putpixel((0, 0), (255, 255, 255))
    picture.convert(mode).save(path, kind)


def image_tree(folder: Path, count: int = 10) -> None:
    """Write images in the layout `<Class>/<image>`."""
    for place, label in enumerate(CLASSES):
        for number in range(count):
            write_image(folder / label / f"{number:02d}.png", 100 * place + number)


def run(source: Path, out_dir: Path, workers: int = 0, **options: Any) -> Manifest:
    chosen = ImageFolder.Options.model_validate(options)
    return convert(ImageFolder, str(source), chosen, out_dir, workers=workers, policy=Policy())


def listing(source: Path, **options: Any) -> list[object]:
    return list(ImageFolder(source, ImageFolder.Options.model_validate(options)).items())


def counts(manifest: Manifest) -> dict[str, int]:
    return {name: split.rows for name, split in manifest.splits.items()}


def test_an_image_becomes_a_row_with_its_class_as_the_answer(tmp_path: Path) -> None:
    write_image(tmp_path / "source/train/cat/Tom.png", 1)
    write_image(tmp_path / "source/validation/dog/Rex.jpeg", 2, "JPEG")
    run(tmp_path / "source", tmp_path / "out", name="pets")
    train, val = rows(tmp_path / "out")
    assert train == {
        "id": "train-0000000000",
        "source": "pets",
        "conversations": [
            {
                "images": ["train/cat/Tom.png"],
                "user": "Classify the image into one of the following classes: cat, dog.",
                "assistant": "cat",
            }
        ],
        "group": image_group(image_digest(tmp_path / "source/train/cat/Tom.png")),
    }
    assert (val["id"], val["conversations"][0]["images"]) == ("val-0000000001", ["val/dog/Rex.jpg"])
    original = (tmp_path / "source/train/cat/Tom.png").read_bytes()
    assert (tmp_path / "out/images/train/cat/Tom.png").read_bytes() == original
    assert validate([tmp_path / "out"], workers=0).report.findings == []


def test_val_is_split_off_identically_for_any_number_of_workers(tmp_path: Path) -> None:
    image_tree(tmp_path / "source")
    manifest = run(tmp_path / "source", tmp_path / "out", val_fraction=0.2)
    assert counts(manifest) == {"train": 16, "val": 4}
    answers = [row["conversations"][0]["assistant"] for row in rows(tmp_path / "out", "val")]
    assert answers == ["cat", "cat", "dog", "dog"]
    run(tmp_path / "source", tmp_path / "again", workers=2, val_fraction=0.2)
    assert tree(tmp_path / "again") == tree(tmp_path / "out")


@pytest.mark.parametrize("seed", range(8))
def test_equal_images_of_different_classes_stay_in_one_split(tmp_path: Path, seed: int) -> None:
    image_tree(tmp_path / "source", 4)
    for number in range(4):
        shutil.copy(tmp_path / f"source/cat/{number:02d}.png", tmp_path / f"source/cat/copy-{number}.png")
        shutil.copy(tmp_path / f"source/cat/{number:02d}.png", tmp_path / f"source/dog/taken-for-{number}.png")
    manifest = run(tmp_path / "source", tmp_path / "out", val_fraction=0.3, seed=seed)
    splits_of: dict[str, set[str]] = {}
    for split in manifest.splits:
        for row in rows(tmp_path / "out", split):
            splits_of.setdefault(row["group"], set()).add(split)
    assert len(splits_of) == 8
    assert all(len(splits) == 1 for splits in splits_of.values())
    assert manifest.splits["val"].rows > 0


def test_files_are_hashed_while_listing_only_to_split_off_val(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_tree(tmp_path / "flat")
    image_tree(tmp_path / "split/train")
    image_tree(tmp_path / "split/val")
    listed = [listing(tmp_path / "flat")]
    monkeypatch.setattr("convkit.converters.image_store.image_digest", None)
    listed.append(listing(tmp_path / "split"))
    listed.append(listing(tmp_path / "flat", val_fraction=0))
    assert list(map(len, listed)) == [20, 40, 20]
    assert ImageFolder(tmp_path / "flat", ImageFolder.Options.model_validate({})).count() == 20


def test_the_suffix_follows_the_content_and_notes_are_counted(tmp_path: Path) -> None:
    write_image(tmp_path / "source/cat/lies.png", 1, "JPEG")
    write_image(tmp_path / "source/cat/grey.bmp", 2, "BMP", "L")
    write_image(tmp_path / "source/dog/fine.JPG", 3, "JPEG")
    manifest = run(tmp_path / "source", tmp_path / "out", val_fraction=0)
    images = [row["conversations"][0]["images"][0] for row in rows(tmp_path / "out")]
    assert images == ["train/cat/grey.png", "train/cat/lies.jpg", "train/dog/fine.jpg"]
    assert manifest.accounting.notes == {"BMP stored as PNG": 1, "L converted to RGB": 1}


def test_unusable_files_are_quarantined_with_their_reasons(tmp_path: Path) -> None:
    image_tree(tmp_path / "source", 2)
    (tmp_path / "source/cat/broken.png").write_bytes(b"no image")
    (tmp_path / "source/cat/empty.png").touch()
    (tmp_path / "source/cat/gone.png").symlink_to("nowhere.png")
    write_image(tmp_path / "source/cat/00.jpg", 9, "JPEG")
    (tmp_path / "source/cat/notes.txt").write_text("no image")
    write_image(tmp_path / "source/stray.png", 9)
    done = run(tmp_path / "source", tmp_path / "out").accounting
    found = {address: rule for address, (rule, _) in quarantined(tmp_path / "out").items()}
    assert found == {
        "cat/broken.png": "undecodable-image",
        "cat/empty.png": "empty-image",
        "cat/gone.png": "unreadable",
        "stray.png": "misplaced",
    }
    assert done.excluded == {"no image by its suffix: .txt": 1}
    assert done.read == done.written + 4 + 1


def test_images_that_differ_by_suffix_only_are_all_converted(tmp_path: Path) -> None:
    for number, name in enumerate(["a.JPG", "a.jpg", "a.jpg.jpg", "a.png"]):
        write_image(tmp_path / "source/cat" / name, number)
    assert run(tmp_path / "source", tmp_path / "out", val_fraction=0).accounting.written == 4
    stored = [row["conversations"][0]["images"][0] for row in rows(tmp_path / "out")]
    assert stored == [f"train/cat/{stem}.png" for stem in ("a", "a.jpg", "a.jpg.jpg", "a.png")]


def test_a_deleted_or_unreadable_image_is_quarantined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_tree(tmp_path / "source", 3)

    def refused(file: Path) -> int:
        if file.name == "01.png":
            raise PermissionError(13, "Permission denied")
        return image_digest(file)

    monkeypatch.setattr("convkit.converters.image_store.image_digest", refused)
    run(tmp_path / "source", tmp_path / "out")
    assert quarantined(tmp_path / "out")["cat/01.png"] == ("unreadable", "cannot be read: Permission denied")


def test_classes_limit_and_prompt_are_applied(tmp_path: Path) -> None:
    image_tree(tmp_path / "source", 5)
    options: dict[str, Any] = {"classes": "dog", "limit": 2, "val_fraction": 0, "prompt": "Which of {classes}?"}
    manifest = run(tmp_path / "source", tmp_path / "out", **options)
    assert counts(manifest) == {"train": 2}
    assert manifest.accounting.excluded == {"beyond --limit": 3, "class not in --classes": 5}
    assert rows(tmp_path / "out")[0]["conversations"][0]["user"] == "Which of dog?"
    with pytest.raises(SourceError, match=r"--classes: the source has no class cow\. Choose from: cat, dog"):
        run(tmp_path / "source", tmp_path / "other", classes="cow")


def test_images_are_named_by_content_and_hard_linked_on_request(tmp_path: Path) -> None:
    image_tree(tmp_path / "source", 2)
    run(tmp_path / "source", tmp_path / "content", image_names="content", val_fraction=0)
    assert all(path.split("/")[1].startswith(path[:2]) for path in tree(tmp_path / "content/images"))
    run(tmp_path / "source", tmp_path / "linked", link=True, val_fraction=0)
    assert os.path.samefile(tmp_path / "source/cat/00.png", tmp_path / "linked/images/train/cat/00.png")


def test_a_source_without_class_folders_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "source/one.png", 1)
    with pytest.raises(SourceError, match="contains no images in class folders"):
        run(tmp_path / "source", tmp_path / "out")
