"""The pre-commit hook and the examples in the documentation run as they are written."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import yaml

from convkit.reporters import REPORTERS
from convkit.validate.config_file import ConfigFile
from tests.cli.test_validate_cli import convkit
from tests.conftest import ROOT
from tests.fixtures.builders import lines, png, row, turn
from tests.fixtures.make_datasets import DIRECTORY

DOCS = (ROOT / "docs" / "validate.md").read_text(encoding="utf-8")


def test_the_pre_commit_hook_selects_row_files_and_runs(tmp_path: Path) -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert {"id", "name", "entry", "language", "files"} <= set(hook)

    def takes(name: str) -> bool:
        return bool(re.search(hook["files"], name)) and not re.search(hook["exclude"], name)

    assert takes("a/x_train.jsonl") and not takes("a/quarantine.jsonl") and not takes("a/dataset.json")
    _, command, *options = shlex.split(hook["entry"])
    assert command == "validate"
    rows = tmp_path / "x.jsonl"
    rows.write_bytes(lines(row("1")) + b"\n")
    assert convkit(*options, "x.jsonl", cwd=tmp_path).returncode == 1
    assert convkit(*options, DIRECTORY / "valid" / "crlf" / "pets_train.jsonl", cwd=tmp_path).returncode == 0


def test_the_commands_of_the_github_workflow_run(tmp_path: Path) -> None:
    (text,) = (block for block in re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL) if "jobs:" in block)
    steps = yaml.safe_load(text)["jobs"]["validate"]["steps"]
    commands = [
        step["run"].split(">>")[0].split("||")[0] for step in steps if "convkit validate" in step.get("run", "")
    ]
    assert len(commands) == 3
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.jsonl").write_bytes(b"{\n")
    for command in commands:
        done = convkit(*shlex.split(command)[2:], cwd=tmp_path)
        assert done.returncode == 1 and (done.stdout or (tmp_path / "convkit.sarif").is_file())


def test_the_documentation_lists_every_format_and_every_config_key() -> None:
    assert re.findall(r"^\| `(\w+)` \| [^`]", DOCS, re.MULTILINE) == list(REPORTERS)
    assert re.findall(r"^\| `(\w+)` \| `--", DOCS, re.MULTILINE) == list(ConfigFile.model_fields)
    toml, _plugin = re.findall(r"```toml\n(.*?)```", DOCS, re.DOTALL)
    assert ConfigFile.model_validate(tomllib.loads(toml)).ignore == ("CK304",)


def test_the_first_example_output_is_real(tmp_path: Path) -> None:
    directory = tmp_path / "data" / "pets"
    (directory / "images").mkdir(parents=True)
    for name, color in (("cat.png", 1), ("dog.png", 77), ("bird.png", 150)):
        (directory / "images" / name).write_bytes(png(32, 32, color))

    def pet(id: str, animal: str, answer: str) -> dict[str, Any]:
        return row(id, conversations=[turn("What animal is it?", images=[f"{animal}.png"], assistant=answer)])

    train = [pet("t1", "cat", "A cat."), pet("t2", "dog", "A dog. "), pet("t3", "fish", "A fish.")]
    (directory / "pets_train.jsonl").write_bytes(lines(*train))
    (directory / "pets_val.jsonl").write_bytes(lines(pet("v1", "cat", "A cat."), pet("v2", "bird", "A bird.")))
    output = re.findall(r"```text\n(.*?)```", DOCS, re.DOTALL)[0]
    assert convkit("data/pets", cwd=tmp_path).stdout == output
