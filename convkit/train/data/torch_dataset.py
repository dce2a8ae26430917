"""A split as a map-style PyTorch dataset, for the Trainer of transformers, TRL, or a training loop of your own."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils.data import Dataset as TorchMapDataset

from convkit import receipt
from convkit.dataset import Dataset
from convkit.errors import ConvkitError, MissingExtra
from convkit.train.data import index
from convkit.train.models import model_family
from convkit.train.models.collate import Sample
from convkit.train.models.family import ModelFamily
from convkit.utils.progress import ProgressBars, no_progress_bar

if TYPE_CHECKING:
    import datasets


class TorchDataset(TorchMapDataset[dict[str, Tensor]]):
    """The rows of a split as model inputs, encoded when they are read; see `Dataset.to_torch`.

    Items have `input_ids` and `labels`, (T) int64, and the image inputs of the model's processor.
    """

    def __init__(
        self,
        dataset: Dataset,
        model: Path,
        split: str = "train",
        *,
        max_tokens: int | None = None,
        drop_overlong: bool = False,
        num_crops: int | None = None,
        require_receipt: bool = True,
        bars: ProgressBars = no_progress_bar,
    ) -> None:
        self._model, self._num_crops, self._images = model, num_crops, dataset.images
        family = self.family
        if require_receipt:
            receipt.require(dataset.directory, family.profile)
        with bars("counting tokens", "rows") as update:
            self._index = index.build(
                dataset,
                split,
                lambda row: family.length(row, dataset.images),
                _NO_LIMIT if max_tokens is None else max_tokens,
                update,
                drop_overlong,
            )

    @cached_property
    def family(self) -> ModelFamily:
        """The model family, which encodes rows. Each worker process that is spawned creates its own."""
        return model_family(self._model, self._num_crops)

    @property
    def lengths(self) -> Sequence[int]:
        """The number of tokens of each row, for samplers that group rows by length."""
        return self._index.tokens

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """Return the tensors of one row, encoded now.

        Raises:
            ConvkitError: the row or one of its images has changed or cannot be read.
        """
        if not -len(self) <= number < len(self):
            raise IndexError(f"row {number} of {len(self)}")
        try:
            sample = index.encode(self._index, number % len(self), self.family, self._images)
        except ConvkitError as error:  # of a type that a worker process can send
            raise ConvkitError(str(error)) from None
        return {"input_ids": sample.input_ids, "labels": sample.labels, **sample.image_inputs}

    def collate(self, examples: Sequence[Mapping[str, Tensor | None]]) -> dict[str, Any]:
        """Collate examples into a padded batch of the model's inputs; pass it as `data_collator`."""
        return self.family.collate([_sample(example) for example in examples], packed=False)

    def as_hf(self) -> "datasets.Dataset":
        """Return the same items as a `datasets.Dataset`, which the SFTTrainer of TRL requires.

        Rows are still encoded when they are read. Set `remove_unused_columns=False` in the trainer's arguments.

        Raises:
            MissingExtra: the package datasets is not installed.
        """
        try:
            import datasets
        except ModuleNotFoundError:
            raise MissingExtra("datasets", "hf", "TorchDataset.as_hf") from None
        return datasets.Dataset.from_dict({"row": range(len(self))}).with_transform(self._columns)

    def _columns(self, batch: dict[str, Sequence[int]]) -> dict[str, list[Tensor | None]]:
        """Return rows by column; an image input of a row without images is None if others have images."""
        rows = [self[number] for number in batch["row"]]
        return {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "family"}


_NO_LIMIT = 2**32 - 1


def _sample(example: Mapping[str, Tensor | None]) -> Sample:
    tensors = {name: value for name, value in example.items() if value is not None}
    return Sample(tensors.pop("input_ids"), tensors.pop("labels"), tensors)
