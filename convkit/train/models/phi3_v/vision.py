"""Embed images: CLIP on the crops without padding, 2x2 merging, separators, projection.

Shape letters: N images, K crops, C width of CLIP, D width of the language model, h and w tiles down and across.
Module names are those of the official checkpoint.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.clip.modeling_clip import CLIPEncoder, CLIPVisionEmbeddings

from convkit.profiles.phi3 import TILE
from convkit.train.models.phi3_v.image_processing import Sizes, normalised_crops, size_pairs, split_tiles

_GRID = 12
"""The number of tokens along one side of a crop, after 2x2 merging."""
_MAX_CROPS_PER_CALL = 80
"""Enough crops to keep a GPU busy, but a limit, because attention kernels are prepared for each distinct batch size."""


class ClipTower(nn.Module):
    """CLIP's vision transformer; its last layer is kept for saving but never run."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.embeddings = CLIPVisionEmbeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.encoder = CLIPEncoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.freeze_unused()

    def freeze_unused(self) -> None:
        """Freeze the parameters that never get a gradient, because data-parallel training would wait for it."""
        for unused in (self.encoder.layers[-1], self.post_layernorm):
            unused.requires_grad_(False)

    def forward(self, crops: Tensor) -> Tensor:
        """Compute patch features (K, 576, C) of crops (K, 3, 336, 336)."""
        hidden: Tensor = self.pre_layrnorm(self.embeddings(crops))
        for layer in self.encoder.layers[:-1]:
            hidden = layer(hidden, attention_mask=None)
        return hidden[:, 1:]


class ClipModel(nn.Module):
    """A wrapper that gives CLIP's parameters the names of the official checkpoint."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.vision_model = ClipTower(config)


class ImageEmbedding(nn.Module):
    """Vision tower and projector: image embeddings in the order of their placeholders."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        merged = 4 * config.vision_config.hidden_size
        self.img_processor = ClipModel(config.vision_config)
        self.glb_GN = nn.Parameter(torch.zeros(1, 1, merged))
        self.sub_GN = nn.Parameter(torch.zeros(1, 1, 1, merged))
        self.img_projection = nn.Sequential(
            nn.Linear(merged, config.hidden_size), nn.GELU(), nn.Linear(config.hidden_size, config.hidden_size)
        )

    def forward(self, pixel_values: Tensor, image_sizes: Sizes) -> Tensor:
        """Return the embeddings of N images.

        Args:
            pixel_values: uint8 tiles of all images (T, 3, 336, 336); or the official layout, normalised and padded
                (N, crops + 1, 3, 336, 336), global view first.
            image_sizes: height and width of each image's tiles together, in pixels; (N, 2), or N pairs.

        Returns:
            Embeddings, (tokens of all images, D).
        """
        crops = self._crops(pixel_values, image_sizes)
        features = self._features(torch.cat(crops).to(self.glb_GN.dtype))
        parts = torch.split(features, [len(part) for part in crops])
        grids = [(height // TILE, width // TILE) for height, width in size_pairs(image_sizes)]
        sequences = [self._sequence(part, *grid) for part, grid in zip(parts, grids, strict=True)]
        projected: Tensor = self.img_projection(torch.cat(sequences))
        return projected

    def _features(self, crops: Tensor) -> Tensor:
        """Run CLIP on all crops, in equal parts of at most `_MAX_CROPS_PER_CALL`."""
        parts = crops.tensor_split(-(-len(crops) // _MAX_CROPS_PER_CALL))
        return torch.cat([self.img_processor.vision_model(part) for part in parts])

    def zero_contribution(self) -> Tensor:
        """Return zero computed from every parameter, so that batches without images still have (zero) gradients.

        Ranks that run in lockstep need a gradient of every parameter in each step.
        """
        blank = torch.zeros(1, 3, TILE, TILE, dtype=torch.uint8, device=self.glb_GN.device)
        features: Tensor = self(blank, torch.tensor([[TILE, TILE]]))
        return features.sum() * 0

    def _crops(self, pixel_values: Tensor, image_sizes: Sizes) -> list[Tensor]:
        if pixel_values.dim() == 5:
            counts = [(height // TILE) * (width // TILE) for height, width in size_pairs(image_sizes)]
            return [image[: 1 + count] for image, count in zip(pixel_values, counts, strict=True)]
        if pixel_values.dtype != torch.uint8 or pixel_values.dim() != 4:
            raise ValueError(
                "pixel_values must be uint8 tiles (T, 3, 336, 336) or the official layout (N, crops + 1, 3, 336, 336), "
                f"not {pixel_values.dtype} of shape {tuple(pixel_values.shape)}"
            )
        return [normalised_crops(*image) for image in split_tiles(pixel_values, image_sizes)]

    def _sequence(self, features: Tensor, h: int, w: int) -> Tensor:
        """Arrange an image's features (1 + h * w, 576, C) as (tokens, 4C): tiles, separator, global view."""
        merged = _merge(features)
        whole, tiles = merged[:1], merged[1:]
        tiles = tiles.reshape(h, w, _GRID, _GRID, -1).transpose(1, 2).reshape(h * _GRID, w * _GRID, -1)
        return torch.cat((self._rows(tiles), self.glb_GN[0], self._rows(whole[0])))

    def _rows(self, grid: Tensor) -> Tensor:
        """Flatten (rows, columns, 4C) into a sequence with a separator after each row."""
        separators = self.sub_GN[0].expand(grid.shape[0], 1, -1)
        return torch.cat((grid, separators), dim=1).flatten(0, 1)


def _merge(features: Tensor) -> Tensor:
    """Merge (K, 576, C) to (K, 12, 12, 4C): top-left, top-right, bottom-left, bottom-right of each 2x2."""
    crops, _, width = features.shape
    squares = features.reshape(crops, _GRID, 2, _GRID, 2, width).permute(0, 1, 3, 2, 4, 5)
    return squares.reshape(crops, _GRID, _GRID, 4 * width)
