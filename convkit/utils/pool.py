"""Local processes: ordered, lazy on its input, bounded in memory, and alive after a worker's death.

Video and image decoders are C code fed with hostile files. A worker that crashes takes neither the run nor its
neighbours' items with it: the items that were in flight run again one by one, and the one that kills its worker
again is answered by `on_crash`.
"""

import atexit
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from typing import Any, Generic, TypeVar

from convkit.errors import ConvkitError

T = TypeVar("T")
R = TypeVar("R")
A = TypeVar("A")

CHUNK_SECONDS = 0.1
"""Items are sent in chunks of about this much work: large enough to hide the sending, small enough to share out."""
MAX_CHUNK = 256
CHUNKS_AHEAD = 3
"""Chunks in flight for each worker; bounds the memory of waiting results."""

PATIENCE_S = 0.5
"""How long a pool may take to notice that a worker died."""

WORKERS_EACH = 4
"""The most workers for each processor."""


def default_workers() -> int:
    """The processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_workers(workers: int) -> None:
    """Refuse a number that only costs memory, such as a slip of the finger.

    Raises:
        ConvkitError: there are more than `WORKERS_EACH` for each processor.
    """
    processors = default_workers()
    if workers > WORKERS_EACH * processors:
        raise ConvkitError(
            f"{workers:,} workers are more than {WORKERS_EACH} for each of the {processors} processors that this "
            f"process may use. Pass --workers {processors}, or leave it out."
        )


def run(
    task: Callable[[T], R],
    items: Iterable[T],
    workers: int,
    on_crash: Callable[[T], R],
    imports: Sequence[str] = (),
) -> Generator[R, None, None]:
    """Map `task` over `items` in `workers` processes; results come in the order of the items.

    Close it (`contextlib.closing`) if the results may not all be asked for: it ends the workers.

    Args:
        task: picklable. An exception it raises ends the run.
        items: consumed lazily, a bounded number ahead of the results.
        workers: number of processes; 0 runs everything in this process.
        on_crash: gives the result of an item that killed its worker.
        imports: modules that the task needs, which workers then start with.
    """
    if workers == 0:
        yield from map(task, items)
        return
    pool = _Pool(task, workers, imports)
    try:
        yield from pool.results(iter(items), on_crash)
    except BaseException:
        pool.kill()  # nobody wants the results; a clip may take minutes, and people press Ctrl-C twice
        raise
    pool.close()


class _Pool(Generic[T, R]):
    """A process pool that can be replaced when a worker dies."""

    def __init__(self, task: Callable[[T], R], workers: int, imports: Sequence[str]) -> None:
        self._task = task
        self._workers = workers
        self._context = _context(imports)
        self._executor = self._start(workers)
        self._chunk_size = 1

    def results(self, items: Iterator[T], on_crash: Callable[[T], R]) -> Iterator[R]:
        flying: deque[tuple[list[T], Future[tuple[list[R], float]]]] = deque()
        while True:
            while len(flying) < self._workers * CHUNKS_AHEAD and (chunk := list(islice(items, self._chunk_size))):
                flying.append((chunk, self._submit(chunk)))
            if not flying:
                return
            chunk, future = flying.popleft()
            try:
                results, seconds = self._answer(future)
            except BrokenProcessPool:
                chunks = [chunk, *(waiting for waiting, _ in flying)]
                flying.clear()
                yield from self._recover([item for chunk in chunks for item in chunk], on_crash)
            else:
                self._adapt(len(chunk), seconds)
                yield from results

    def _submit(self, chunk: list[T]) -> "Future[tuple[list[R], float]]":
        try:
            with _interrupts_wait():  # this may start a worker
                return self._executor.submit(_run_chunk, self._task, chunk)
        except BrokenProcessPool as error:
            # Another chunk's worker died between two submissions: the answer comes when this chunk's turn does.
            future: Future[tuple[list[R], float]] = Future()
            future.set_exception(error)
            return future

    def _answer(self, future: "Future[A]") -> A:
        """Wait for it; a pool that reads what a dying worker left half sent would let it wait for ever."""
        died = False
        while not wait_for([future], PATIENCE_S).done:
            if died:
                self._kill_workers()
            died = bool(wait([worker.sentinel for worker in self._started()], 0))
        return future.result()

    def _recover(self, items: list[T], on_crash: Callable[[T], R]) -> Iterator[R]:
        """Run the items one at a time, so that a death tells whose fault it is; then go on with a fresh pool."""
        self.close()
        self._executor = self._start(1)
        self._refuse_unstartable()
        for item in items:
            try:
                results, _ = self._answer(self._submit([item]))
            except BrokenProcessPool:
                results = [on_crash(item)]
                self.close()
                self._executor = self._start(1)
            yield from results
        self.close()
        self._executor = self._start(self._workers)

    def _start(self, workers: int) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(workers, self._context, _begin)

    def _adapt(self, items: int, seconds: float) -> None:
        wanted = int(CHUNK_SECONDS * items / max(seconds, 1e-6))
        self._chunk_size = max(1, min(wanted, MAX_CHUNK, self._chunk_size * 2))

    def _refuse_unstartable(self) -> None:
        """Blame no item where no worker comes up at all."""
        try:
            with _interrupts_wait():
                future = self._executor.submit(os.getpid)
            future.result()
        except BrokenProcessPool:
            raise ConvkitError(
                "worker processes cannot start. In a script of your own, put the call under "
                'if __name__ == "__main__": or pass workers=0.'
            ) from None

    def kill(self) -> None:
        """End the workers at once; a second Ctrl-C waits for it."""
        with _interrupts_wait():
            self._kill_workers()
            self.close()

    def _kill_workers(self) -> None:
        for worker in self._started():
            worker.kill()
        if results := self._executor._result_queue:
            # The pool may be reading what a worker was sending: it waits for the rest of it, or for the end of a pipe
            # that this process holds open as well.
            results._writer.close()  # type: ignore[attr-defined]

    def _started(self) -> list[Any]:
        return list((self._executor._processes or {}).values())

    def close(self) -> None:
        """Wait for the workers to end."""
        self._executor.shutdown(wait=True, cancel_futures=True)


def _context(imports: Sequence[str]) -> BaseContext:
    """How workers start: as copies of a process that has imported what they need and done nothing else.

    So they start at once, and inherit nothing of this process: no lock, no open file, no thread of a decoder. Where
    system libraries do not survive a fork, as on macOS, each is started anew.
    """
    # One thread each for NumPy's linear algebra, which nothing here uses: starting more costs every worker time.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(imports))
    return context


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Hold Ctrl-C back until the end of the block, and for ever in a worker that is started in it.

    It reaches the whole process group, and a worker that has not come to its initializer would print a traceback.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run_chunk(task: Callable[[T], R], chunk: Sequence[T]) -> tuple[list[R], float]:
    begun = time.perf_counter()
    return [task(item) for item in chunk], time.perf_counter() - begun


def _begin() -> None:
    """What a worker does first."""
    gc.freeze()  # what was imported stays; looking through it for garbage costs a tenth of the time for small items
    _end_with_parent()


def _end_with_parent() -> None:
    """Let this worker die with its parent: the queue alone would keep it alive, and writing, after a SIGKILL."""
    # The parent waits for its workers, and an interpreter takes a tenth of a second to take all modules apart.
    atexit.register(os._exit, 0)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()
