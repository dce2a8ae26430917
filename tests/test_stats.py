"""`convkit stats`: statistics, unreadable rows and images, and bounded memory."""

import json
import statistics
import tracemalloc
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from convkit.cli import app
from convkit.errors import ConvkitError
from convkit.profiles import TargetModel
from convkit.stats import MAX_ANSWERS, Histogram, SplitStats, Stats, _Answers, compute_stats
from tests.conftest import ROOT
from tests.fixtures.builders import lines, png, row, turn
from tests.validate.helpers import copy_of


def data(directory: Path, *rows: Any, **images: bytes) -> Path:
    (directory / "images").mkdir()
    for name, content in images.items():
        (directory / "images" / f"{name}.png").write_bytes(content)
    path = directory / "pets_train.jsonl"
    path.write_bytes(lines(*rows))
    return path


def only(result: Stats) -> SplitStats:
    assert len(result.splits) == 1
    return result.splits[0]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["stats", *map(str, arguments)])


def test_statistics_of_a_small_dataset(tmp_path: Path) -> None:
    path = data(
        tmp_path,
        row("1", ["a.png", "b.png"], system="Hm."),
        row("2", conversations=[turn("Hi", images=["a.png"], assistant="A dog."), turn("Bye")]),
        a=png(4, 2),
        b=png(8, 6),
    )
    split = only(compute_stats(path))
    assert (split.file, split.rows, split.unsound, split.unreadable, split.tokens) == (path.name, 2, 0, 0, None)
    assert (split.turns.mean, split.images.max, split.images.min) == (1.5, 2, 1)
    assert (split.width.count, split.width.mean, split.width.p50, split.height.p99) == (3, 5.333, 4, 6)
    assert split.text.bins == {"8-15": 1, "16-31": 1}
    assert (split.text.min, split.text.max) == (len("HiByeA dog."), len("Hm.What is 1?A cat."))
    assert [(a.text, a.count) for a in split.answers.top] == [("A cat.", 1), ("A dog.", 1)]


def test_token_counts_are_exact_with_a_tokenizer_and_bounded_without(tmp_path: Path) -> None:
    path = data(tmp_path, row("1", ["a.png"]), row("2"), a=png(20, 20))
    estimated = only(compute_stats(path, TargetModel.from_options("phi-3.5-vision"))).tokens
    exact = only(
        compute_stats(path, TargetModel(TargetModel.from_options("phi-3.5-vision").profile, tokenizer=len))
    ).tokens
    assert estimated and exact
    assert (estimated.exact, exact.exact) == (False, True)
    assert estimated.low.max < estimated.high.max
    assert exact.low == exact.high
    assert exact.low.max == 757 + 2 + len("<|user|>\n\nWhat is 1?<|end|>\n<|assistant|>\nA cat.<|end|>\n<|endoftext|>")


def test_rows_without_a_token_count_are_reported(tmp_path: Path) -> None:
    path = data(tmp_path, row("1", ["a.png"]), row("2", ["gone.png"]), row("3"), a=png(201, 1))
    split = only(compute_stats(path, TargetModel.from_options("qwen2-vl")))
    assert split.tokens and (split.tokens.refused, split.tokens.unknown, split.tokens.low.count) == (1, 1, 1)
    assert split.unreadable == 1
    output = run(path, "--model", "qwen2-vl")
    assert output.exit_code == 1
    assert "1 image references cannot be read" in output.output
    assert "1 rows have an image shape that the model does not support" in output.output


def test_invalid_lines_are_counted_and_exit_with_code_1(tmp_path: Path) -> None:
    path = data(tmp_path, row("1"))
    path.write_bytes(path.read_bytes() + b"{}\n\n\xff\n")
    split = only(compute_stats(path))
    assert (split.rows, split.unsound) == (1, 3)
    assert run(path).exit_code == 1
    assert "3 invalid lines are not counted" in run(path).output


def test_a_dataset_directory_has_statistics_per_split(tmp_path: Path) -> None:
    directory = copy_of("valid/with_manifest", tmp_path)
    assert [split.file for split in compute_stats(directory).splits] == ["pets_train.jsonl", "pets_val.jsonl"]
    (directory / "pets_val.jsonl").unlink()
    with pytest.raises(ConvkitError, match=r"pets_val\.jsonl cannot be read: No such file"):
        compute_stats(directory)


