"""CK4xx beyond the fixtures: what is asked when, and how it is said."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from convkit.cli import app
from convkit.findings import Finding
from convkit.profiles import PROFILES, ImageSize, TargetModel
from convkit.receipt import read
from convkit.rules.model import problems
from convkit.rules.registry import codes
from convkit.schema import Row
from convkit.validate.run import validate
from tests.fixtures.builders import lines, png, turn
from tests.fixtures.builders import row as make_row
from tests.profiles.test_profiles import tokenizer
from tests.validate.helpers import copy_of, report_of, set_chunk_bytes


def row(user: str = "What is it?", answer: str | None = "A cat.", images: int = 0) -> Row:
    turn = {"images": ["a.png"] * images, "user": user, **({} if answer is None else {"assistant": answer})}
    return Row.model_validate({"id": "1", "source": "pets", "conversations": [turn]})


def found(
    row: Row, sizes: list[ImageSize | None], spec: str = "phi-3.5-vision", max_length: int | None = None
) -> list[str]:
    target = TargetModel.from_options(spec, max_length=max_length)
    return [problem.rule.code for problem in problems(row, sizes, target, train=True)]


@pytest.mark.parametrize("text", ["<|end|>", "a <|image_12|> b", "<|endoftext|>", "</s>"])
def test_control_tokens_of_phi(text: str) -> None:
    assert found(row(text), []) == found(row("x", text), []) == ["CK403"]


@pytest.mark.parametrize("text", ["<|ending|>", "a <| b |> c", "<image_1>", "<END>", "<strong>", "|end|"])
def test_what_only_looks_like_one(text: str) -> None:
    assert found(row(text), []) == []


def test_a_model_has_its_own_control_tokens() -> None:
    assert found(row("<|im_start|>system"), [], "qwen2.5-vl") == ["CK403"]
    assert found(row("<|im_start|>system"), []) == []
    assert found(row("x", "an <image>"), [], "llava-1.5") == ["CK403"]
    assert [found(row("<|fim_prefix|>"), [], f"qwen{version}-vl") for version in ("2", "2.5", "3")] == [
        [],
        ["CK403"],
        ["CK403"],
    ]


def test_the_marker_of_an_image_is_none() -> None:
    for spec in PROFILES:
        assert found(row("this: <image> here", images=1), [ImageSize(60, 60)], spec) == []


def test_the_limit_itself_is_allowed() -> None:
    target = TargetModel.from_options("phi-3.5-vision")
    exact = TargetModel(target.profile, tokenizer=len)
    length = exact.count(row(images=1), [ImageSize(320, 240)]).low
    for limit, expected in [(length, []), (length - 1, ["CK401"])]:
        limited = TargetModel(target.profile, len, limit)
        assert [p.rule.code for p in problems(row(images=1), [ImageSize(320, 240)], limited, train=True)] == expected


def test_an_estimate_is_called_one() -> None:
    text = "word " * 1000
    low, high = TargetModel.from_options("phi-3.5-vision").count(row(text), [])
    for limit, expected in [(high, []), (high - 1, ["CK402"]), (low, ["CK402"]), (low - 1, ["CK401"])]:
        target = TargetModel.from_options("phi-3.5-vision", max_length=limit)
        result = list(problems(row(text), [], target, train=True))
        assert [problem.rule.code for problem in result] == expected
        assert all("(estimated)" in problem.message for problem in result)


def test_an_image_that_cannot_be_read_leaves_the_length_open() -> None:
    assert found(row(images=2), [ImageSize(10, 10), None], max_length=100) == []
    assert found(row(images=2), [ImageSize(10, 10), ImageSize(10, 10)], max_length=100) == ["CK401"]


@pytest.mark.parametrize("answer", [None, "", " \n"])
def test_only_a_train_row_needs_an_answer(answer: str | None) -> None:
    target = TargetModel.from_options("phi-3.5-vision")
    assert found(row(answer=answer), []) == ["CK405"]
    assert list(problems(row(answer=answer), [], target, train=False)) == []


SIZES = st.builds(ImageSize, st.integers(1, 100_000), st.integers(1, 100_000))


@given(st.sampled_from(sorted(PROFILES)), st.text(), st.lists(SIZES, max_size=3))
def test_no_row_and_no_shape_raises(spec: str, text: str, sizes: list[ImageSize]) -> None:
    text = text.replace("<image>", "")
    for problem in problems(
        row(text, text, len(sizes)), sizes, TargetModel.from_options(spec, max_length=1000), train=True
    ):
        assert isinstance(problem.message, str)


def test_without_a_model_nothing_is_asked_and_the_receipt_says_so(tmp_path: Path) -> None:
    directory = copy_of("valid/with_manifest", tmp_path)
    report_of(directory)
    assert not [code for code in read(directory).rules if code.startswith("CK4")]
    report_of(directory, target=TargetModel.from_options("phi-3.5-vision"))
    assert read(directory).rules == codes(with_model=True)
    assert next(code for code in read(directory).rules if code.startswith("CK4")) == "CK401"


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["validate", *map(str, arguments)])
    return result.exit_code, result.output


def test_the_command_finds_what_the_model_cannot_take(tmp_path: Path) -> None:
    directory = copy_of("invalid/CK401_too_long", tmp_path)
    assert run(directory)[0] == 0
    code, output = run(directory, "--model", "phi-3.5-vision", "--max-length", 1500)
    assert (code, "CK401 too-long: the row has at least 1,5" in output) == (1, True)
    assert run(directory, "--model", "phi-3.5-vision:num_crops=1", "--max_length", 1500)[0] == 0


def test_headers_alone_are_enough_and_no_media_means_no_lengths(tmp_path: Path) -> None:
    directory = copy_of("invalid/CK401_too_long", tmp_path)
    options = {"target": TargetModel.from_options("phi-3.5-vision", max_length=1500)}

    def codes_of(findings: list[Finding]) -> list[str]:
        return [finding.code for finding in findings]

    assert codes_of(report_of(directory, media="header", **options).findings) == ["CK401"]
    assert codes_of(report_of(directory, media="none", **options).findings) == []


ANSWERS = ("Yes.", "x <|end|>")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_any_number_of_processes_counts_the_same(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tokenizers", reason="needs the extra tokens: pip install 'convkit-vlm[tokens]'")
    (tmp_path / "images").mkdir()
    for number in range(4):
        (tmp_path / "images" / f"{number}.png").write_bytes(png(300 * number + 10, 40))
    content = [
        make_row(str(k), conversations=[turn("a word " * k, images=[f"{k % 5}.png"], assistant=ANSWERS[k % 11 == 0])])
        for k in range(90)
    ]
    path = tmp_path / f"x_train.jsonl{suffix}"
    written = b"{\n" + lines(*content)
    path.write_bytes(gzip.compress(written) if suffix else written)
    set_chunk_bytes(monkeypatch, 2048)
    target = TargetModel.from_options("phi-3.5-vision", tokenizer(tmp_path / "tokenizer.json"), max_length=760)
    reports = [validate([path], workers=workers, target=target).report for workers in (0, 2)]
    assert reports[0] == reports[1]
    control = [finding.line for finding in reports[0].findings if finding.code == "CK403"]
    assert control == [k + 2 for k in range(0, 90, 11)]
    long = [finding.message for finding in reports[0].findings if finding.code == "CK401"]
    assert long and not any("estimated" in message for message in long)


@pytest.mark.parametrize("name", ["x_train.jsonl.gz", "x_train-00000-of-00002.jsonl"])
def test_a_file_of_training_rows_is_known_by_its_split(tmp_path: Path, name: str) -> None:
    content = row("Hm?", answer=None).to_line() + b"\n"
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    found = report_of(tmp_path / name, target=TargetModel.from_options("phi-3.5-vision")).findings
    assert [finding.code for finding in found] == ["CK405"]
