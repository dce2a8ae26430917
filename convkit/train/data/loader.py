"""Data loading: read the schedule's micro-batches in worker processes, ahead of the model."""

import atexit
import multiprocessing
import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from convkit.errors import ConvkitError
from convkit.train.data.index import Index, encode
from convkit.train.data.schedule import MicroBatch
from convkit.train.models.collate import Sample
from convkit.train.models.family import ModelFamily
from convkit.train.models.tokenize import IGNORE_INDEX

Batch = dict[str, Any]
_PREFETCH = 4
"""Micro-batches that each worker process reads ahead."""


class MicroBatches(Dataset[Any]):
    """Model inputs by the indices of their rows.

    Args:
        add_dummy_sample: add the lightest row, without labels, to each micro-batch that has no image. Every micro-batch
            then runs the vision tower, as sharded models need it: a rank that skips modules makes the others wait.
    """

    def __init__(self, index: Index, images: Path, family: ModelFamily, add_dummy_sample: bool = False) -> None:
        self._index, self._images, self._family, self._add_dummy_sample = index, images, family, add_dummy_sample

    def batch(self, micro_batch: MicroBatch) -> Batch:
        """Read, decode and collate the rows of a micro-batch; an empty one needs `add_dummy_sample`.

        Raises:
            ConvkitError: a row cannot be read, or its length differs from the one in the schedule.
        """
        samples = [self._sample(number) for number in micro_batch]
        if self._add_dummy_sample and (not samples or self._misses_images(samples)):
            dummy = self._sample(self._index.lightest)
            samples.append(replace(dummy, labels=torch.full_like(dummy.labels, IGNORE_INDEX)))
        batch = self._family.collate(samples, packed=self._family.supports_packing)
        if self._family.supports_packing:  # computed here, where reading labels does not make the GPU wait
            batch["logits_to_keep"] = (batch["labels"][0, 1:] != IGNORE_INDEX).nonzero()[:, 0]
        return batch

    def _misses_images(self, samples: list[Sample]) -> bool:
        return self._index.shortest_with_images is not None and not any(sample.image_inputs for sample in samples)

    def _sample(self, number: int) -> Sample:
        return encode(self._index, number, self._family, self._images)

    def __getitem__(self, micro_batch: MicroBatch) -> Batch | ConvkitError:
        try:
            return self.batch(micro_batch)
        except ConvkitError as error:  # returned, because torch puts a worker's traceback into a raised message
            return ConvkitError(str(error))


class _FixedOrder(Sampler[MicroBatch]):
    """Pass a given order of micro-batches to torch's DataLoader."""

    def __init__(self, micro_batches: Iterator[MicroBatch]) -> None:
        self._micro_batches = micro_batches

    def __iter__(self) -> Iterator[MicroBatch]:
        return self._micro_batches


def batches(dataset: Dataset[Any], order: Iterator[MicroBatch], workers: int) -> Generator[Batch]:
    """Yield the batches of micro-batches in the given order, whatever the number of worker processes.

    Raises:
        ConvkitError: see `MicroBatches.batch`.
    """
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=None,
        sampler=_FixedOrder(order),
        num_workers=workers,
        prefetch_factor=_PREFETCH if workers else None,
        collate_fn=_unchanged,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_ignore_sigterm,
    )
    for outcome in loader:
        if isinstance(outcome, ConvkitError):
            raise outcome
        yield outcome


@contextmanager
def worker_errors() -> Iterator[None]:
    """Explain torch's error about a data-loading process that was killed; torch raises it at any point.

    Raises:
        ConvkitError: a data-loading process was killed.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise ConvkitError(
            "A data-loading process was killed, most often because memory ran out: "
            f"{str(error).splitlines()[0]} Lower --dataloader_num_workers, or give the machine or container more "
            "memory or a larger /dev/shm. Then run the same command again; a training run continues with --resume auto."
        ) from None


def _unchanged(batch: Any) -> Any:
    return batch


def _ignore_sigterm(worker: int) -> None:
    """Ignore SIGTERM, which a scheduler sends to all processes: the main process needs its batches until it saves."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@atexit.register
def _kill_workers() -> None:
    """Kill workers left by an unexpected error: they ignore SIGTERM, so Python would wait for them forever.

    Only daemon processes are killed, as torch's workers are; other processes belong to whoever started them.
    """
    workers = [worker for worker in multiprocessing.active_children() if worker.daemon]
    if workers:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would raise for each of them
    for worker in workers:
        worker.kill()
