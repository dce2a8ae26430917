"""The --model option takes a checkpoint directory in every command, and a token profile where no weights are needed."""

import json
import shutil
import sys
from pathlib import Path
from typing import Protocol

import pytest

from convkit.cli import main
from convkit.profiles import PROFILES
from convkit.receipt import read
from tests.train.helpers import runs


class Run(Protocol):
    def __call__(self, *arguments: str | Path) -> tuple[int, str, str]: ...


@pytest.fixture
def convkit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command and returns its exit code, standard output and standard error."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["convkit", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        return int(code or 0), *capsys.readouterr()

    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return runs.write_dataset(tmp_path / "pets", validated=False)


def test_validate_takes_a_checkpoint_directory(convkit: Run, data: Path, checkpoint: Path) -> None:
    code, _, errors = convkit("validate", data, "--model", checkpoint, "--workers", "0")
    profile = read(data).profile
    assert (code, profile) == (0, "phi-3.5-vision")
    assert errors.splitlines()[0] == f"model: checkpoint directory {checkpoint}, token profile {profile}"
    assert read(data).options["exact"] is True


def test_validate_takes_a_profile_name(convkit: Run, data: Path) -> None:
    code, _, errors = convkit("validate", data, "--model", "phi-3.5-vision:num_crops=1", "--workers", "0")
    assert (code, read(data).profile) == (0, "phi-3.5-vision:num_crops=1")
    assert errors.splitlines()[0] == "model: token profile phi-3.5-vision:num_crops=1"
    assert read(data).options["exact"] is False


def test_stats_takes_either(convkit: Run, data: Path, checkpoint: Path) -> None:
    for model, described in [
        (str(checkpoint), f"checkpoint directory {checkpoint}, token profile phi-3.5-vision"),
        ("phi-3.5-vision", "token profile phi-3.5-vision"),
    ]:
        code, output, errors = convkit("stats", data, "--model", model, "--format", "json")
        assert (code, errors) == (0, f"model: {described}\n")
        assert json.loads(output)["model"] == "phi-3.5-vision"


def test_a_directory_named_like_a_profile_must_be_a_path(
    convkit: Run, data: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(checkpoint, tmp_path / "qwen2-vl")
    monkeypatch.chdir(tmp_path)
    _, _, errors = convkit("stats", data, "--model", "qwen2-vl")
    assert errors == "model: token profile qwen2-vl (for the directory of this name, pass ./qwen2-vl)\n"
    _, _, errors = convkit("stats", data, "--model", "./qwen2-vl")
    assert errors == "model: checkpoint directory ./qwen2-vl, token profile phi-3.5-vision\n"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("gpt", "There is no model profile 'gpt'. Choose one of: phi-3.5-vision"),
        ("gpt", "Or pass a checkpoint directory; there is none of this name."),
        ("./gpt", "There is no directory gpt. Pass a checkpoint directory with --model."),
        ("owner/name", "run: hf download owner/name --local-dir name; then pass --model name."),
    ],
)
def test_a_model_that_is_neither_is_refused(convkit: Run, data: Path, model: str, message: str) -> None:
    for command in ("validate", "stats"):
        code, _, errors = convkit(command, data, "--model", model)
        assert (code, message in errors) == (2, True), errors


def test_a_directory_without_a_checkpoint_is_refused(convkit: Run, data: Path, tmp_path: Path) -> None:
    code, _, errors = convkit("validate", data, "--model", tmp_path)
    assert (code, "config.json is missing or has no model_type" in errors) == (2, True), errors


@pytest.mark.parametrize("model", ["phi-3.5-vision", "phi-3.5-vision:num_crops=4", "smolvlm"])
@pytest.mark.parametrize("command", ["inspect", "train", "evaluate", "merge"])
def test_commands_that_load_weights_explain_how_to_get_a_checkpoint(
    convkit: Run, data: Path, tmp_path: Path, command: str, model: str
) -> None:
    out = tmp_path / "run"
    code, _, errors = convkit(
        *{
            "inspect": ("inspect", data, "--row", "r1"),
            "train": ("train", "--data_dir", data, "--output_dir", out),
            "evaluate": ("evaluate", "--data_dir", data, "--output_dir", out, "--split", "train"),
            "merge": ("merge", "--adapter", tmp_path, "--out", out),
        }[command],
        "--model",
        model,
    )
    repository = {"phi-3.5-vision": "microsoft/Phi-3.5-vision-instruct", "smolvlm": "HuggingFaceTB/SmolVLM-Instruct"}[
        model.partition(":")[0]
    ]
    folder = repository.partition("/")[2]
    assert code == 2 and len(errors.strip().splitlines()) == 1
    assert errors.startswith(f"convkit: error: {model} is a token profile: ")
    assert "This command needs a checkpoint directory." in errors
    assert errors.endswith(f"run: hf download {repository} --local-dir {folder}; then pass --model {folder}.\n")


def test_all_profiles_name_a_reference_checkpoint() -> None:
    from convkit.profiles import get_profile

    assert all(get_profile(name).checkpoint.count("/") == 1 for name in PROFILES)
