"""The recipe's way of training: it computes our loss and gradient, with more work."""

from pathlib import Path

import pytest

from benchmarks.recipe_train import RecipeFamily, RecipeSharding, recipe_config
from convkit.train.bench.random_model import RandomPhi3V
from convkit.train.data.loader import MicroBatches
from convkit.train.data.schedule import BatchSchedule, ScheduleOptions
from convkit.train.distributed.world import World
from convkit.train.optim.sharding.replicated import Replicated
from convkit.train.setup import trainable
from convkit.train.trainer import Trainer
from tests.train.bench.helpers import CPU, NUM_CROPS, configured, small_data


def test_the_recipes_way_disables_our_optimizations(tmp_path: Path) -> None:
    fast = configured(tmp_path, use_lora=True, bf16=True, fp8=True, optim="adamw_bf16")
    theirs = recipe_config(fast)
    assert (theirs.fp8, theirs.compile, theirs.optim, theirs.gradient_checkpointing) == (False, False, "adamw", "all")


def test_the_recipes_way_has_our_loss_and_gradient(tmp_path: Path) -> None:
    """Compare the loss and the gradient norm; CLIP gets num_crops + 1 crops of each image."""
    family = RandomPhi3V(tmp_path / "ours", "tiny", NUM_CROPS, CPU, seed=0)
    theirs = RecipeFamily(tmp_path / "theirs", "tiny", NUM_CROPS, CPU, seed=0)
    data = small_data(family, tmp_path / "data")
    world, crops, outcomes = World(0, 1, CPU), [], []
    config = configured(tmp_path, max_tokens=2000)
    for way, settings, sharding in ((family, config, Replicated), (theirs, recipe_config(config), RecipeSharding)):
        model = trainable.load_for_training(way, settings).train()
        tower = model.model.vision_embed_tokens.img_processor.vision_model
        tower.register_forward_pre_hook(lambda module, inputs: crops.append(len(inputs[0])))
        options = ScheduleOptions(epochs=1, batch_size=2, max_tokens=2000, max_rows=settings.batch_size_per_gpu)
        schedule = BatchSchedule(data.index.tokens, options)
        trainer = Trainer(sharding(model, settings, world), schedule, data.index, settings, world)
        loader = MicroBatches(data.index, data.images, way)
        outcomes.append(trainer.step(0, (loader.batch(rows) for rows in trainer.micro_batches(0))))
    assert outcomes[0].loss == pytest.approx(outcomes[1].loss, rel=1e-5)
    assert outcomes[0].grad_norm == pytest.approx(outcomes[1].grad_norm, rel=1e-4)
    assert crops == [4, 3, 3]
