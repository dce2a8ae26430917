"""`convkit bench`: what is counted, what is compared, and that it runs."""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from convkit.cli import app
from convkit.errors import ConvkitError
from convkit.train.bench import baseline, gpu
from convkit.train.bench.data import Data
from convkit.train.bench.flops import Flops, Shape, shape
from convkit.train.bench.random_model import RandomPhi3V
from convkit.train.bench.synthetic import write
from convkit.train.bench.timeline import DATA, LANGUAGE, SECTIONS, Timeline
from convkit.train.bench.workloads import WORKLOADS, RowShape, Workload
from convkit.train.config import Config
from convkit.train.data.loader import MicroBatches
from convkit.train.data.schedule import BatchSchedule, ScheduleOptions
from convkit.train.distributed.world import World
from convkit.train.models.phi3_v.configuration import Phi3VConfig
from convkit.train.models.phi3_v.modeling import Phi3VForCausalLM
from convkit.train.optim.sharding.replicated import Replicated
from convkit.train.setup import trainable
from convkit.train.trainer import Trainer
from tests.conftest import ROOT

CPU = torch.device("cpu")
SMALL = Workload(2, lambda random: RowShape(WORKLOADS["document"].row(random).images, "page", question=5, answer=3))
MODEL_FAMILIES: dict[str, Any] = {"use_lora": True, "lora_rank": 4, "lora_dropout": 0.1}
METHODS: dict[str, dict[str, Any]] = {
    "full": {},
    "frozen": {"freeze_vision_model": True},
    "lora": MODEL_FAMILIES,
    "lora, frozen": {**MODEL_FAMILIES, "freeze_vision_model": True},
}


def configured(folder: Path, **options: Any) -> Config:
    return Config(data_dir=folder, model=folder, output_dir=folder, num_crops=2, batch_size=2, **options)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> RandomPhi3V:
    return RandomPhi3V(tmp_path_factory.mktemp("bench"), "tiny", 2, CPU, seed=0)


@pytest.fixture(scope="module")
def data(family: RandomPhi3V, tmp_path_factory: pytest.TempPathFactory) -> Data:
    return write(SMALL, 2, family, tmp_path_factory.mktemp("bench") / "data")


@pytest.mark.parametrize("name", METHODS)
def test_work_is_counted_as_torch_counts_it(name: str, family: RandomPhi3V, data: Data, tmp_path: Path) -> None:
    """All products with weights; attention, which torch counts in full, by hand."""
    config = configured(tmp_path, gradient_checkpointing="none", **METHODS[name])
    model = trainable.load_for_training(family, config).train()
    batch = MicroBatches(data.index, data.images, family).batch((0,))
    with FlopCounterMode(display=False) as counted:
        model(**batch, num_items_in_batch=1).loss.backward()
    operations = counted.get_flop_counts()["Global"]
    seen = sum(count for name, count in operations.items() if "attention" not in str(name))
    tokens, trained = data.index.tokens[0], data.index.supervised[0]
    work = Flops(model).row(shape(data.index, 0, data.images, 2))
    needless = work["head"] // trained * (len(batch.get("logits_to_keep", batch["labels"][0])) - trained)
    assert sum(work.values()) - attention(model, tokens, name) + needless == seen


def attention(model: Any, tokens: int, name: str) -> Any:
    """By hand: two layers that read, three that see two crops of 577 patches each."""
    config = model.config
    sees = 2 * 3 * 4 * 577**2 * config.vision_config.hidden_size
    reads = 2 * 2 * tokens**2 * config.hidden_size
    return reads * 3 + sees * (1 if "frozen" in name else 3)


