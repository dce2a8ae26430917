"""Packs of the plan as batches, read by worker processes ahead of the model."""

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
from convkit.train.data.index import Index
from convkit.train.data.schedule import Pack
from convkit.train.models.collate import Sample
from convkit.train.models.family import ModelFamily
from convkit.train.models.tokenize import IGNORE_INDEX

Batch = dict[str, Any]
_AHEAD = 4


class Packs(Dataset[Any]):
    """Batches by the numbers of their rows.

    Args:
        everywhere: whether each must go through all of the model: then one without images gets the lightest row as a
            companion, of which nothing is learnt. Otherwise processes that share a model would wait for one another.
    """

    def __init__(self, index: Index, images: Path, family: ModelFamily, everywhere: bool = False) -> None:
        self._index, self._images, self._family, self._everywhere = index, images, family, everywhere

    def batch(self, pack: Pack) -> Batch:
        """Read and decode what a pack needs; an empty one needs `everywhere`.

        Raises:
            ConvkitError: a row cannot be read, or is not as long any more as when the run was planned.
        """
        samples = [self._sample(number) for number in pack]
        if self._everywhere and (not samples or self._lacks_images(samples)):
            companion = self._sample(self._index.lightest)
            samples.append(replace(companion, labels=torch.full_like(companion.labels, IGNORE_INDEX)))
        batch = self._family.collate(samples, packed=self._family.supports_packing)
        if self._family.supports_packing:  # found here, where looking at labels costs the GPU no time
            batch["logits_to_keep"] = (batch["labels"][0, 1:] != IGNORE_INDEX).nonzero()[:, 0]
        return batch

    def _lacks_images(self, samples: list[Sample]) -> bool:
        return self._index.shortest_with_images is not None and not any(sample.image_inputs for sample in samples)

    def _sample(self, number: int) -> Sample:
        row = self._index.row(number)
        sample = self._family.encode(row, self._images)
        if len(sample) != self._index.tokens[number]:
            raise ConvkitError(
                f"Row {row.id!r} has {len(sample):,} tokens now, but had {self._index.tokens[number]:,} when the "
                "run was planned: its images have changed. Restore them, or validate the data set again."
            )
        return sample

    def __getitem__(self, pack: Pack) -> Batch | ConvkitError:
        try:
            return self.batch(pack)
        except ConvkitError as error:  # as a value: a worker's exceptions come back with its traceback in the message
            return ConvkitError(str(error))


class _Order(Sampler[Pack]):
    """A stream of packs, as torch asks for it."""

    def __init__(self, packs: Iterator[Pack]) -> None:
        self._packs = packs

    def __iter__(self) -> Iterator[Pack]:
        return self._packs


def batches(packs: Dataset[Any], order: Iterator[Pack], workers: int) -> Generator[Batch]:
    """The batches of packs, in their order whatever the number of workers.

    Raises:
        ConvkitError: see `Packs.batch`.
    """
    loader: DataLoader[Any] = DataLoader(
        packs,
        batch_size=None,
        sampler=_Order(order),
        num_workers=workers,
        prefetch_factor=_AHEAD if workers else None,
        collate_fn=_as_is,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_leave_signals,
    )
    for outcome in loader:
        if isinstance(outcome, ConvkitError):
            raise outcome
        yield outcome


@contextmanager
def reading() -> Iterator[None]:
    """Around whatever goes on while `batches` reads: torch raises in the midst of it where a worker process was killed.

    Raises:
        ConvkitError: one was.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise ConvkitError(
            f"A process that reads images has died, mostly for want of memory: {str(error).splitlines()[0]} Have fewer "
            "with --dataloader_num_workers, or give the machine or container more memory, or room in /dev/shm. Then "
            "run the same again; a training run goes on with --resume auto."
        ) from None


def _as_is(batch: Any) -> Any:
    return batch


def _leave_signals(worker: int) -> None:
    """A scheduler signals all processes of a job at once; the first process must still get its batches, and saves."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@atexit.register
def _end_workers() -> None:
    """Those that an unforeseen error has left: asked by SIGTERM alone, they would be waited for without end.

    Only daemons, which torch's workers are: whoever started others waits for them.
    """
    workers = [worker for worker in multiprocessing.active_children() if worker.daemon]
    if workers:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would raise for each of them
    for worker in workers:
        worker.kill()
