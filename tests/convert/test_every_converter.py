"""Properties of every converter; add a new converter with one entry in CASES."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from jsonschema import Draft202012Validator

from convkit.converters import load_converter
from convkit.dataset import Dataset
from convkit.errors import DatasetError, SourceError
from convkit.schema import Manifest
from convkit.validate.run import validate
from tests.conftest import ROOT
from tests.convert.helpers import (
    clip_tree,
    easy_vqa_tree,
    mtimes,
    official_tree,
    quarantined,
    rows,
    run,
    tree,
)
from tests.convert.picture_trees import (
    cauldron_table,
    docvqa_tables,
    docvqa_tree,
    hateful_memes_tree,
    image_tree,
    nlvr2_tree,
)


@dataclass(frozen=True)
class Case:
    """A converter and a small source for it."""

    name: str
    converter: str
    make: Callable[[Path], None]
    bad: int
    """The number of units of the source that cannot become rows."""
    other_options: dict[str, Any]
    """Options that differ from the defaults."""
    layouts: str
    """A pattern of the known layouts in the message about an unknown one."""
    unlabelled: tuple[str, ...] = ()
    """The splits whose rows have no answer."""
    repeats: str = ""
    """The rule that its equal images break, for duplicate rows or contradicting answers."""


CASES = [
    Case(
        "easy-vqa",
        "easy-vqa",
        easy_vqa_tree,
        2,
        {"one_question_per_row": True},
        "no train/questions.json",
        repeats="CK305",
    ),
    Case(
        "video-folder", "video-folder", clip_tree, 1, {"num_frames": 3}, "Looked for {train,val,test}/<Class>/<video>"
    ),
    Case("ucf101-folders", "ucf101", clip_tree, 1, {"num_frames": 3}, "Looked for .* or <Class>/<video>"),
    Case("ucf101-official", "ucf101", official_tree, 1, {"fold": 2}, "Looked for .* or <Class>/<video>"),
    Case(
        "image-folder",
        "image-folder",
        image_tree,
        1,
        {"seed": 1},
        "Looked for {train,val,test}/<Class>/<image>",
        repeats="CK306",
    ),
    Case(
        "docvqa",
        "docvqa",
        docvqa_tree,
        2,
        {"questions_per_row": "all"},
        r"Looked for train_v1.0_withQT.json, .* Parquet files",
        ("test",),
    ),
    Case(
        "docvqa-parquet",
        "docvqa",
        docvqa_tables,
        1,
        {"answer": "first"},
        r"Looked for .* the columns image, query and answers",
        ("test",),
    ),
    Case("nlvr2", "nlvr2", nlvr2_tree, 1, {"answer_words": "yes,no"}, "Looked for train.json, dev.json", ("test1",)),
    Case(
        "hateful-memes",
        "hateful-memes",
        hateful_memes_tree,
        1,
        {"text_in_prompt": True},
        "Looked for train.jsonl, dev.jsonl, dev_seen.jsonl",
        ("test_unseen",),
    ),
    Case(
        "cauldron",
        "cauldron",
        cauldron_table,
        1,
        {"image_names": "content"},
        r"Looked for \*.parquet, .* images and texts",
    ),
]


class Made(NamedTuple):
    """A case's source, and its conversion without worker processes."""

    case: Case
    source: Path
    out_dir: Path
    manifest: Manifest


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp(request.param.name)
    request.param.make(folder / "source")
    manifest = run(request.param.converter, folder / "source", folder / "out")
    return Made(request.param, folder / "source", folder / "out", manifest)


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_the_number_of_workers_does_not_change_a_byte(made: Made, workers: int, tmp_path: Path) -> None:
    run(made.case.converter, made.source, tmp_path / "out", workers=workers)
    assert tree(tmp_path / "out") == tree(made.out_dir)


KILLED = """
import os, signal, sys
from pathlib import Path
from convkit.convert import names
from convkit.convert.run import convert
from convkit.converters import load_converter

name, source, out_dir, left = *sys.argv[1:4], int(sys.argv[4])
move = names.move

def moved(*paths):
    global left
    left -= 1
    move(*paths)
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)

names.move = moved
convert(load_converter(name), source, load_converter(name).Options(), Path(out_dir), workers=0)
"""