def test_the_work_of_a_page_in_the_full_size() -> None:
    """By hand: 17 crops, 2,559 tokens, all weights trained."""
    with torch.device("meta"):
        work = Flops(Phi3VForCausalLM(Phi3VConfig())).row(Shape(tokens=2559, trained=8, image_tokens=2509, crops=17))
    layer = 3072 * (9216 + 3072 + 16384) + 8192 * 3072
    unread = 3072 * 16384 + 8192 * 3072  # of the last layer, where nothing is learnt
    assert work["language"] == 32 * (6 * layer * 2559 + 3 * 2 * 3072 * 2559**2) - 6 * unread * (2559 - 8)
    seen = 23 * 17 * (6 * 12 * 1024**2 * 577 + 3 * 4 * 1024 * 577**2)
    patches, projection = 4 * 588 * 1024 * 576 * 17, 6 * (4096 + 3072) * 3072 * 2509
    assert work["vision"] == seen + patches + projection
    assert work["head"] == 6 * 3072 * 32064 * 8


@pytest.mark.parametrize(("name", "tokens"), [("document", 2559), ("video", 6109)])
def test_rows_are_as_long_as_the_recipes(name: str, tokens: int, tmp_path: Path) -> None:
    workload = WORKLOADS[name]
    family = RandomPhi3V(tmp_path / "model", "tiny", workload.num_crops, CPU, seed=0)
    data = write(workload, 3, family, tmp_path / "data")
    assert set(data.index.tokens) == {tokens}


def test_a_mixture_has_all_kinds_and_is_the_same_each_time() -> None:
    def rows() -> Iterator[RowShape]:
        random = Random(0)
        return (WORKLOADS["mixed"].row(random) for _ in range(100))

    found = list(rows())
    assert {len(row.images) for row in found} == {0, 1, 2, 3, 4, 8}
    assert {row.kind for row in found if len(row.images) == 1} == {"page", "picture"}
    assert found == list(rows())


def test_the_recipes_way_is_without_ours(tmp_path: Path) -> None:
    fast = configured(tmp_path, use_lora=True, bf16=True, fp8=True, optim="adamw_bf16")
    theirs = baseline.configured(fast)
    assert (theirs.fp8, theirs.compile, theirs.optim, theirs.gradient_checkpointing) == (False, False, "adamw", "all")


def test_the_recipe_learns_the_same_by_more_work(family: RandomPhi3V, data: Data, tmp_path: Path) -> None:
    """Loss and gradients are those of our way; CLIP sees num_crops + 1 crops of each image."""
    theirs = baseline.RecipeFamily(tmp_path / "model", "tiny", 2, CPU, seed=0)
    world, seen, outcomes = World(0, 1, CPU), [], []
    config = configured(tmp_path, max_tokens=2000)
    for way, settings, take in (
        (family, config, Replicated),
        (theirs, baseline.configured(config), baseline.RecipeSharding),
    ):
        model = trainable.load_for_training(way, settings).train()
        tower = model.model.vision_embed_tokens.img_processor.vision_model
        tower.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
        plan = BatchSchedule(
            data.index.tokens,
            ScheduleOptions(epochs=1, batch_size=2, max_tokens=2000, max_rows=settings.batch_size_per_gpu),
        )
        trainer = Trainer(take(model, settings, world), plan, data.index, settings, world)
        packs = MicroBatches(data.index, data.images, way)
        outcomes.append(trainer.step(0, (packs.batch(pack) for pack in trainer.micro_batches(0))))
    assert outcomes[0].loss == pytest.approx(outcomes[1].loss, rel=1e-5)
    assert outcomes[0].grad_norm == pytest.approx(outcomes[1].grad_norm, rel=1e-4)
    assert seen == [4, 3, 3]


