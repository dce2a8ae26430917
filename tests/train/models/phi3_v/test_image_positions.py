"""Image features of Phi-3.5-vision: chunked encoding, and precomputed positions in a pack."""

from pathlib import Path

import pytest
import torch

from convkit.errors import ConvkitError
from convkit.train.models.phi3_v import vision
from convkit.train.models.phi3_v.family import Phi3VFamily
from tests.train.helpers import runs
from tests.train.helpers.gradients import assert_same_gradients


@pytest.mark.parametrize("at_once", [1, 3])
def test_crops_have_the_same_features_in_any_chunk_size(
    family: Phi3VFamily, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    embed = family.load(torch.float32).model.vision_embed_tokens
    tiles = torch.randint(0, 256, (5, 3, 336, 336), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    sizes = [(672, 672), (336, 336)]
    whole = embed(tiles, sizes)
    seen: list[int] = []
    embed.img_processor.vision_model.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    monkeypatch.setattr(vision, "_MAX_CROPS_PER_CALL", at_once)
    torch.testing.assert_close(embed(tiles, sizes), whole, rtol=1e-5, atol=1e-6)
    assert sum(seen) == 5 + 2 and max(seen) <= at_once


def test_precomputed_image_positions_equal_those_found_by_the_model(dataset: Path, family: Phi3VFamily) -> None:
    trainer, packs = runs.parts(runs.config(dataset, family.directory, dataset), family)
    batch = packs.batch((0, 1, 3))
    ours = runs.gradients(trainer, batch)
    del batch["image_token_indices"]
    batch["image_sizes"] = torch.tensor(batch["image_sizes"])
    assert_same_gradients(ours, runs.gradients(trainer, batch))


def test_image_positions_that_do_not_match_the_images_are_an_error(dataset: Path, family: Phi3VFamily) -> None:
    trainer, packs = runs.parts(runs.config(dataset, family.directory, dataset), family)
    batch = packs.batch((0,))
    batch["image_token_indices"] = batch["image_token_indices"][:-1]
    with pytest.raises(ConvkitError, match=r"placeholders for .* image tokens, but the images make"):
        trainer.forward_backward(batch, 1, last=True)
