"""A dataset is split without separating rows that belong together, and without losing or changing any row."""

import json
import os
import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convkit.errors import DatasetError, SourceError
from convkit.schema import Row
from convkit.split.assign import assign
from convkit.split.converter import Split, SplitOptions
from convkit.validate.run import validate
from tests.convert.helpers import rows, tree
from tests.convert.kills import assert_resumes_after_kills
from tests.split_datasets import SAMPLES, THREE, Sample, placed, plain, split, write, write_manifest


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("made") / "source", SAMPLES)


def components(samples: list[Sample]) -> list[set[int]]:
    """Return the sets of rows that belong together, joined until nothing changes."""
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
def test_rows_that_belong_together_are_never_separated(
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
    """Draw bundles of rows with answers, some of them frequent."""
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


def test_without_stratify_the_answers_do_not_matter(tmp_path: Path) -> None:
    one, other = plain(60, "a"), plain(60, "abc")
    for name, samples in (("one", one), ("other", other)):
        split(write(tmp_path / name, samples), tmp_path / f"{name}-out", stratify=False)
    assert placed(tmp_path / "one-out") == placed(tmp_path / "other-out")


def test_rows_and_images_are_those_of_the_source(source: Path, tmp_path: Path) -> None:
    manifest = split(source, tmp_path / "out")
    before = {row["id"]: row for row in rows(source, "train")}
    assert {row["id"]: row for row in rows(tmp_path / "out")} == before
    assert {n: s.rows for n, s in manifest.splits.items()} == {"train": 64, "val": 8, "test": 8}
    for name in manifest.splits:
        numbers = [int(row["id"][1:]) for row in rows(tmp_path / "out", name)]
        assert numbers == sorted(numbers), "rows keep their order"
    images = tree(source / "images")
    assert tree(tmp_path / "out/images") == {path: d for path, d in images.items() if path.startswith("train/")}


def test_every_row_is_accounted_for(source: Path, tmp_path: Path) -> None:
    manifest = split(source, tmp_path / "out")
    done = manifest.accounting
    assert (done.unit, done.read, done.written, done.quarantined) == ("row", 81, 80, 0)
    assert done.excluded == {"of the split test, which has no answers": 1}
    assert done.media_files == len(tree(tmp_path / "out/images")) == 80
    assert manifest.name == "made"
    assert manifest.converter.name == "split"
    assert manifest.converter.options["ratios"] == {"train": 0.8, "val": 0.1, "test": 0.1}


def test_an_image_of_several_rows_is_counted_once(tmp_path: Path) -> None:
    samples = [Sample(None, (n,), "a") for n in range(10)]
    write(tmp_path / "source", samples)
    found = [Row.model_validate(row) for row in rows(tmp_path / "source")]
    twins = [row.model_copy(update={"id": f"twin of {row.id}"}) for row in found]
    write_manifest(tmp_path / "source", {"train": [*found, *twins]})
    manifest = split(tmp_path / "source", tmp_path / "out", "train=0.5,test=0.5")
    assert manifest.accounting.media_files == 10
    where = placed(tmp_path / "out")
    assert all(where[row.id] == where[f"twin of {row.id}"] for row in found)


def test_only_the_chosen_splits_are_pooled(source: Path, tmp_path: Path) -> None:
    manifest = split(source, tmp_path / "out", "only=1", splits="test")
    assert manifest.accounting.excluded == {"of the split train, which is not in --splits": 80}
    assert placed(tmp_path / "out") == {"r80": "only"}


def test_the_result_is_valid(source: Path, tmp_path: Path) -> None:
    split(source, tmp_path / "out")
    # The source has duplicates, which stay in one split.
    found = validate([tmp_path / "out"], workers=0).report.findings
    assert {finding.code for finding in found} == {"CK305"}


@pytest.mark.parametrize("workers", [1, 3])
def test_the_result_does_not_depend_on_workers_or_location(source: Path, tmp_path: Path, workers: int) -> None:
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


def test_images_are_linked_if_requested(source: Path, tmp_path: Path) -> None:
    split(source, tmp_path / "copied")
    split(source, tmp_path / "linked", link=True)
    assert tree(tmp_path / "linked") == tree(tmp_path / "copied")
    one = "images/train/0-0.png"
    assert os.path.samefile(source / one, tmp_path / "linked" / one)
    assert not os.path.samefile(source / one, tmp_path / "copied" / one)


def test_a_killed_split_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    source = write(tmp_path / "source", plain(4, "a"))
    options = SplitOptions.model_validate({"ratios": "train=0.75,test=0.25"})
    assert assert_resumes_after_kills(Split, options, source, tmp_path, first=2, step=5) > 15


def test_row_lines_stay_identical(source: Path, tmp_path: Path) -> None:
    split(source, tmp_path / "out")
    before = set((source / "made_train.jsonl").read_bytes().splitlines())
    after = [line for path in (tmp_path / "out").glob("*.jsonl") for line in path.read_bytes().splitlines()]
    assert set(after) == before
    assert all(json.loads(line)["source"] == "made" for line in after)
