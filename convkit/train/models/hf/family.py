"""The model families that transformers implements, with padded batches; see `families`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from convkit.errors import ConvkitError
from convkit.profiles import ImageSize, TokenProfile, UnsupportedShape, canonical_name, get_profile
from convkit.schema import Row
from convkit.train.models import row_images
from convkit.train.models.checkpoint_files import (
    CONFIG_FILES,
    PROCESSOR_FILES,
    TOKENIZER_FILES,
    check_image_token,
    convert_errors,
    read_json,
)
from convkit.train.models.collate import Sample, pad
from convkit.train.models.family import RowLength
from convkit.train.models.hf.families import LANGUAGE_LORA_TARGETS, family_spec
from convkit.train.models.hf.processor import Processor
from convkit.train.models.hf.tokenize import ChatTemplateTokenizer
from convkit.train.models.kernels.attention import VARLEN
from convkit.train.models.loading_info import check_loading_info
from convkit.train.models.tokenize import IGNORE_INDEX, RowError, TokenizedRow


class HuggingFaceFamily:
    """Implement `convkit.train.models.family.ModelFamily` for model families of transformers.

    Args:
        directory: a checkpoint as written by transformers.
        num_crops: not supported by these families.

    Raises:
        ConvkitError: num_crops was given, or the checkpoint's processor cannot be loaded.
    """

    lora_targets: tuple[str, ...] = LANGUAGE_LORA_TARGETS
    compiled_layers: tuple[str, ...] = ()
    supports_packing = False

    def __init__(self, directory: Path, num_crops: int | None = None) -> None:
        config = read_json(directory / "config.json")
        if num_crops is not None:
            raise ConvkitError(
                f"--num_crops is an option of Phi-3-vision; {config['model_type']} takes tiling from its processor "
                "files. Leave it out; if it comes from --recipe, put `num_crops: null` in a file for --config."
            )
        with convert_errors(directory, "config.json"):
            self.directory, self.spec = directory, family_spec(config)
        self.vision_modules = self.spec.vision_modules
        self.vision_lora_targets = self.spec.vision_lora_targets
        self.processor = Processor(directory, self.spec)
        self.tokenizer = self.processor.tokenizer
        with convert_errors(directory, *PROCESSOR_FILES, *TOKENIZER_FILES, "config.json"):
            self.image_token_ids = tuple(self.processor.image_token_ids)
            options = self.spec.profile_options(self.processor)
            self.profile = _profile_name(self.spec.profile, options)
        self._row_tokenizer = ChatTemplateTokenizer(
            self.tokenizer, self.processor.chat_template or self.spec.chat_template, self.processor.image_token
        )
        self._profile: TokenProfile = get_profile(self.profile)
        self.stop_token_ids = self._stop_token_ids()

    def load(self, dtype: torch.dtype = torch.bfloat16, attention: str = "sdpa") -> Any:
        """Load the model on the CPU; raises ConvkitError if the checkpoint is incomplete."""
        with convert_errors(self.directory, *CONFIG_FILES, "*.safetensors"):
            model, info = AutoModelForImageTextToText.from_pretrained(
                self.directory,
                dtype=dtype,
                attn_implementation="sdpa" if attention == VARLEN else attention,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # check_loading_info refuses them, by name
                output_loading_info=True,
            )
        check_loading_info(self.directory, info)
        check_image_token(self.directory, model.config.image_token_id, self.image_token_ids[0])
        unused = self.spec.unused(model.config)
        for name, parameter in model.named_parameters():
            if name.startswith(unused):
                parameter.requires_grad_(False)
        if self.spec.features:
            text = model.get_input_embeddings()
            model.get_submodule(self.spec.features).register_forward_hook(
                lambda module, inputs, output: output.to(text.weight.dtype)
            )
        return model

    def encode(self, row: Row, images: Path, max_length: int | None = None) -> Sample:
        """Encode a row for training; raises RowError."""
        return self._sample(self._row_tokenizer.encode, row, images, max_length)

    def length(self, row: Row, images: Path) -> RowLength:
        """Return a row's number of tokens, from its image headers; raises RowError."""
        labels = self._row_tokenizer.encode(row, self._image_placeholders(row, images)).labels
        return RowLength(len(labels), sum(label != IGNORE_INDEX for label in labels[1:]))

    def encode_prompt(self, row: Row, images: Path, max_length: int | None = None) -> Sample:
        """Encode the prompt of a row's last answer; raises RowError."""
        return self._sample(self._row_tokenizer.encode_prompt, row, images, max_length)

    def collate(self, samples: Sequence[Sample], packed: bool) -> dict[str, Any]:
        """Collate samples into a padded batch.

        Raises:
            ValueError: `packed` is true.
        """
        if packed:
            raise ValueError("these families support padding only, not packing")
        batch = pad(samples, self.tokenizer.pad_token_id or 0)
        if self.spec.token_types == "suffix":
            batch["token_type_ids"] = (batch["labels"] != IGNORE_INDEX).long()
        elif self.spec.token_types:
            ids = torch.tensor(self.image_token_ids)
            batch[self.spec.token_types] = torch.isin(batch["input_ids"], ids).long()
        return batch

    def tiles(self, sample: Sample) -> list[torch.Tensor]:
        """Return the image processor's tiles with normalisation undone."""
        with convert_errors(self.directory, *PROCESSOR_FILES):
            return self.processor.tiles(sample.image_inputs)

    def save_processor(self, directory: Path) -> None:
        """Write the checkpoint files other than weights and config.json."""
        self.processor.save(directory)

    def _sample(self, encode: Callable[..., TokenizedRow], row: Row, images: Path, max_length: int | None) -> Sample:
        placeholders = self._image_placeholders(row, images)  # raises for unreadable images
        if max_length is not None:
            encode(row, placeholders, max_length)  # raises for rows that are too long, before reading pixels
        loaded = row_images.load(row, images)
        with convert_errors(self.directory, *PROCESSOR_FILES):
            try:
                image_inputs, texts = self.processor.process(loaded)
            except (ValueError, ZeroDivisionError) as error:
                raise RowError(row.id, "has images that the processor does not support", f"{error}") from None
        encoded = encode(row, texts, max_length)
        return Sample(torch.tensor(encoded.input_ids), torch.tensor(encoded.labels), image_inputs)

    def _image_placeholders(self, row: Row, images: Path) -> list[str]:
        """Return placeholder text for each image with its number of tokens, from its header."""
        if self.spec.single_turn and len(row.conversations) > 1:
            raise RowError(
                row.id,
                f"has {len(row.conversations)} turns, but this model can only be trained on the last one",
                "Split the row into one row per turn.",
            )
        sizes = row_images.sizes(row, images)
        with convert_errors(self.directory, *PROCESSOR_FILES):
            return [
                self._image_placeholder(row.id, path, size, len(sizes))
                for path, size in zip(row_images.paths(row), sizes, strict=True)
            ]

    def _image_placeholder(self, row_id: str, path: str, size: ImageSize, images: int) -> str:
        try:
            tokens = self._profile.image_tokens(size, images, self._row_tokenizer.count).low
        except (UnsupportedShape, ValueError, ZeroDivisionError) as error:
            problem = f"has an image whose shape this model does not support: {path!r}: {error}"
            raise RowError(row_id, problem, "Crop it, or leave it out.") from None
        before, after = self.spec.image_frame
        return before + self.processor.image_token * (tokens - self.spec.wrapper_tokens) + after

    def _stop_token_ids(self) -> tuple[int, ...]:
        """Return the tokens that end an answer, and those of generation_config.json."""
        configured = read_json(self.directory / "generation_config.json").get("eos_token_id")
        ids = [self.tokenizer.convert_tokens_to_ids(self._row_tokenizer.end), self.tokenizer.eos_token_id]
        with convert_errors(self.directory, "generation_config.json"):
            ids += _ids("eos_token_id", configured if isinstance(configured, list) else [configured])
        return tuple(dict.fromkeys(id for id in ids if id is not None))


def _profile_name(profile: str, options: dict[str, int]) -> str:
    """Return the profile with its options, as for `--model`."""
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{name} should be an integer for {profile}")
    return canonical_name(f"{profile}:{','.join(f'{name}={value}' for name, value in options.items())}")


def _ids(name: str, values: list[Any]) -> list[int]:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | None):
            raise ValueError(f"{name} should be an integer or a list of integers, not {value!r}")
    return [value for value in values if value is not None]
