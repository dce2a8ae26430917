"""The model family of Phi-3-vision and Phi-3.5-vision."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from convkit.errors import ConvkitError
from convkit.profiles import canonical_name
from convkit.schema import Row
from convkit.train.models import row_images
from convkit.train.models.checkpoint_files import (
    CONFIG_FILES,
    PROCESSOR_FILES,
    TOKENIZER_FILES,
    check_image_token,
    check_json,
    convert_errors,
)
from convkit.train.models.collate import Sample, pack, pad
from convkit.train.models.family import RowLength
from convkit.train.models.kernels.attention import VARLEN
from convkit.train.models.kernels.pad_packed import padded_indices
from convkit.train.models.phi3_v.image_processing import ImageRatioError, check_num_crops, hd_size, size_pairs
from convkit.train.models.phi3_v.modeling import Phi3VForCausalLM
from convkit.train.models.phi3_v.processing import Phi3VProcessor
from convkit.train.models.phi3_v.tokenize import Phi3VRowTokenizer
from convkit.train.models.tokenize import IGNORE_INDEX, RowError, TokenizedRow

ROLE_TOKENS = frozenset(("<|system|>", "<|user|>", "<|assistant|>"))
PROFILE = "phi-3.5-vision"
_STOP_TOKENS = ("<|end|>", "<|endoftext|>", "</s>")
_REQUIRED_TOKENS = ("bos_token", "eos_token", "pad_token")


class Phi3VFamily:
    """Implement `convkit.train.models.family.ModelFamily` for Phi-3-vision and Phi-3.5-vision.

    Args:
        directory: a checkpoint in the official layout.
        num_crops: maximum number of tiles per image. Default: the checkpoint's value.

    Raises:
        ConvkitError: a file of the checkpoint is damaged or belongs to another family, or num_crops is out of range.
    """

    vision_modules: tuple[str, ...] = ("model.vision_embed_tokens",)
    lora_targets: tuple[str, ...] = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj", "lm_head")
    vision_lora_targets: tuple[str, ...] = (
        *("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
        *("img_projection.0", "img_projection.2"),
    )
    image_token_ids: tuple[int, ...]
    compiled_layers: tuple[str, ...] = ("Phi3VDecoderLayer", "CLIPEncoderLayer")
    supports_packing = True

    def __init__(self, directory: Path, num_crops: int | None = None) -> None:
        self.directory = directory
        check_json(directory, *PROCESSOR_FILES, *TOKENIZER_FILES, *CONFIG_FILES)
        with convert_errors(directory, *PROCESSOR_FILES, *TOKENIZER_FILES):
            self.processor = Phi3VProcessor.from_pretrained(directory, local_files_only=True)
            _check_tokenizer(directory, self.processor.tokenizer)
        default = self.processor.image_processor.num_crops
        self.num_crops = default if num_crops is None else check_num_crops(num_crops)
        self.profile = canonical_name(f"{PROFILE}:num_crops={self.num_crops}")
        self.tokenizer = tokenizer = self.processor.tokenizer
        self.image_token_ids = (self.processor.image_token_id,)
        self._row_tokenizer = Phi3VRowTokenizer(tokenizer, self.processor.image_token_id, ROLE_TOKENS)
        self.stop_token_ids = tuple(tokenizer.convert_tokens_to_ids(list(_STOP_TOKENS)))

    def load(self, dtype: torch.dtype = torch.bfloat16, attention: str = VARLEN) -> Phi3VForCausalLM:
        """Load the model on the CPU; raises ConvkitError if the checkpoint is incomplete."""
        with convert_errors(self.directory, *CONFIG_FILES, "*.safetensors"):
            model: Phi3VForCausalLM = Phi3VForCausalLM.from_pretrained(
                self.directory,
                dtype=dtype,
                attn_implementation=attention,
                local_files_only=True,
                use_safetensors=True,
            )
        check_image_token(self.directory, model.config.image_token_id, self.image_token_ids[0])
        return model

    def encode(self, row: Row, images: Path, max_length: int | None = None) -> Sample:
        """Encode a row for training; raises RowError."""
        return self._sample(self._row_tokenizer.encode, row, images, max_length)

    def length(self, row: Row, images: Path) -> RowLength:
        """Return a row's number of tokens, from its image headers; raises RowError."""
        labels = self._tokenize(self._row_tokenizer.encode, row, images, None).labels
        return RowLength(len(labels), sum(label != IGNORE_INDEX for label in labels[1:]))

    def encode_prompt(self, row: Row, images: Path, max_length: int | None = None) -> Sample:
        """Encode the prompt of a row's last answer; raises RowError."""
        return self._sample(self._row_tokenizer.encode_prompt, row, images, max_length)

    def collate(self, samples: Sequence[Sample], packed: bool) -> dict[str, Any]:
        """Collate samples into a packed or padded batch."""
        if not packed:
            return pad(samples, self.processor.tokenizer.pad_token_id)
        return packed_batch(samples, self.processor.image_token_id)

    def tiles(self, sample: Sample) -> list[torch.Tensor]:
        """Return the tiles of all images, (3, 336, 336) uint8; the model computes the global view itself."""
        return list(sample.image_inputs.get("pixel_values", ()))

    def save_processor(self, directory: Path) -> None:
        """Write the processor with the `num_crops` used in training."""
        image_processor = self.processor.image_processor
        original, image_processor.num_crops = image_processor.num_crops, self.num_crops
        try:
            self.processor.save_pretrained(directory)
        finally:
            image_processor.num_crops = original

    def _sample(self, encode: Callable[..., TokenizedRow], row: Row, images: Path, max_length: int | None) -> Sample:
        encoded = self._tokenize(encode, row, images, max_length)
        loaded = row_images.load(row, images)  # only once the row is known to fit
        image_inputs = dict(self.processor.image_processor.preprocess(loaded, self.num_crops)) if loaded else {}
        image_inputs.pop("num_img_tokens", None)
        return Sample(torch.tensor(encoded.input_ids), torch.tensor(encoded.labels), image_inputs)

    def _tokenize(
        self, encode: Callable[..., TokenizedRow], row: Row, images: Path, max_length: int | None
    ) -> TokenizedRow:
        return encode(row, self._image_tokens(row, images), max_length)

    def _image_tokens(self, row: Row, images: Path) -> list[int]:
        counts = []
        for path, size in zip(row_images.paths(row), row_images.sizes(row, images), strict=True):
            try:
                counts.append(hd_size(*size, self.num_crops).tokens)
            except ImageRatioError as error:
                raise RowError(row.id, f"has an unusable image {path!r}", str(error)) from None
        return counts


def packed_batch(samples: Sequence[Sample], image_token_id: int) -> dict[str, Any]:
    """Pack samples, and compute on the CPU the indices that would otherwise need a GPU synchronization."""
    batch = pack(samples) | padded_indices([len(sample) for sample in samples])
    if "image_sizes" in batch:
        batch["image_sizes"] = size_pairs(batch["image_sizes"])
        batch["image_token_indices"] = (batch["input_ids"].flatten() == image_token_id).nonzero()[:, 0]
    return batch


def _check_tokenizer(directory: Path, tokenizer: Any) -> None:
    """Raise ConvkitError if the tokenizer does not have the tokens that this family needs."""
    missing = [name for name in _REQUIRED_TOKENS if getattr(tokenizer, name) is None]
    vocabulary = tokenizer.get_vocab()
    missing += [token for token in (*_STOP_TOKENS, *sorted(ROLE_TOKENS)) if token not in vocabulary]
    if missing:
        raise ConvkitError(
            f"The tokenizer in {directory} has no {', '.join(missing)}. Take {' and '.join(TOKENIZER_FILES[:2])} from "
            "the official checkpoint."
        )
