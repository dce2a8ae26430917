"""Test damaged, odd and hostile checkpoint files: each ends in an error that names the file."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch

from convkit.cli import main
from convkit.errors import ConvkitError
from convkit.schema import Row
from convkit.train import models
from convkit.train.models.phi3_v.family import Phi3VFamily
from tests.train.helpers import runs

NOT_JSON = [b"", b"{", b"null", b"[1]", b"\xff\xfe", b'{"a":' * 5000]
FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
IMAGES = {"phi3_v": "processor_config.json", "qwen2_5_vl": "preprocessor_config.json"}
ODD: list[tuple[str, tuple[str, ...], Any]] = [
    ("config.json", ("vision_config",), 3),
    ("config.json", ("hidden_act",), {}),
    ("config.json", ("vision_config", "hidden_size"), "wide"),
    ("config.json", ("rope_scaling",), {"short_factor": [1], "long_factor": [1]}),
    ("config.json", ("text_config", "rope_parameters", "rope_type"), {}),
    ("config.json", ("vision_config", "num_heads"), 0),
    ("config.json", ("vocab_size",), -1),
    ("generation_config.json", ("pad_token_id",), "x"),
    ("tokenizer.json", ("model",), {}),
    ("tokenizer.json", ("added_tokens",), ...),
    ("tokenizer.json", ("post_processor",), {"type": "x"}),
    ("tokenizer_config.json", ("eos_token",), 3),
    ("tokenizer_config.json", ("pad_token",), "\ud800"),
    ("images", ("image_processor",), True),
    ("images", ("image_processor", "num_crops"), 10**9),
    ("images", ("image_processor", "num_crops"), "many"),
    ("images", ("image_processor", "image_mean"), None),
    ("images", ("patch_size",), "x"),
    ("images", ("temporal_patch_size",), []),
    ("images", ("image_mean",), [None, 0, 0]),
    ("images", ("size",), {"shortest_edge": None}),
]
TEMPLATES = ["{% for", "{{ a.b.c }}", "{{ raise_exception('no') }}", "{{ messages.__class__.__mro__ }}", " "]


@pytest.fixture(scope="module", params=IMAGES)
def intact(request: pytest.FixtureRequest, tiny_checkpoint: Callable[[str], Path]) -> Path:
    return tiny_checkpoint(request.param)


@pytest.fixture
def damaged(intact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(intact, tmp_path / intact.name))


def _use(directory: Path, images: Path) -> None:
    """Do everything that a run does with a checkpoint before its first step."""
    PIL.Image.effect_noise((60, 40), 40).save(images / "a.png")
    turn = {"images": ["a.png"], "user": "What?", "assistant": "Yes."}
    row = Row.model_validate({"id": "r1", "source": "s", "conversations": [turn]})
    family = models.model_family(directory)
    family.length(row, images)
    family.tiles(family.encode(row, images))
    family.encode_prompt(row, images)
    family.load(torch.float32, "sdpa")


@pytest.mark.parametrize("name", [*FILES, "images"])
def test_a_file_that_is_not_a_json_object_is_named(damaged: Path, tmp_path: Path, name: str) -> None:
    file = damaged / (IMAGES[damaged.name] if name == "images" else name)
    assert file.is_file()
    for content in NOT_JSON:
        file.write_bytes(content)
        with pytest.raises(ConvkitError, match=f"{file} .*Take the file"):
            _use(damaged, tmp_path)


def _changes(directory: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for name, (*parents, last), value in ODD:
        file = directory / (IMAGES[directory.name] if name == "images" else name)
        content = at = json.loads(file.read_bytes())
        for key in parents:
            at = at.get(key) if isinstance(at, dict) else None
        if isinstance(at, dict) and (last in at or not parents):
            if value is ...:
                del at[last]
            else:
                at[last] = value
            yield file, content


def test_odd_values_end_in_an_error_that_names_the_file_or_row(damaged: Path, tmp_path: Path) -> None:
    """Some odd values are accepted; each error names the file or the row."""
    refused = 0
    for file, content in _changes(damaged):
        kept = file.read_bytes()
        file.write_text(json.dumps(content))
        try:
            _use(damaged, tmp_path)
        except ConvkitError as error:
            refused += 1
            assert file.name in str(error) or "r1" in str(error), error
        file.write_bytes(kept)
    assert refused >= 8
    _use(damaged, tmp_path)


@pytest.mark.parametrize("template", TEMPLATES)
def test_failing_chat_templates_are_reported(damaged: Path, tmp_path: Path, template: str) -> None:
    (damaged / "chat_template.jinja").write_text(template)
    with pytest.raises(ConvkitError, match="chat template"):
        _use(damaged, tmp_path)


@pytest.mark.parametrize("token", ["bos_token", "eos_token", "pad_token"])
def test_missing_special_tokens_are_named(checkpoint: Path, tmp_path: Path, token: str) -> None:
    directory = Path(shutil.copytree(checkpoint, tmp_path / "model"))
    file = directory / "tokenizer_config.json"
    content = json.loads(file.read_bytes())
    del content[token]
    file.write_text(json.dumps(content))
    with pytest.raises(ConvkitError, match=rf"has no {token}\. Take tokenizer\.json and tokenizer_config\.json"):
        models.model_family(directory)


def test_a_tokenizer_of_another_checkpoint_is_rejected(damaged: Path) -> None:
    """The weights expect images at another token, so the model would ignore them."""
    file = damaged / "config.json"
    content = json.loads(file.read_bytes())
    file.write_text(json.dumps(content | {"image_token_id": 7}))
    with pytest.raises(
        ConvkitError, match=r"two checkpoints: the image token is 7 in config\.json, but \d+ in the tokenizer"
    ):
        models.model_family(damaged).load(torch.float32, "sdpa")


def test_a_missing_image_processor_file_is_not_replaced_by_defaults(damaged: Path) -> None:
    for name in IMAGES.values():
        (damaged / name).unlink(missing_ok=True)
    with pytest.raises(ConvkitError, match=r"preprocessor_config\.json.* Take the file from the official checkpoint"):
        models.model_family(damaged)


@pytest.mark.parametrize("value", ["x", [2, "x"], True, 2.0])
def test_invalid_stop_token_ids_are_rejected(
    tiny_checkpoint: Callable[[str], Path], tmp_path: Path, value: Any
) -> None:
    shutil.copytree(tiny_checkpoint("smolvlm"), tmp_path, dirs_exist_ok=True)
    file = tmp_path / "generation_config.json"
    default = models.model_family(tmp_path).stop_token_ids
    file.write_text(json.dumps({"eos_token_id": [*default, 2, None]}))
    assert models.model_family(tmp_path).stop_token_ids == (*default, 2)
    file.write_text(json.dumps({"eos_token_id": value}))
    with pytest.raises(
        ConvkitError, match=r"generation_config\.json: eos_token_id should be an integer or a list of integers, not"
    ):
        models.model_family(tmp_path)


@pytest.mark.parametrize("num_crops", [0, -1, 911, 10**9])
def test_num_crops_out_of_range_is_rejected(checkpoint: Path, num_crops: int) -> None:
    """With more tiles, one image could use all memory before its length is checked."""
    with pytest.raises(ConvkitError, match=rf"num_crops must be an integer from 1 to 910, not {num_crops}\. Pass"):
        models.model_family(checkpoint, num_crops)
    with pytest.raises(ConvkitError, match="num_crops must be an integer from 1 to 910"):
        Phi3VFamily(checkpoint).processor.image_processor(PIL.Image.new("RGB", (9, 9)), num_crops=num_crops)
    assert models.model_family(checkpoint, 910).profile == "phi-3.5-vision:num_crops=910"


def test_pickled_weights_are_not_loaded(checkpoint: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(checkpoint, tmp_path / "model"))
    (directory / "model.safetensors").unlink()
    torch.save({}, directory / "pytorch_model.bin")
    with pytest.raises(ConvkitError, match=r"\*\.safetensors"):
        models.model_family(directory).load(torch.float32, "sdpa")


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def convkit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str | Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["convkit", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), capsys.readouterr().err

    return run


def _bad_model(checkpoint: Path, directory: Path, name: str, change: dict[str, Any]) -> Path:
    model = Path(shutil.copytree(checkpoint, directory / "model"))
    content = json.loads((model / name).read_bytes())
    (model / name).write_text(json.dumps(content | change))
    return model


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("config.json", {"model_type": "kosmos-2"}, "model_type 'kosmos-2', which convkit cannot train. Supported"),
        ("config.json", {"model_type": ["x"]}, "has no model_type, so the model family is unknown"),
        ("tokenizer_config.json", {"eos_token": 3}, "check tokenizer.json, tokenizer_config.json"),
        ("processor_config.json", {"image_processor": 3}, "check preprocessor_config.json, processor_config.json"),
    ],
)
def test_commands_report_a_damaged_checkpoint_in_one_line(
    convkit: Run, checkpoint: Path, tmp_path: Path, name: str, change: dict[str, Any], message: str
) -> None:
    data, model = runs.write_dataset(tmp_path / "pets"), _bad_model(checkpoint, tmp_path, name, change)
    for command in (
        ("inspect", data, "--model", model, "--row", "r0"),
        ("train", "--data_dir", data, "--model", model, "--output_dir", tmp_path / "run"),
    ):
        code, output = convkit(*command)
        assert code == 2
        assert message in output
        assert output.startswith("convkit: error: ") and output.count("\n") == 1


def test_remote_code_is_neither_run_nor_asked_about(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def agree(prompt: str = "") -> str:
        asked.append(prompt)
        return "y"

    monkeypatch.setattr("builtins.input", agree)
    (damaged / "evil.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n")
    classes = {
        "config.json": {"AutoConfig": "evil.C", "AutoModelForImageTextToText": "evil.M"},
        "tokenizer_config.json": {"AutoTokenizer": [None, "evil.T"], "AutoProcessor": "evil.P"},
        "processor_config.json": {"AutoProcessor": "evil.P"},
        "preprocessor_config.json": {"AutoImageProcessor": "evil.I", "AutoProcessor": "evil.P"},
    }
    for name, named in classes.items():
        if (damaged / name).exists():
            content = json.loads((damaged / name).read_bytes())
            (damaged / name).write_text(json.dumps({**content, "auto_map": named}))
    for tokenizer_class in (None, "EvilTokenizer"):
        if tokenizer_class:
            content = json.loads((damaged / "tokenizer_config.json").read_bytes())
            content["tokenizer_class"] = tokenizer_class
            (damaged / "tokenizer_config.json").write_text(json.dumps(content))
        with suppress(ConvkitError):
            models.model_family(damaged).load(torch.float32, "sdpa")
        assert not asked
        assert not (tmp_path / "ran").exists()
