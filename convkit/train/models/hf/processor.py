"""The image part of a checkpoint's processor: with Pillow, without video and network access."""

import inspect
import shutil
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from torch import Tensor
from transformers import AutoTokenizer, ProcessorMixin

from convkit.errors import ConvkitError
from convkit.train.models.checkpoint_files import (
    CONFIG_FILES,
    PROCESSOR_FILES,
    TOKENIZER_FILES,
    check_json,
    convert_errors,
    read_json,
)
from convkit.train.models.hf.families import FamilySpec

_COPIED_FILES = (
    *PROCESSOR_FILES,
    *TOKENIZER_FILES,
    *("video_preprocessor_config.json", "chat_template.json", "chat_template.jinja", "generation_config.json"),
    *("tokenizer.model", "vocab.json", "merges.txt"),
)
"""The files of a checkpoint other than weights and config.json."""
_PROCESSOR_ONLY = {"rows", "cols", "num_crops", "num_patches", "num_img_tokens"}
"""Outputs of image processors for their processor, not for the model."""


class Processor:
    """Convert images to model inputs, and to the text that represents them in the prompt.

    Args:
        directory: a checkpoint.
        spec: the specification of its family.

    Raises:
        ConvkitError: a file is missing or does not fit the family.
    """

    def __init__(self, directory: Path, spec: FamilySpec) -> None:
        self.directory, self._spec = directory, spec
        check_json(directory, *PROCESSOR_FILES, *TOKENIZER_FILES, *CONFIG_FILES)
        with convert_errors(directory, *TOKENIZER_FILES, "config.json"):
            self.tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        options = {key: value for name in PROCESSOR_FILES for key, value in read_json(directory / name).items()}
        if not (directory / PROCESSOR_FILES[0]).is_file() and "image_processor" not in options:
            # transformers would silently use default sizes
            raise ConvkitError(
                f"{directory} has no {PROCESSOR_FILES[0]}, so convkit cannot know how to resize and tile images for "
                "this model. Take the file from the official checkpoint."
            )
        with convert_errors(directory, *PROCESSOR_FILES):
            self.image_processor = _image_processor(spec, options)
        with convert_errors(directory, *PROCESSOR_FILES, *TOKENIZER_FILES):
            self._processor = _images_only(spec, self.image_processor, self.tokenizer, options)
        self.chat_template = self.tokenizer.chat_template or _template(directory)

    @property
    def image_token(self) -> str:
        """The token that a chat template writes for an image."""
        return str(self._processor.image_token)

    @property
    def image_token_ids(self) -> list[int]:
        """The token ids that the model takes as images."""
        return [int(id) for id in self._processor.image_token_ids]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)

    def process(self, images: Sequence[PIL.Image.Image]) -> tuple[dict[str, Tensor], list[str]]:
        """Return the model inputs of a row's images, and the text that represents each.

        Raises:
            ValueError: the processor does not support an image's shape.
        """
        if not images:
            return {}, []
        inputs, texts = self._processor._process_images(
            [list(images)], return_tensors="pt", input_data_format="channels_last", **self._spec.image_options
        )
        return {name: torch.as_tensor(value) for name, value in inputs.items() if name not in _PROCESSOR_ONLY}, texts

    def tiles(self, image_inputs: dict[str, Tensor]) -> list[Tensor]:
        """Convert model inputs back to tiles, (3, H, W) uint8, without padding tiles."""
        if not image_inputs:
            return []
        pixels = image_inputs["pixel_values"]
        tiles = (
            self._from_patches(pixels, image_inputs["image_grid_thw"])
            if pixels.dim() == 2
            else [tile for tile in pixels.reshape(-1, *pixels.shape[-3:]) if tile.any()]
        )
        mean, std = (
            torch.tensor(value).view(3, 1, 1)
            for value in (self.image_processor.image_mean, self.image_processor.image_std)
        )
        return [((tile * std + mean) * 255).round().clamp(0, 255).to(torch.uint8) for tile in tiles]

    def _from_patches(self, pixels: Tensor, grids: Tensor) -> list[Tensor]:
        """Join Qwen's patches (P, 3 * time * p * p), which are ordered by merge cells; keep the first of two frames."""
        merge, side, time = (
            getattr(self.image_processor, name) for name in ("merge_size", "patch_size", "temporal_patch_size")
        )
        images = []
        for part, (_, rows, columns) in zip(
            torch.split(pixels, grids.prod(dim=1).tolist()), grids.tolist(), strict=True
        ):
            cells = part.view(rows // merge, columns // merge, merge, merge, 3, time, side, side)[:, :, :, :, :, 0]
            images.append(cells.permute(4, 0, 2, 5, 1, 3, 6).reshape(3, rows * side, columns * side))
        return images

    def save(self, directory: Path) -> None:
        """Copy the checkpoint's files unchanged; training does not affect them."""
        directory.mkdir(parents=True, exist_ok=True)
        for name in _COPIED_FILES:
            if (self.directory / name).is_file():
                shutil.copyfile(self.directory / name, directory / name)


def _image_processor(spec: FamilySpec, options: dict[str, Any]) -> Any:
    module = import_module(f"transformers.models.{spec.image_processor}.image_processing_pil_{spec.image_processor}")
    cls = next(
        value
        for name, value in vars(module).items()
        if name.endswith("ImageProcessorPil") and value.__module__ == module.__name__
    )
    return cls.from_dict(options.get("image_processor", options))


def _images_only(spec: FamilySpec, image_processor: Any, tokenizer: Any, options: dict[str, Any]) -> Any:
    """Return the family's processor without its video processor, which needs torchvision."""
    module, name = spec.processor.split(":")
    base = getattr(import_module(module), name)

    class ImagesOnly(base):  # type: ignore[misc, valid-type]
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            if argument_name in ("video_processor", "image_processor"):
                return None
            return ProcessorMixin.check_argument_for_proper_class(self, argument_name, argument)

    ImagesOnly.__name__ = name
    known = inspect.signature(base.__init__).parameters
    own = {name: options[name] for name in known if name in options and name not in ("image_processor", "tokenizer")}
    if "video_processor" in known:
        own["video_processor"] = None
    return ImagesOnly(image_processor=image_processor, tokenizer=tokenizer, **own)


def _template(directory: Path) -> str | None:
    found = read_json(directory / "chat_template.json").get("chat_template")
    return found if isinstance(found, str) else None
