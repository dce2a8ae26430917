"""Prompts with `<|image_1|>` tags to token ids with placeholders, and images to pixels."""

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
    """Tokenizer and image processor together, as prompts for generation need them.

    Training rows do not come through here (see `convkit.train.models.tokenize`): their text is data, in which a tag
    or a control token is nothing but text.
    """

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    @classmethod
    def _get_arguments_from_pretrained(cls, name: Any, processor_dict: Any = None, **kwargs: Any) -> list[Any]:
        """Load the parts by class: transformers' AutoImageProcessor asks for torchvision before 5.23."""
        with convert_errors(name, *PROCESSOR_FILES):
            image_processor = Phi3VImageProcessor.from_pretrained(name, **kwargs)
        with convert_errors(name, *TOKENIZER_FILES):
            return [image_processor, AutoTokenizer.from_pretrained(name, **{**kwargs, "trust_remote_code": False})]

    @property
    def image_token_id(self) -> int:
        """What stands for each token of an image."""
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
        """Make model inputs of one prompt or of several, which are padded on the left.

        Args:
            images: those of one prompt; of several prompts one list each.
            text: with tags `<|image_1|>`, `<|image_2|>`, … numbered through each prompt.
            num_crops: at most so many tiles an image.
            official_layout: pixel values padded and normalised, see `Phi3VImageProcessor.preprocess`.

        Returns:
            `input_ids`, `attention_mask`: (B, T) int64; with images `pixel_values` and `image_sizes`.

        Raises:
            ConvkitError: tags and images do not match.
        """
        if text is None:
            raise ConvkitError("The processor needs a text; to process images alone call its image_processor.")
        texts = [text] if isinstance(text, str) else list(text)
        by_prompt = _by_prompt(images, len(texts))
        flat = [image for group in by_prompt for image in group]
        media = dict(
            self.image_processor.preprocess(flat, num_crops=num_crops, official_layout=official_layout) if flat else {}
        )
        counts = iter(media.pop("num_img_tokens", ()))
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
                **media,
            }
        )

    def prompt_ids(self, text: str, counts: Sequence[int]) -> list[int]:
        """Token ids of a prompt whose images take `counts` tokens; a BOS stands first and after every image.

        Raises:
            ConvkitError: the tags are not those of `len(counts)` images, numbered from 1.
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
            raise ConvkitError("Several prompts need a list of images each, empty for a prompt without images.")
        return [groups] if prompts == 1 else [[] for _ in range(prompts)]
    if len(groups) != prompts:
        raise ConvkitError(f"There are {prompts} prompts, but {len(groups)} lists of images: pass one list each.")
    return [list(group) for group in groups]
