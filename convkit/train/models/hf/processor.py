"""The parts of a checkpoint's processor that images and their tokens need, on Pillow, without video and network."""

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

_BESIDE = (
    *PROCESSOR_FILES,
    *TOKENIZER_FILES,
    *("video_preprocessor_config.json", "chat_template.json", "chat_template.jinja", "generation_config.json"),
    *("tokenizer.model", "vocab.json", "merges.txt"),
)
"""What a checkpoint has beside its weights and its config.json."""
_ONLY_FOR_TEXT = {"rows", "cols", "num_crops", "num_patches", "num_img_tokens"}
"""What image processors tell their processor, not the model."""


class Processor:
    """Images to model inputs, and to the text that stands for them.

    Args:
        directory: a checkpoint.

    Raises:
        ConvkitError: a file is missing or is not what this family needs.
    """

    def __init__(self, directory: Path, spec: FamilySpec) -> None:
        self.directory, self._spec = directory, spec
        check_json(directory, *PROCESSOR_FILES, *TOKENIZER_FILES, *CONFIG_FILES)
        with convert_errors(directory, *TOKENIZER_FILES, "config.json"):
            self.tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        options = {key: value for name in PROCESSOR_FILES for key, value in read_json(directory / name).items()}
        if not (directory / PROCESSOR_FILES[0]).is_file() and "image_processor" not in options:
            # transformers would go on, with sizes that are its own
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
        """What a chat template writes for an image."""
        return str(self._processor.image_token)

    @property
    def image_token_ids(self) -> list[int]:
        """What is an image to the model."""
        return [int(id) for id in self._processor.image_token_ids]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)

    def process(self, images: Sequence[PIL.Image.Image]) -> tuple[dict[str, Tensor], list[str]]:
        """Model inputs of the images of one row, and the text that stands for each.

        Raises:
            ValueError: the processor refuses a shape.
        """
        if not images:
            return {}, []
        inputs, texts = self._processor._process_images(
            [list(images)], return_tensors="pt", input_data_format="channels_last", **self._spec.image_options
        )
        return {name: torch.as_tensor(value) for name, value in inputs.items() if name not in _ONLY_FOR_TEXT}, texts

    def tiles(self, media: dict[str, Tensor]) -> list[Tensor]:
        """Model inputs as they look, (3, H, W) uint8; tiles that only fill up are left out."""
        if not media:
            return []
        pixels = media["pixel_values"]
        tiles = (
            self._from_patches(pixels, media["image_grid_thw"])
            if pixels.dim() == 2
            else [tile for tile in pixels.reshape(-1, *pixels.shape[-3:]) if tile.any()]
        )
        mean, std = (
            torch.tensor(value).view(3, 1, 1)
            for value in (self.image_processor.image_mean, self.image_processor.image_std)
        )
        return [((tile * std + mean) * 255).round().clamp(0, 255).to(torch.uint8) for tile in tiles]

    def _from_patches(self, pixels: Tensor, grids: Tensor) -> list[Tensor]:
        """Qwen's patches (P, 3 * time * p * p), in cells of merged ones, put together again; the first frame of two."""
        merge, side, time = (
            getattr(self.image_processor, name) for name in ("merge_size", "patch_size", "temporal_patch_size")
        )
        found = []
        for part, (_, rows, columns) in zip(
            torch.split(pixels, grids.prod(dim=1).tolist()), grids.tolist(), strict=True
        ):
            cells = part.view(rows // merge, columns // merge, merge, merge, 3, time, side, side)[:, :, :, :, :, 0]
            found.append(cells.permute(4, 0, 2, 5, 1, 3, 6).reshape(3, rows * side, columns * side))
        return found

    def save(self, directory: Path) -> None:
        """Write the checkpoint's own files, byte for byte: nothing in them changes by training."""
        directory.mkdir(parents=True, exist_ok=True)
        for name in _BESIDE:
            if (self.directory / name).is_file():
                shutil.copyfile(self.directory / name, directory / name)


def _image_processor(spec: FamilySpec, options: dict[str, Any]) -> Any:
    module = import_module(f"transformers.models.{spec.images}.image_processing_pil_{spec.images}")
    cls = next(
        value
        for name, value in vars(module).items()
        if name.endswith("ImageProcessorPil") and value.__module__ == module.__name__
    )
    return cls.from_dict(options.get("image_processor", options))


def _images_only(spec: FamilySpec, image_processor: Any, tokenizer: Any, options: dict[str, Any]) -> Any:
    """The family's processor; video processors need torchvision, and are left out."""

    module, name = spec.processor.split(":")
    usual = getattr(import_module(module), name)

    class ImagesOnly(usual):  # type: ignore[misc, valid-type]
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            if argument_name in ("video_processor", "image_processor"):
                return None
            return ProcessorMixin.check_argument_for_proper_class(self, argument_name, argument)

    ImagesOnly.__name__ = name
    known = inspect.signature(usual.__init__).parameters
    own = {name: options[name] for name in known if name in options and name not in ("image_processor", "tokenizer")}
    if "video_processor" in known:
        own["video_processor"] = None
    return ImagesOnly(image_processor=image_processor, tokenizer=tokenizer, **own)


def _template(directory: Path) -> str | None:
    found = read_json(directory / "chat_template.json").get("chat_template")
    return found if isinstance(found, str) else None