def test_a_killed_conversion_resumes_to_the_same_bytes(made: Made, tmp_path: Path) -> None:
    middle = (made.manifest.accounting.media_files + 1) // 2
    process = subprocess.run(
        [sys.executable, "-c", KILLED, made.case.converter, made.source, tmp_path / "out", str(middle)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "out/dataset.json").exists()
    run(made.case.converter, made.source, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(made.out_dir)


def test_the_location_of_the_source_does_not_matter(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.source, tmp_path / "elsewhere/source")
    run(made.case.converter, tmp_path / "elsewhere/source", tmp_path / "out")
    assert tree(tmp_path / "out") == tree(made.out_dir)


def test_rows_match_the_pydantic_models(made: Made) -> None:
    dataset = Dataset.open(made.out_dir)
    read = [row for split in dataset.manifest.splits for _, row in dataset.rows(split)]
    assert len(read) == sum(split.rows for split in made.manifest.splits.values()) > 0


def test_rows_match_the_json_schema(made: Made) -> None:
    path = ROOT / "schemas/row.json"
    if not path.exists():
        pytest.skip(f"no {path}; write it with: make generate")
    validator = Draft202012Validator(json.loads(path.read_bytes()))
    assert [error.message for row in rows(made.out_dir) for error in validator.iter_errors(row)] == []


def test_validation_finds_nothing_but_duplicates_of_the_source(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.out_dir, tmp_path / "out")
    result = validate([tmp_path / "out"], workers=0)
    assert {finding.code for finding in result.report.findings} == {made.case.repeats} - {""}
    assert result.receipts == (tmp_path / "out" / "receipt.json",)


def test_only_unlabelled_splits_have_no_answers(made: Made) -> None:
    for split in made.manifest.splits:
        answered = {"assistant" in row["conversations"][-1] for row in rows(made.out_dir, split)}
        assert answered == {split not in made.case.unlabelled}
    assert set(made.case.unlabelled) <= set(made.manifest.splits)


def test_ids_are_unique(made: Made) -> None:
    ids = [row["id"] for row in rows(made.out_dir)]
    assert len(ids) == len(set(ids))


def test_every_unit_is_accounted_for(made: Made) -> None:
    done = made.manifest.accounting
    assert done.read == done.written + done.quarantined + sum(done.excluded.values())
    assert done.quarantined == made.case.bad
    assert len(quarantined(made.out_dir)) == done.quarantined
    assert done.written == sum(s.turns for s in made.manifest.splits.values())


def test_units_are_counted_without_reading_a_picture(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    converter = load_converter(made.case.converter)
    for reads in ("hashlib.sha256", "hashlib.file_digest", "convkit.converters.image_store.image_digest"):
        monkeypatch.setattr(reads, None)
    assert converter(made.source, converter.Options()).count() == made.manifest.accounting.read


def test_an_unknown_layout_is_refused_with_the_known_ones(made: Made, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/readme.txt").write_text("no data")
    with pytest.raises(SourceError, match=made.case.layouts):
        run(made.case.converter, tmp_path / "source", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_manifest_describes_the_row_files(made: Made) -> None:
    assert {s.file for s in made.manifest.splits.values()} == {
        path.name for path in made.out_dir.glob("*.jsonl") if path.name != "quarantine.jsonl"
    }
    for split in made.manifest.splits.values():
        content = (made.out_dir / split.file).read_bytes()
        turns = [turn for line in content.splitlines() for turn in json.loads(line)["conversations"]]
        assert hashlib.sha256(content).hexdigest() == split.sha256
        assert content.count(b"\n") == len(content.splitlines()) == split.rows
        assert len(turns) == split.turns
        assert sum(len(turn["images"]) for turn in turns) == split.images


def test_every_row_has_a_group_that_stays_in_one_split(made: Made) -> None:
    splits_of: dict[str, set[str]] = {}
    for split in made.manifest.splits:
        for row in rows(made.out_dir, split):
            splits_of.setdefault(row["group"], set()).add(split)
    assert [group for group, splits in splits_of.items() if len(splits) > 1] == []


def test_the_image_files_are_those_named_in_rows(made: Made) -> None:
    named = {image for row in rows(made.out_dir) for turn in row["conversations"] for image in turn["images"]}
    there = tree(made.out_dir / "images")
    assert there.keys() == named
    assert made.manifest.accounting.media_files == len(named)
    assert made.manifest.accounting.media_bytes == sum((made.out_dir / "images" / p).stat().st_size for p in named)


def test_no_other_files_remain(made: Made) -> None:
    files = {split.file for split in made.manifest.splits.values()}
    assert {path.name for path in made.out_dir.iterdir()} == files | {"dataset.json", "images", "quarantine.jsonl"}


def test_a_complete_directory_is_not_changed(made: Made) -> None:
    before = mtimes(made.out_dir)
    assert run(made.case.converter, made.source, made.out_dir) == made.manifest
    assert mtimes(made.out_dir) == before


def test_other_options_are_refused_by_name(made: Made) -> None:
    before = mtimes(made.out_dir)
    option = next(iter(made.case.other_options))
    with pytest.raises(DatasetError, match=rf"contains another dataset: {option} .* Choose another --out_dir"):
        run(made.case.converter, made.source, made.out_dir, **made.case.other_options)
    assert mtimes(made.out_dir) == before


def test_another_source_is_refused_by_name(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.source, tmp_path / "another")
    with pytest.raises(DatasetError, match="contains another dataset: source 'source' there, 'another' here"):
        run(made.case.converter, tmp_path / "another", made.out_dir)


def test_a_source_that_changed_is_refused(made: Made, tmp_path: Path) -> None:
    changed = tmp_path / "source"
    shutil.copytree(made.source, changed)
    file = next(p for p in sorted(changed.rglob("*")) if p.suffix in (".avi", ".png", ".parquet"))
    if file.suffix == ".parquet":
        drop_a_row(file)
    else:
        file.write_bytes(file.read_bytes() + b"!")
    with pytest.raises(DatasetError, match="which has changed since"):
        run(made.case.converter, changed, made.out_dir)


def drop_a_row(file: Path) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(file)
    pq.write_table(table.slice(0, table.num_rows - 1), file)


def test_another_converter_is_refused_by_name(made: Made) -> None:
    other = "easy-vqa" if made.case.converter != "easy-vqa" else "video-folder"
    with pytest.raises(DatasetError, match=f"set: converter '{made.case.converter}' there, '{other}' here. Choose"):
        run(other, made.source, made.out_dir)


def test_a_source_behind_a_link_is_recognized_again(made: Made, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(made.source)
    manifest = run(made.case.converter, tmp_path / "link", tmp_path / "out")
    assert run(made.case.converter, tmp_path / "link", tmp_path / "out") == manifest