def test_all_time_of_a_step_belongs_to_a_section(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
    timeline = Timeline(CPU)
    timeline.enter(DATA)  # before the first step: nobody's
    for _ in range(2):
        timeline.begin()
        timeline.enter(DATA)
        timeline.enter(LANGUAGE)
        timeline.enter(DATA)
    timeline.begin()
    assert timeline.steps() == [{"other": 1000.0, DATA: 2000.0, LANGUAGE: 1000.0}] * 2


def test_what_overlaps_is_busy_once() -> None:
    assert gpu.covered([(10, 20), (0, 5), (12, 15), (18, 25), (30, 31)]) == 5 + 15 + 1
    assert gpu.covered([]) == 0


def test_bench_train_beside_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    command = "bench train --geometry tiny --method lora --num_crops 1 --batch_size 2 --steps 2 --warm 1 --no_tqdm"
    command += " --dataloader_num_workers 0 --baseline recipe --baseline_steps 1 --lora_rank 4 --json"
    result = CliRunner().invoke(app, [*command.split(), str(file)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "ratio" in result.output and "language backward" in result.output
    found = json.loads(file.read_text())
    ours, theirs = found["convkit"], found["recipe"]
    assert (ours["packs_a_step"], theirs["packs_a_step"]) == (1, 2)
    assert found["ratio"] == pytest.approx(ours["rows_a_second"] / theirs["rows_a_second"], rel=1e-3)
    assert found["options"]["lora_rank"] == 4
    for figures in (ours, theirs):
        assert list(figures["ms_a_step"]) == list(SECTIONS)
        assert figures["images_a_second"] == figures["rows_a_second"]
        assert figures["mfu"] * found["matmul_tflops"] == pytest.approx(figures["tflop_a_second"], rel=1e-3)
    assert ours["losses"][0] == pytest.approx(theirs["losses"][0], rel=1e-3)


def test_bench_data(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    command = f"bench data --workload video --num_crops 1 --rows 10 --workers 1 --needs 0.001 --needs 1e6 --json {file}"
    result = CliRunner().invoke(app, command.split(), catch_exceptions=False)
    assert result.exit_code == 0 and "decode" in result.output
    found = json.loads(file.read_text())
    assert (found["workload"], found["num_crops"], found["rows"], found["images"]) == ("video", 1, 10, 80)
    assert "platform" not in found["hardware"]
    assert found["workers_for"]["0.001"] == 1 < found["workers_for"]["1000000.0"]
    assert min(found["ms_an_image"][stage] for stage in ("decode", "scale", "tiles")) > 0


COMMAND = (
    "bench train --geometry tiny --num_crops 1 --batch_size 2 --steps 1 --warm 1 --no_tqdm --dataloader_num_workers 0"
)


def test_a_data_set_of_ones_own_needs_no_receipt(tmp_path: Path) -> None:
    directory, file = ROOT / "tests/fixtures/datasets/valid/with_manifest", tmp_path / "result.json"
    result = CliRunner().invoke(app, [*COMMAND.split(), "--data_dir", str(directory), "--json", str(file)])
    assert result.exit_code == 0, result.output
    found = json.loads(file.read_text())
    assert found["workload"].startswith("data set ") and len(found["convkit"]["losses"]) == 1
    assert str(ROOT) not in file.read_text()


def test_what_was_measured_is_there_while_the_recipe_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "result.json"

    def killed(*_: Any, **__: Any) -> None:
        assert json.loads(file.read_text())["convkit"]["rows_a_second"] > 0
        raise KeyboardInterrupt

    monkeypatch.setattr(baseline.RecipeSharding, "forward", killed)
    result = CliRunner().invoke(app, [*COMMAND.split(), "--baseline", "recipe", "--json", str(file)])
    assert result.exit_code == 130


def test_what_was_measured_is_kept_where_the_recipe_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConvkitError("It does not fit.")

    monkeypatch.setattr(baseline.RecipeSharding, "forward", fail)
    file = tmp_path / "result.json"
    result = CliRunner().invoke(app, [*COMMAND.split(), "--baseline", "recipe", "--json", str(file)])
    assert str(result.exception) == "The recipe's way could not be measured. It does not fit."
    found = json.loads(file.read_text())
    assert found["convkit"]["rows_a_second"] > 0 and "recipe" not in found
    assert found["failure"] == str(result.exception)


@pytest.mark.parametrize("command", ["bench train --geometry tiny", "bench data"])
def test_figures_that_could_not_be_written_are_not_measured(tmp_path: Path, command: str) -> None:
    file = tmp_path / "nowhere" / "result.json"
    result = CliRunner().invoke(app, [*command.split(), "--json", str(file)])
    assert isinstance(result.exception, ConvkitError) and not result.stdout
    assert str(result.exception) == f"--json {file}: there is no folder {file.parent}. Make it first."
