"""The image part of transformers' PixtralProcessor, which cannot be imported without torchvision."""

from typing import Any


class PixtralProcessor:
    """Write one token per patch, a break token after each row of patches, and an end token after the last.

    Args:
        patch_size: the side of a patch in pixels.
        spatial_merge_size: the side, in patches, of the square that becomes one token.
    """

    def __init__(
        self,
        image_processor: Any,
        tokenizer: Any,
        patch_size: int = 16,
        spatial_merge_size: int = 1,
        image_token: str = "[IMG]",
        image_break_token: str = "[IMG_BREAK]",
        image_end_token: str = "[IMG_END]",
    ) -> None:
        self.image_processor = image_processor
        self.image_token, self._break, self._end = image_token, image_break_token, image_end_token
        self.image_token_id = tokenizer.convert_tokens_to_ids(image_token)
        self.image_token_ids = tokenizer.convert_tokens_to_ids([image_token, image_break_token, image_end_token])
        self.patch_size, self.spatial_merge_size = patch_size, spatial_merge_size
        self._cell = patch_size * spatial_merge_size

    def _process_images(self, images: Any, **options: Any) -> tuple[Any, list[str]]:
        inputs = self.image_processor(images, patch_size=self._cell, **options)
        return inputs, [self._placeholder(int(height), int(width)) for height, width in inputs["image_sizes"]]

    def _placeholder(self, height: int, width: int) -> str:
        line = self.image_token * (width // self._cell) + self._break
        return (line * (height // self._cell)).removesuffix(self._break) + self._end
