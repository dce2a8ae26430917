"""The command `convkit train`: options, YAML files of options, exit codes."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from convkit.cli import main
from convkit.errors import ConvkitError
from convkit.train import recipes
from convkit.train.config import NOT_IN_FINGERPRINT, SECTIONS, Config, resolve
from convkit.train.models.phi3_v.family import Phi3VFamily
from tests.conftest import ROOT
from tests.train.helpers import runs
from tests.train.helpers.processes import ENVIRONMENT

PATHS = {"data_dir": "d", "model": "m", "output_dir": "r"}


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def convkit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process; return the exit code, standard output and standard error."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["convkit", "train", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        assert isinstance(end.value.code, int)
        return end.value.code, *capsys.readouterr()

    return run


def test_the_command_validates_on_request_and_trains(convkit: Run, checkpoint: Path, tmp_path: Path) -> None:
    data, out = runs.write_dataset(tmp_path / "pets", validated=False), tmp_path / "run"
    options = ("--data_dir", data, "--model_name_or_path", checkpoint, "--output_dir", out, "--num_crops", "1")
    code, _, errors = convkit(*options)
    assert code == 2
    assert f"Run: convkit validate {data}" in errors
    more = ("--use_lora", "--lora-rank", "2", "--batch_size", "8", "--no-tqdm", "--dataloader_num_workers", "0")
    code, output, _ = convkit(*options, *more, "--validate")
    assert code == 0
    assert "LoRA: 10 rows x 1 epoch = 10 rows planned in 2 steps" in output
    assert "10 rows planned = 10 trained" in output
    assert re.search(r"^step 2 of 2: loss \d+\.\d+, learning rate \S+, \S+ images/s$", output, re.MULTILINE)
    assert (out / "final/adapter/adapter_model.safetensors").is_file()


def test_findings_of_validate_end_the_run(convkit: Run, checkpoint: Path, tmp_path: Path) -> None:
    data = runs.write_dataset(tmp_path / "pets", validated=False)
    (data / "images/3.png").unlink()
    code, output, _ = convkit("--data_dir", data, "--model", checkpoint, "--output_dir", tmp_path / "run", "--validate")
    assert code == 1
    assert "CK201" in output
    assert not (tmp_path / "run").exists()


def test_options_override_the_file_and_the_file_overrides_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("model_name_or_path: m\nlearning-rate: 1e-5\nbatch_size: 64\nuse_lora: true\n")
    config = resolve({"data_dir": "d", "output_dir": "r", "batch_size": 8, "use_lora": False}, file)
    assert (str(config.model), config.learning_rate, config.batch_size, config.use_lora) == ("m", 1e-5, 8, False)
    assert (config.weight_decay, config.method) == (0.01, "full")
    file.write_text("resume: no\n")
    assert resolve(PATHS, file).resume == "no"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a", "has no options"),
        ("a: [", "is not YAML: while parsing"),
        ("qlora: 1", "there is no --qlora (did you mean --use_qlora?)"),
        ("frobnicate: 1", "there is no --frobnicate. See"),
        ("batch_size: 0", "--batch_size 0: Input should be greater than or equal to 1"),
        ("learning_rate: .inf", "--learning_rate inf: Input should be a finite number"),
        ("learning_rate: fast", "--learning_rate fast: Input should be a valid number"),
    ],
)
def test_an_invalid_file_is_refused_with_the_reason(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(content)
    with pytest.raises(ConvkitError) as refusal:
        resolve(PATHS, file)
    assert message in str(refusal.value)


def test_missing_options_are_named() -> None:
    with pytest.raises(ConvkitError, match="--data_dir is missing; --model is missing; --output_dir is missing"):
        resolve({})


@pytest.mark.parametrize(
    ("options", "method"),
    [
        ({}, "full"),
        ({"freeze_vision_model": True}, "frozen vision"),
        ({"use_lora": True, "freeze_vision_model": True}, "LoRA"),
        ({"use_qlora": True}, "QLoRA"),
    ],
)
def test_options_select_the_finetuning_method(options: dict[str, bool], method: str) -> None:
    assert resolve({**PATHS, **options}).method == method
    assert resolve({**PATHS, **options}).use_lora == ("LoRA" in method)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({}, "is only for LoRA: .* Leave it out"),
        ({"use_lora": True, "freeze_vision_model": True}, "contradicts --freeze_vision_model. Leave one out"),
    ],
)
def test_full_vision_model_is_only_for_lora(others: dict[str, bool], message: str) -> None:
    assert resolve({**PATHS, "use_qlora": True, "full_vision_model": True}).method == "QLoRA"
    with pytest.raises(ConvkitError, match=f"--full_vision_model {message}"):
        resolve({**PATHS, **others, "full_vision_model": True})


@pytest.mark.parametrize(
    ("option", "precision"), [("use_flash_attention", "bfloat16"), ("bf16", "bfloat16"), ("fp16", "float16")]
)
def test_options_select_the_computation_type(option: str, precision: str) -> None:
    assert resolve({**PATHS, option: True}).precision == precision
    assert resolve(PATHS).precision == "float32"


@pytest.mark.parametrize("other", ["bf16", "use_flash_attention"])
def test_fp16_cannot_be_combined_with_bfloat16(other: str) -> None:
    with pytest.raises(ConvkitError, match=f"--fp16 cannot be combined with --{other}.* Leave one"):
        resolve({**PATHS, "fp16": True, other: True})


RECIPES = {
    ("docvqa", ""): {"num_crops": 16, "batch_size": 64, "learning_rate": 5e-6, "num_train_epochs": 2},
    ("docvqa", "use_lora"): {"lora_rank": 32, "lora_alpha_ratio": 0.5, "learning_rate": 2e-4, "num_train_epochs": 2},
    ("hateful-memes", "use_lora"): {"lora_rank": 128, "lora_alpha_ratio": 2.0, "learning_rate": 2e-4},
    ("hateful_memes", "freeze_vision_model"): {"learning_rate": 1e-4, "num_train_epochs": 3},
    ("nlvr2", ""): {"learning_rate": 1e-5, "num_train_epochs": 3, "batch_size": 64, "lora_rank": 64},
    ("ucf101", ""): {"num_crops": 4, "batch_size": 16, "learning_rate": 4e-5, "num_train_epochs": 1},
}


@pytest.mark.parametrize(("name", "method"), RECIPES)
def test_recipes_depend_on_the_finetuning_method(name: str, method: str) -> None:
    config = resolve({**PATHS, **({method: True} if method else {})}, recipe=name)
    expected = RECIPES[name, method]
    assert {option: getattr(config, option) for option in expected} == expected


def test_the_documentation_has_a_table_of_all_recipes() -> None:
    text = (ROOT / "docs/training.md").read_text()
    for name, (always, methods) in recipes.RECIPES.items():
        for method, options in methods.items() or [("any", {})]:
            shown = [options.get(option, "-") for option in ("learning_rate", "num_train_epochs", "lora_rank")]
            alpha = f"{options['lora_rank'] * options['lora_alpha_ratio']:.0f}" if "lora_rank" in options else "-"
            cells = [f"`{name}`", always["num_crops"], always["batch_size"], method, *shown, alpha]
            assert f"| {' | '.join(map(str, cells))} |" in text
    assert text.count("| `") >= sum(max(1, len(methods)) for _, methods in recipes.RECIPES.values())


def test_options_and_the_file_override_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("recipe: docvqa\nnum_train_epochs: 7\nuse_lora: true\n")
    config = resolve({**PATHS, "learning_rate": 1.0}, file)
    assert (config.learning_rate, config.num_train_epochs, config.lora_rank) == (1.0, 7, 32)
    assert resolve(PATHS, file, "hateful_memes").lora_rank == 128
    with pytest.raises(ConvkitError, match=r"no recipe 'coco'\. Choose one of: ucf101, docvqa, nlvr2, hateful_memes"):
        resolve(PATHS, recipe="coco")


def spawn(*command: str | Path) -> subprocess.CompletedProcess[str]:
    # Clusters set WORLD_SIZE=1 for a single process, which may start others.
    environment = {**os.environ, **ENVIRONMENT, "WORLD_SIZE": "1"}
    return subprocess.run(
        [sys.executable, "-m", *map(str, command)], env=environment, capture_output=True, text=True, check=False
    )


def test_nproc_starts_several_processes(checkpoint: Path, tmp_path: Path) -> None:
    data, out = runs.write_dataset(tmp_path / "pets"), tmp_path / "run"
    options = ("--data_dir", data, "--model", checkpoint, "--output_dir", out, "--num_crops", "1", "--no-tqdm")
    more = ("--use_lora", "--lora_rank", "2", "--batch_size", "8", "--dataloader_num_workers", "0")
    done = spawn("convkit", "train", "--nproc", "2", *options, *more)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("10 rows planned = 10 trained") == 1
    state = json.loads((out / "checkpoints/step-00000002/state.json").read_bytes())
    assert state["processes"] == 2


@pytest.mark.slow
def test_nproc_returns_the_exit_code_of_a_failed_process(
    dataset: Path, family: Phi3VFamily, checkpoint: Path, tmp_path: Path
) -> None:
    runs.train(dataset, family, tmp_path / "run")
    paths = ("--data_dir", dataset, "--model", checkpoint, "--output_dir", tmp_path / "run")
    again = spawn("convkit", "train", "--nproc", "2", *paths, "--num_crops", "1", "--no-tqdm")
    assert again.returncode == 2
    assert "contains checkpoints of an earlier run. Add --resume auto" in again.stderr
    assert "Traceback" not in again.stderr


@pytest.mark.slow
def test_accelerate_launch_starts_several_processes(checkpoint: Path, tmp_path: Path) -> None:
    data, out = runs.write_dataset(tmp_path / "pets"), tmp_path / "run"
    options = ("--data_dir", data, "--model", checkpoint, "--output_dir", out, "--num_crops", "1", "--no-tqdm")
    more = ("--use_lora", "--lora_rank", "2", "--batch_size", "8", "--dataloader_num_workers", "0")
    launcher = ("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1")
    settings = ("--mixed_precision", "no", "--dynamo_backend", "no")
    done = spawn(*launcher, *settings, "-m", "convkit", "train", *options, *more)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("10 rows planned = 10 trained") == 1
    assert json.loads((out / "checkpoints/step-00000002/state.json").read_bytes())["processes"] == 2


@pytest.mark.parametrize(
    ("model", "remedy"),
    [
        ("microsoft/Phi-3.5-vision-instruct", "run: hf download microsoft/Phi-3.5-vision-instruct --local-dir P"),
        ("nowhere", "Pass a checkpoint directory with --model"),
    ],
)
def test_a_missing_model_is_not_downloaded(convkit: Run, tmp_path: Path, model: str, remedy: str) -> None:
    code, _, errors = convkit("--data_dir", tmp_path, "--model", model, "--output_dir", tmp_path / "run")
    assert code == 2
    assert errors.startswith(f"convkit: error: There is no directory {model}. ")
    assert remedy in errors


def test_a_dataset_without_receipt_is_refused_with_the_command_to_run(
    convkit: Run, checkpoint: Path, tmp_path: Path
) -> None:
    data = runs.write_dataset(tmp_path / "pets", validated=False)
    options = ("--model", checkpoint, "--num_crops", "1", "--output_dir", tmp_path / "run")
    code, _, errors = convkit("--data_dir", data, *options)
    assert (code, errors.strip().endswith(f"Run: convkit validate {data} --model {runs.PROFILE}")) == (2, True), errors
    code, _, errors = convkit("--data_dir", tmp_path / "nowhere", *options)
    assert (code, f"There is no directory {tmp_path / 'nowhere'}." in errors) == (2, True), errors


def test_only_existing_options_are_left_out_of_the_fingerprint() -> None:
    assert {field.name for field in fields(Config)} >= NOT_IN_FINGERPRINT


def test_the_help_lists_every_option_in_its_section(convkit: Run) -> None:
    _, text, _ = convkit("--help")
    found = dict(re.findall(r"^([A-Z][^\n]*):\n((?:  .*\n)+)", text, re.MULTILINE))
    assert list(found) == [*SECTIONS.values(), "Options"]
    section = ""
    for field in fields(Config):
        section = SECTIONS.get(field.name, section)
        assert re.search(rf"^  (-o, )?--(\[no_\])?{field.name}\b", found[section], re.MULTILINE), field.name
    assert "--nproc" in found["Distributed training"]
    assert "Required." in found["Data, model and output"]
    assert "Default: 0." in found["Optimization"]