def test_imbalance_is_computed_for_labels(tmp_path: Path) -> None:
    answers = ["cat"] * 9 + ["dog"] * 3 + ["ant"] * 2
    rows = [row(str(i), conversations=[turn(assistant=answer)]) for i, answer in enumerate(answers)]
    result = only(compute_stats(data(tmp_path, *rows), top=2)).answers
    assert (result.count, result.distinct, result.imbalance) == (14, 3, 4.5)
    assert [(a.text, a.count) for a in result.top] == [("cat", 9), ("dog", 3)]


def test_distinct_answers_are_not_labels(tmp_path: Path) -> None:
    rows = [row(str(i), conversations=[turn(assistant=f"Text {i}")]) for i in range(5)]
    assert only(compute_stats(data(tmp_path, *rows))).answers.imbalance is None


def test_long_answers_with_the_same_beginning_are_distinguished() -> None:
    answers = _Answers()
    for end in ("a", "a", "b"):
        answers.add("x" * 1000 + end)
    result = answers.result(5)
    assert (result.distinct, [a.count for a in result.top]) == (2, [2, 1])
    assert {len(a.text) for a in result.top} == {200}


def test_memory_is_bounded_for_many_answers_and_numbers() -> None:
    answers, histogram = _Answers(), Histogram()
    for number in range(MAX_ANSWERS):
        answers.add(str(number))
    tracemalloc.start()
    for number in range(MAX_ANSWERS):
        answers.add(f"more {number}")
        histogram.add(number * 1000)
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken < 2**20
    result = answers.result(1)
    assert (result.count, result.distinct, result.complete) == (2 * MAX_ANSWERS, MAX_ANSWERS, False)


@given(st.lists(st.integers(0, 10_000), min_size=1))
def test_a_histogram_is_exact_for_small_numbers(numbers: list[int]) -> None:
    histogram = Histogram()
    for number in numbers:
        histogram.add(number)
    result = histogram.distribution()
    assert (result.count, result.min, result.max) == (len(numbers), min(numbers), max(numbers))
    assert result.mean == pytest.approx(statistics.fmean(numbers), abs=0.001)
    assert result.p50 == statistics.median_low(numbers)
    assert sum(result.bins.values()) == len(numbers)


@given(st.integers(0, 10**15))
def test_a_histogram_keeps_three_digits(number: int) -> None:
    histogram = Histogram()
    histogram.add(number)
    result = histogram.distribution()
    assert result.max == result.min == number
    assert number * 0.99 <= result.p50 <= number


def test_the_json_output_follows_the_schema(tmp_path: Path) -> None:
    directory = copy_of("valid/recipe_output", tmp_path)
    output = run(directory, "--format", "json", "--model", "phi-3.5-vision:num_crops=1")
    assert output.exit_code == 0
    document = json.loads(output.stdout)
    schema = json.loads((ROOT / "schemas" / "stats.json").read_bytes())
    jsonschema.Draft202012Validator(schema).validate(document)
    assert document["model"] == "phi-3.5-vision:num_crops=1"
    assert document["splits"][0]["images"]["count"] == 2


def test_control_characters_are_escaped_in_the_terminal(tmp_path: Path) -> None:
    path = data(tmp_path, row("1", conversations=[turn(assistant="\x1b[2Jgone\nnext")]))
    assert r"\x1b[2Jgone\nnext" in run(path).output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tokenizer", "x.json"], "Add: --model PROFILE"),
        (["--model", "gpt"], "no model profile 'gpt'"),
    ],
)
def test_an_invalid_model_is_an_error(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = run(data(tmp_path, row("1")), *arguments)
    assert isinstance(result.exception, ConvkitError)
    assert message in str(result.exception)


def test_a_directory_without_rows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConvkitError, match=r"has no row files \(\*\.jsonl\)"):
        compute_stats(tmp_path)


def test_a_file_without_the_suffix_of_a_row_file_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "rows.txt"
    file.write_bytes(lines(row("1")))
    with pytest.raises(ConvkitError, match=r"rows\.txt is not a row file \(\*\.jsonl, also \.gz or \.zst\)\. Give one"):
        compute_stats(file)


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    path = data(tmp_path, row("1"), row("2"))
    seen: list[tuple[int, int | None]] = []
    compute_stats(path, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (path.stat().st_size, path.stat().st_size)
