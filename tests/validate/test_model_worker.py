"""The rules CK4xx check rows against a model: control tokens, lengths, image shapes and labels."""

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
def test_control_tokens_of_phi_are_found(text: str) -> None:
    assert found(row(text), []) == found(row("x", text), []) == ["CK403"]


@pytest.mark.parametrize("text", ["<|ending|>", "a <| b |> c", "<image_1>", "<END>", "<strong>", "|end|"])
def test_text_that_resembles_a_control_token_is_allowed(text: str) -> None:
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


def test_the_image_marker_is_not_a_control_token() -> None:
    for spec in PROFILES:
        assert found(row("this: <image> here", images=1), [ImageSize(60, 60)], spec) == []


def test_a_row_of_exactly_max_length_is_allowed() -> None:
    target = TargetModel.from_options("phi-3.5-vision")
    exact = TargetModel(target.profile, tokenizer=len)
    length = exact.count(row(images=1), [ImageSize(320, 240)]).low
    for limit, expected in [(length, []), (length - 1, ["CK401"])]:
        limited = TargetModel(target.profile, len, limit)
        assert [p.rule.code for p in problems(row(images=1), [ImageSize(320, 240)], limited, train=True)] == expected


def test_an_estimated_length_is_described_as_estimated() -> None:
    text = "word " * 1000
    low, high = TargetModel.from_options("phi-3.5-vision").count(row(text), [])
    for limit, expected in [(high, []), (high - 1, ["CK402"]), (low, ["CK402"]), (low - 1, ["CK401"])]:
        target = TargetModel.from_options("phi-3.5-vision", max_length=limit)
        result = list(problems(row(text), [], target, train=True))
        assert [problem.rule.code for problem in result] == expected
        assert all("(estimated)" in problem.message for problem in result)


def test_a_row_with_an_unreadable_image_has_no_length_finding() -> None:
    assert found(row(images=2), [ImageSize(10, 10), None], max_length=100) == []
    assert found(row(images=2), [ImageSize(10, 10), ImageSize(10, 10)], max_length=100) == ["CK401"]


@pytest.mark.parametrize("answer", [None, "", " \n"])
def test_only_training_rows_need_a_label(answer: str | None) -> None:
    target = TargetModel.from_options("phi-3.5-vision")
    assert found(row(answer=answer), []) == ["CK405"]
    assert list(problems(row(answer=answer), [], target, train=False)) == []


SIZES = st.builds(ImageSize, st.integers(1, 100_000), st.integers(1, 100_000))


@given(st.sampled_from(sorted(PROFILES)), st.text(), st.lists(SIZES, max_size=3))
def test_no_row_and_no_image_shape_raises_an_exception(spec: str, text: str, sizes: list[ImageSize]) -> None:
    text = text.replace("<image>", "")
    for problem in problems(
        row(text, text, len(sizes)), sizes, TargetModel.from_options(spec, max_length=1000), train=True
    ):
        assert isinstance(problem.message, str)


def test_rules_about_models_run_and_are_in_the_receipt_only_with_a_model(tmp_path: Path) -> None:
    directory = copy_of("valid/with_manifest", tmp_path)
    report_of(directory)
    assert not [code for code in read(directory).rules if code.startswith("CK4")]
    report_of(directory, target=TargetModel.from_options("phi-3.5-vision"))
    assert read(directory).rules == codes(with_model=True)
    assert next(code for code in read(directory).rules if code.startswith("CK4")) == "CK401"


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["validate", *map(str, arguments)])
    return result.exit_code, result.output


def test_the_command_reports_rows_that_the_model_cannot_take(tmp_path: Path) -> None:
    directory = copy_of("invalid/CK401_too_long", tmp_path)
    assert run(directory)[0] == 0
    code, output = run(directory, "--model", "phi-3.5-vision", "--max-length", 1500)
    assert (code, "CK401 too-long: the row has at least 1,5" in output) == (1, True)
    assert run(directory, "--model", "phi-3.5-vision:num_crops=1", "--max_length", 1500)[0] == 0


def test_headers_are_enough_for_lengths_and_without_media_none_is_checked(tmp_path: Path) -> None:
    directory = copy_of("invalid/CK401_too_long", tmp_path)
    options = {"target": TargetModel.from_options("phi-3.5-vision", max_length=1500)}

    def codes_of(findings: list[Finding]) -> list[str]:
        return [finding.code for finding in findings]

    assert codes_of(report_of(directory, media="header", **options).findings) == ["CK401"]
    assert codes_of(report_of(directory, media="none", **options).findings) == []


ANSWERS = ("Yes.", "x <|end|>")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_any_number_of_workers_counts_the_same_tokens(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
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
def test_training_files_are_recognized_by_their_split(tmp_path: Path, name: str) -> None:
    content = row("Hm?", answer=None).to_line() + b"\n"
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    found = report_of(tmp_path / name, target=TargetModel.from_options("phi-3.5-vision")).findings
    assert [finding.code for finding in found] == ["CK405"]
