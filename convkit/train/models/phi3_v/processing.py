"""Process prompts with `<|image_1|>` tags into token ids with placeholders, and images into pixels."""

import re
from collections.abc import Sequence
from typing import Any

import PIL.Image
import torch
from transformers import AutoTokenizer, BatchFeature, ProcessorMixin

from convkit.errors import ConvkitError
from convkit.train.models.checkpoint_files import PROCESSOR_FILES, TOKENIZER_FILES, convert_errors
from convkit.train.models.phi3_v.configuration import IMAGE_TOKEN_ID
from convkit.train.models.phi3_v.image_processing import Phi3VImageProcessor

IMAGE_TOKEN = "<|image|>"
_TAG = re.compile(r"<\|image_(\d+)\|>")


class Phi3VProcessor(ProcessorMixin):  # type: ignore[misc]
    """Tokenizer and image processor for generation prompts.

    Training rows are tokenized by `convkit.train.models.phi3_v.tokenize`, where tags and control tokens in a row's text
    are plain text.
    """

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    @classmethod
    def _get_arguments_from_pretrained(cls, name: Any, processor_dict: Any = None, **kwargs: Any) -> list[Any]:
        """Load the parts by class, because AutoImageProcessor needs torchvision before transformers 5.23."""
        with convert_errors(name, *PROCESSOR_FILES):
            image_processor = Phi3VImageProcessor.from_pretrained(name, **kwargs)
        with convert_errors(name, *TOKENIZER_FILES):
            return [image_processor, AutoTokenizer.from_pretrained(name, **{**kwargs, "trust_remote_code": False})]

    @property
    def image_token_id(self) -> int:
        """The placeholder for each image token."""
        found: int | None = self.tokenizer.get_vocab().get(IMAGE_TOKEN)
        return IMAGE_TOKEN_ID if found is None else found

    def __call__(
        self,
        images: PIL.Image.Image | Sequence[Any] | None = None,
        text: str | Sequence[str] | None = None,
        num_crops: int | None = None,
        official_layout: bool = False,
        **_: Any,
    ) -> BatchFeature:
        """Convert one or several prompts to model inputs, padded on the left.

        Args:
            images: the images of one prompt, or one list per prompt.
            text: a prompt or prompts with tags `<|image_1|>`, `<|image_2|>`, … numbered within each prompt.
            num_crops: maximum number of tiles per image.
            official_layout: pad and normalise pixel values, see `Phi3VImageProcessor.preprocess`.

        Returns:
            `input_ids`, `attention_mask`: (B, T) int64; with images `pixel_values` and `image_sizes`.

        Raises:
            ConvkitError: there is no text, or tags and images do not match.
        """
        if text is None:
            raise ConvkitError("The processor needs text. To process images only, call its image_processor.")
        texts = [text] if isinstance(text, str) else list(text)
        by_prompt = _by_prompt(images, len(texts))
        flat = [image for group in by_prompt for image in group]
        image_inputs = dict(
            self.image_processor.preprocess(flat, num_crops=num_crops, official_layout=official_layout) if flat else {}
        )
        counts = iter(image_inputs.pop("num_img_tokens", ()))
        rows = [
            self.prompt_ids(prompt, [next(counts) for _ in group])
            for prompt, group in zip(texts, by_prompt, strict=True)
        ]
        longest = max(map(len, rows))
        pad = self.tokenizer.pad_token_id
        return BatchFeature(
            {
                "input_ids": torch.tensor([[pad] * (longest - len(row)) + row for row in rows]),
                "attention_mask": torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows]),
                **image_inputs,
            }
        )

    def prompt_ids(self, text: str, counts: Sequence[int]) -> list[int]:
        """Return the token ids of a prompt; a BOS comes first and after each image.

        Args:
            text: the prompt, with tags.
            counts: the number of tokens of each image.

        Raises:
            ConvkitError: the tags are not numbered from 1 to `len(counts)`.
        """
        pieces = _TAG.split(text)
        tags = [int(number) for number in pieces[1::2]]
        if tags != list(range(1, len(counts) + 1)):
            found = ", ".join(f"<|image_{tag}|>" for tag in tags) or "none"
            raise ConvkitError(
                f"The prompt's image tags do not match its images. Tags: {found}. Images: {len(counts)}. Write one tag "
                "<|image_k|> for each image, numbered from 1 in order."
            )
        ids: list[int] = []
        for index, piece in enumerate(pieces[::2]):
            if index:
                ids += [self.image_token_id] * counts[index - 1]
            ids += [self.tokenizer.bos_token_id, *self.tokenizer(piece, add_special_tokens=False).input_ids]
        return ids


def _by_prompt(images: Any, prompts: int) -> list[list[Any]]:
    if images is None:
        return [[] for _ in range(prompts)]
    if isinstance(images, PIL.Image.Image):
        images = [images]
    groups = list(images)
    if not any(isinstance(group, list | tuple) for group in groups):
        if prompts > 1 and groups:
            raise ConvkitError(
                "Several prompts need one list of images each; pass an empty list for a prompt without images."
            )
        return [groups] if prompts == 1 else [[] for _ in range(prompts)]
    if len(groups) != prompts:
        raise ConvkitError(f"There are {prompts} prompts, but {len(groups)} lists of images: pass one list per prompt.")
    return [list(group) for group in groups]
