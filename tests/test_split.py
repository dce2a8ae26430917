"""A data set in other splits: nothing that belongs together is separated, and nothing is lost or changed."""

import json
import os
import random
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from convkit.convert.error_budget import Policy
from convkit.convert.run import convert
from convkit.dataset import Dataset
from convkit.errors import DatasetError, SourceError
from convkit.schema import Accounting, ConverterInfo, Manifest, Row, SourceInfo, Turn
from convkit.schema import Split as SplitInfo
from convkit.split import Split, SplitOptions, assign
from convkit.utils.progress import Progress
from convkit.validate.run import validate
from tests.convert.helpers import rows, tree
from tests.convert.kills import assert_resumes_after_kills

THREE = "train=0.8,val=0.1,test=0.1"


@dataclass(frozen=True)
class Sample:
    """One row of a made data set; images are numbers, of which equal ones stand for equal bytes."""

    group: str | None
    images: tuple[int, ...]
    answer: str | None
    split: str = "train"


def write(directory: Path, samples: list[Sample], order: list[int] | None = None) -> Path:
    """A dataset directory with the row `r<number>` for each sample; each row has image files of its own.

    Args:
        order: of the rows in their files.
    """
    files: dict[str, list[Row]] = defaultdict(list)
    for number in order or range(len(samples)):
        sample = samples[number]
        names = tuple(f"{sample.split}/{number}-{k}.png" for k in range(len(sample.images)))
        for name, content in zip(names, sample.images, strict=True):
            path = directory / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.full((8, 8, 3), (content // 256, content % 256, 7), np.uint8)
            pixels[0] = 255
            PIL.Image.fromarray(pixels).save(path)
        answer: dict[str, Any] = {} if sample.answer is None else {"assistant": sample.answer}
        group: dict[str, Any] = {} if sample.group is None else {"group": sample.group}
        turn = Turn(images=names, user="What?", **answer)
        files[sample.split].append(Row(id=f"r{number}", source="made", conversations=(turn,), **group))
    write_manifest(directory, files)
    return directory


def write_manifest(directory: Path, files: Mapping[str, list[Row]]) -> None:
    import hashlib

    splits = {}
    (directory / "images").mkdir(parents=True, exist_ok=True)
    for name, found in files.items():
        content = b"".join(row.to_line() + b"\n" for row in found)
        (directory / f"made_{name}.jsonl").write_bytes(content)
        turns = [turn for row in found for turn in row.conversations]
        images = sum(len(turn.images) for turn in turns)
        splits[name] = SplitInfo(
            file=f"made_{name}.jsonl",
            rows=len(found),
            turns=len(turns),
            images=images,
            sha256=hashlib.sha256(content).hexdigest(),
        )
    count = sum(map(len, files.values()))
    accounting = Accounting(
        unit="row", read=count, written=count, quarantined=0, excluded={}, notes={}, media_files=0, media_bytes=0
    )
    manifest = Manifest(
        format_version=1,
        name="made",
        splits=splits,
        converter=ConverterInfo(name="made", version=1, options={}),
        source=SourceInfo(name="made", fingerprint="0" * 64),
        accounting=accounting,
    )
    (directory / "dataset.json").write_text(manifest.model_dump_json())


def split(source: Path, out_dir: Path, ratios: str = THREE, workers: int = 0, **options: Any) -> Manifest:
    chosen = SplitOptions.model_validate({"ratios": ratios, **options})
    return convert(Split, str(source), chosen, out_dir, workers=workers, policy=Policy("fail"))


def placed(out_dir: Path) -> dict[str, str]:
    """Row id -> split."""
    return {row["id"]: name for name in Dataset.open(out_dir).manifest.splits for row in rows(out_dir, name)}


def plain(count: int, answers: str = "ab") -> list[Sample]:
    return [Sample(None, (number,), answers[number % len(answers)]) for number in range(count)]


SAMPLES = [
    *(Sample(f"g{n // 3}", (n,), "ab"[n // 3 % 2]) for n in range(60)),
    *(Sample(None, (1000 + n // 2,), "c") for n in range(20)),
    Sample("unlabelled", (5000,), None, "test"),
]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("made") / "source", SAMPLES)


def components(samples: list[Sample]) -> list[set[int]]:
    """What belongs together, by joining until nothing changes."""
    found: list[tuple[set[int], set[object]]] = []
    for number, sample in enumerate(samples):
        keys: set[object] = {*sample.images, *([sample.group] if sample.group is not None else [])}
        members = {number}
        for other in [o for o in found if o[1] & keys]:
            found.remove(other)
            members |= other[0]
            keys |= other[1]
        found.append((members, keys))
    return [members for members, _ in found]


structures = st.lists(
    st.builds(
        Sample,
        group=st.none() | st.sampled_from([f"g{n}" for n in range(12)]),
        images=st.lists(st.integers(0, 40), max_size=2).map(tuple),
        answer=st.sampled_from(["yes", "no", "a rare one"]),
        split=st.sampled_from(["train", "val"]),
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=60)
@given(structures, st.integers(0, 5), st.booleans(), st.randoms(use_true_random=False))
def test_what_belongs_together_is_never_separated(
    samples: list[Sample], seed: int, stratify: bool, shuffler: random.Random
) -> None:
    together = components(samples)
    order = list(range(len(samples)))
    shuffler.shuffle(order)
    with tempfile.TemporaryDirectory() as folder:
        source, again = write(Path(folder, "a"), samples), write(Path(folder, "b"), samples, order)
        try:
            split(source, Path(folder, "out"), "train=0.7,test=0.3", seed=seed, stratify=stratify)
        except SourceError as error:
            assert "would be empty" in str(error)
            assert max(map(len, together)) >= 0.3 * len(samples) - 1
            return
        found = placed(Path(folder, "out"))
        split(again, Path(folder, "out2"), "train=0.7,test=0.3", seed=seed, stratify=stratify)
        assert placed(Path(folder, "out2")) == found, "the order of the rows matters"
    assert found.keys() == {f"r{n}" for n in range(len(samples))}
    assert all(len({found[f"r{n}"] for n in members}) == 1 for members in together)


@st.composite
def bundles(draw: st.DrawFn) -> list[Counter[str]]:
    """Groups of rows with answers, some of them frequent."""
    answers = st.sampled_from("aaaabbc") | st.text("xyz", min_size=2, max_size=3)
    return [Counter(bundle) for bundle in draw(st.lists(st.lists(answers, min_size=1, max_size=9), min_size=1))]


@settings(max_examples=300)
@given(bundles(), st.lists(st.integers(1, 20), min_size=1, max_size=5), st.integers(0, 3))
def test_the_ratios_hold_within_the_largest_group(strata: list[Counter[str]], parts: list[int], seed: int) -> None:
    ratios = {f"s{k}": part / sum(parts) for k, part in enumerate(parts)}
    options = SplitOptions.model_validate({"ratios": ratios, "seed": seed})
    chosen = assign(strata, [str(k) for k in range(len(strata))], options)
    largest, total = max(bundle.total() for bundle in strata), sum(bundle.total() for bundle in strata)
    for name, ratio in ratios.items():
        count = sum(bundle.total() for bundle, where in zip(strata, chosen, strict=True) if where == name)
        assert abs(count - ratio * total) < largest + 1e-6


@pytest.mark.parametrize("seed", range(5))
def test_every_split_has_its_share_of_every_answer(seed: int) -> None:
    answers = ["common"] * 700 + ["other"] * 200 + ["seldom"] * 20 + [f"once {n}" for n in range(80)]
    options = SplitOptions.model_validate({"ratios": THREE, "seed": seed})
    chosen = assign([Counter([answer]) for answer in answers], [str(k) for k in range(len(answers))], options)
    for name, ratio in options.ratios.items():
        found = Counter(answer.split()[0] for answer, where in zip(answers, chosen, strict=True) if where == name)
        for answer, total in {"common": 700, "other": 200, "seldom": 20, "once": 80}.items():
            assert abs(found[answer] - ratio * total) <= 1


def test_without_stratifying_answers_are_not_looked_at(tmp_path: Path) -> None:
    one, other = plain(60, "a"), plain(60, "abc")
    for name, samples in (("one", one), ("other", other)):
        split(write(tmp_path / name, samples), tmp_path / f"{name}-out", stratify=False)
    assert placed(tmp_path / "one-out") == placed(tmp_path / "other-out")


def test_the_rows_and_images_are_the_source_s(source: Path, tmp_path: Path) -> None:
    manifest = split(source, tmp_path / "out")
    before = {row["id"]: row for row in rows(source, "train")}
    assert {row["id"]: row for row in rows(tmp_path / "out")} == before
    assert {n: s.rows for n, s in manifest.splits.items()} == {"train": 64, "val": 8, "test": 8}
    for name in manifest.splits:
        numbers = [int(row["id"][1:]) for row in rows(tmp_path / "out", name)]
        assert numbers == sorted(numbers), "rows keep their order"
    images = tree(source / "images")
    assert tree(tmp_path / "out/images") == {path: d for path, d in images.items() if path.startswith("train/")}


def test_everything_is_accounted_for(source: Path, tmp_path: Path) -> None:
    manifest = split(source, tmp_path / "out")
    done = manifest.accounting
    assert (done.unit, done.read, done.written, done.quarantined) == ("row", 81, 80, 0)
    assert done.excluded == {"of the split test, which has no answers": 1}
    assert done.media_files == len(tree(tmp_path / "out/images")) == 80
    assert manifest.name == "made"
    assert manifest.converter.name == "split"
    assert manifest.converter.options["ratios"] == {"train": 0.8, "val": 0.1, "test": 0.1}


def test_images_that_several_rows_name_are_counted_once(tmp_path: Path) -> None:
    samples = [Sample(None, (n,), "a") for n in range(10)]
    write(tmp_path / "source", samples)
    found = [Row.model_validate(row) for row in rows(tmp_path / "source")]
    twins = [row.model_copy(update={"id": f"twin of {row.id}"}) for row in found]
    write_manifest(tmp_path / "source", {"train": [*found, *twins]})
    manifest = split(tmp_path / "source", tmp_path / "out", "train=0.5,test=0.5")
    assert manifest.accounting.media_files == 10
    where = placed(tmp_path / "out")
    assert all(where[row.id] == where[f"twin of {row.id}"] for row in found)


def test_chosen_splits_alone_are_pooled(source: Path, tmp_path: Path) -> None:
    manifest = split(source, tmp_path / "out", "only=1", splits="test")
    assert manifest.accounting.excluded == {"of the split train, which is not in --splits": 80}
    assert placed(tmp_path / "out") == {"r80": "only"}


def test_the_result_is_sound(source: Path, tmp_path: Path) -> None:
    split(source, tmp_path / "out")
    # The source repeats itself; what it repeats stays in one split.
    found = validate([tmp_path / "out"], workers=0).report.findings
    assert {finding.code for finding in found} == {"CK305"}


@pytest.mark.parametrize("workers", [1, 3])
def test_the_result_does_not_depend_on_the_workers_or_the_place(source: Path, tmp_path: Path, workers: int) -> None:
    split(source, tmp_path / "out")
    shutil.copytree(source, tmp_path / "elsewhere/source")
    split(tmp_path / "elsewhere/source", tmp_path / "other", workers=workers)
    assert tree(tmp_path / "out") == tree(tmp_path / "other")
    assert split(source, tmp_path / "out").splits.keys() == {"train", "val", "test"}  # again: nothing to do


def test_another_seed_gives_another_split(source: Path, tmp_path: Path) -> None:
    split(source, tmp_path / "out")
    split(source, tmp_path / "other", seed=1)
    assert placed(tmp_path / "out") != placed(tmp_path / "other")
    with pytest.raises(DatasetError, match="seed 0 there, 1 here"):
        split(source, tmp_path / "out", seed=1)


def test_images_are_linked_where_that_is_asked_for(source: Path, tmp_path: Path) -> None:
    split(source, tmp_path / "copied")
    split(source, tmp_path / "linked", link=True)
    assert tree(tmp_path / "linked") == tree(tmp_path / "copied")
    one = "images/train/0-0.png"
    assert os.path.samefile(source / one, tmp_path / "linked" / one)
    assert not os.path.samefile(source / one, tmp_path / "copied" / one)


def test_killed_and_run_again_it_gives_the_same_bytes(tmp_path: Path) -> None:
    source = write(tmp_path / "source", plain(4, "a"))
    options = SplitOptions.model_validate({"ratios": "train=0.75,test=0.25"})
    assert assert_resumes_after_kills(Split, options, source, tmp_path, first=2, step=5) > 15


@pytest.mark.parametrize(
    ("ratios", "message"),
    [
        ("train=0.8,val=0.1", "the shares add up to 0.9, and must add up to 1"),
        ("train=0.8,val=0.3", "add up to 1.1"),
        ("train=0.8,train=0.2", "train has two shares"),
        ("train", "write NAME=SHARE for each split"),
        ("", "add up to 0"),
        ("train=1,val=0", "greater than 0"),
        ("train=nan", "nan|finite|greater|less"),
        ("train=much", "valid number"),
        ("../train=1", "match pattern"),
    ],
)
def test_ratios_that_make_no_sense_are_refused(ratios: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SplitOptions.model_validate({"ratios": ratios})


def test_an_empty_split_is_refused_with_the_reason(tmp_path: Path) -> None:
    source = write(tmp_path / "source", [Sample("one", (n,), "a") for n in range(9)])
    reason = r"test would be empty: its share is 0.2 of 9 rows, which are 1 groups .* the largest of 9 rows"
    with pytest.raises(SourceError, match=reason):
        split(source, tmp_path / "out", "train=0.8,test=0.2")
    assert not (tmp_path / "out").exists()


def broken(directory: Path) -> Iterator[tuple[str, str]]:
    """Break a copy of a data set in several ways; yields what is wrong and the message."""
    file = directory / "made_train.jsonl"
    content = file.read_bytes()
    file.write_bytes(content.replace(b"What?", b"Who??", 1))
    yield "changed", "is not the file that the manifest describes"
    file.write_bytes(content + b"{}\n")
    yield "unsound", "is not a valid row"
    file.unlink()
    yield "missing", "cannot be read"
    file.write_bytes(content)
    image = directory / "images/train/7-0.png"
    image.rename(directory / "moved.png")
    yield "no image", r"the image 'train/7-0.png' of .* cannot be read: No such file"
    image.symlink_to(directory / "moved.png")
    yield "outside", "is outside of it"
    (directory / "dataset.json").unlink()
    yield "no manifest", "has no dataset.json"
    (directory / ".partial").mkdir()
    yield "unfinished", "is not finished"


def test_a_source_that_is_not_a_whole_data_set_is_refused(source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    for what, message in broken(copy):
        with pytest.raises(SourceError, match=message):
            split(copy, tmp_path / "out")
        assert not (tmp_path / "out").exists(), what


def test_a_split_that_does_not_exist_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"has no split dev\. Its splits: train, test"):
        split(source, tmp_path / "out", splits="train,dev")


@pytest.mark.parametrize(("link", "change"), [(False, "image"), (True, "row")])
def test_what_changes_while_it_is_split_ends_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: bool, change: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    listed = Split.iter_with_progress

    def changed(self: Split, progress: Progress) -> Iterator[Any]:
        found = list(listed(self, progress))
        path = copy / ("images/train/0-0.png" if change == "image" else "made_train.jsonl")
        path.write_bytes(path.read_bytes().replace(b"What?", b"Who??") + b"!")
        yield from found

    monkeypatch.setattr(Split, "iter_with_progress", changed)
    with pytest.raises(SourceError, match=f"changed-{change}"):
        split(copy, tmp_path / "out", link=link)


def test_lines_stay_as_they_are_to_the_byte(source: Path, tmp_path: Path) -> None:
    split(source, tmp_path / "out")
    before = set((source / "made_train.jsonl").read_bytes().splitlines())
    after = [line for path in (tmp_path / "out").glob("*.jsonl") for line in path.read_bytes().splitlines()]
    assert set(after) == before
    assert all(json.loads(line)["source"] == "made" for line in after)
