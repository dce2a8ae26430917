"""A process pool with ordered results, lazy input and bounded memory that survives crashed workers.

Video and image decoders are C code that may crash on hostile files. A crashed worker costs neither the run nor other
items: the items in flight run again one by one, and `on_crash` answers for the item that kills its worker again.
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
"""The work per chunk of items: long enough to hide the transfer, short enough to balance the workers."""
MAX_CHUNK = 256
CHUNKS_AHEAD = 3
"""Chunks in flight per worker; bounds the memory of waiting results."""

DEATH_CHECK_S = 0.5
"""Seconds between checks for dead workers that the pool has not noticed."""

MAX_WORKERS_PER_CPU = 4
"""The most workers per CPU that a user may ask for."""


def default_workers() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_workers(workers: int) -> None:
    """Refuse a number of workers so high that it must be a typing error.

    Raises:
        ConvkitError: there are more than `MAX_WORKERS_PER_CPU` workers per CPU.
    """
    cpus = default_workers()
    if workers > MAX_WORKERS_PER_CPU * cpus:
        raise ConvkitError(
            f"{workers:,} workers are more than {MAX_WORKERS_PER_CPU} per CPU, and this process may use {cpus} CPUs. "
            f"Pass --workers {cpus}, or leave it out."
        )


def run(
    task: Callable[[T], R],
    items: Iterable[T],
    workers: int,
    on_crash: Callable[[T], R],
    imports: Sequence[str] = (),
) -> Generator[R, None, None]:
    """Map `task` over `items` in `workers` processes, and yield the results in the order of the items.

    Close the generator (`contextlib.closing`) if you may stop early; this ends the workers.

    Args:
        task: picklable; an exception that it raises ends the run.
        items: read lazily, a bounded number ahead of the results.
        workers: the number of processes; 0 runs everything in this process.
        on_crash: returns the result of an item that killed its worker.
        imports: modules that the task needs; workers start with them loaded.
    """
    if workers == 0:
        yield from map(task, items)
        return
    pool = _Pool(task, workers, imports)
    try:
        yield from pool.results(iter(items), on_crash)
    except BaseException:
        pool.kill()  # the results are not needed, and an item may take minutes
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
        in_flight: deque[tuple[list[T], Future[tuple[list[R], float]]]] = deque()
        while True:
            while len(in_flight) < self._workers * CHUNKS_AHEAD and (chunk := list(islice(items, self._chunk_size))):
                in_flight.append((chunk, self._submit(chunk)))
            if not in_flight:
                return
            chunk, future = in_flight.popleft()
            try:
                results, seconds = self._wait_for(future)
            except BrokenProcessPool:
                chunks = [chunk, *(waiting for waiting, _ in in_flight)]
                in_flight.clear()
                yield from self._recover([item for chunk in chunks for item in chunk], on_crash)
            else:
                self._adapt(len(chunk), seconds)
                yield from results

    def _submit(self, chunk: list[T]) -> "Future[tuple[list[R], float]]":
        try:
            with _interrupts_wait():  # this may start a worker
                return self._executor.submit(_run_chunk, self._task, chunk)
        except BrokenProcessPool as error:
            # A worker died between two submissions; the error is raised when it is this chunk's turn.
            future: Future[tuple[list[R], float]] = Future()
            future.set_exception(error)
            return future

    def _wait_for(self, future: "Future[A]") -> A:
        """Wait for a result; kill the workers if the pool hangs on a result that a dead worker sent only in part."""
        died = False
        while not wait_for([future], DEATH_CHECK_S).done:
            if died:
                self._kill_workers()
            died = bool(wait([worker.sentinel for worker in self._started()], 0))
        return future.result()

    def _recover(self, items: list[T], on_crash: Callable[[T], R]) -> Iterator[R]:
        """Run the items one at a time, to find the item that kills its worker; then start a new pool."""
        self.close()
        self._executor = self._start(1)
        self._refuse_unstartable()
        for item in items:
            try:
                results, _ = self._wait_for(self._submit([item]))
            except BrokenProcessPool:
                results = [on_crash(item)]
                self.close()
                self._executor = self._start(1)
            yield from results
        self.close()
        self._executor = self._start(self._workers)

    def _start(self, workers: int) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(workers, self._context, _initialize_worker)

    def _adapt(self, items: int, seconds: float) -> None:
        wanted = int(CHUNK_SECONDS * items / max(seconds, 1e-6))
        self._chunk_size = max(1, min(wanted, MAX_CHUNK, self._chunk_size * 2))

    def _refuse_unstartable(self) -> None:
        """Raise an error if no worker can start at all, instead of rejecting the items."""
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
        """End the workers at once, even if a second Ctrl-C arrives."""
        with _interrupts_wait():
            self._kill_workers()
            self.close()

    def _kill_workers(self) -> None:
        for worker in self._started():
            worker.kill()
        if results := self._executor._result_queue:
            # The pool may be waiting for the rest of a partly sent result. It gives up at the end of the pipe, whose
            # other end this process holds open as well.
            results._writer.close()  # type: ignore[attr-defined]

    def _started(self) -> list[Any]:
        return list((self._executor._processes or {}).values())

    def close(self) -> None:
        """Wait for the workers to end."""
        self._executor.shutdown(wait=True, cancel_futures=True)


def _context(imports: Sequence[str]) -> BaseContext:
    """Return the start method of workers: forks of a server process that has only imported the modules they need.

    Workers therefore start fast, and inherit no lock, open file or decoder thread of this process. Where system
    libraries do not survive a fork, as on macOS, each worker is a new interpreter.
    """
    # Limit NumPy's linear algebra, which is not used here, to one thread: starting more slows every worker down.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(imports))
    return context


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Block Ctrl-C until the end of the block, and for good in a worker that starts inside it.

    Ctrl-C reaches the whole process group, and a worker before its initializer would print a traceback.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run_chunk(task: Callable[[T], R], chunk: Sequence[T]) -> tuple[list[R], float]:
    started = time.perf_counter()
    return [task(item) for item in chunk], time.perf_counter() - started


def _initialize_worker() -> None:
    """Prepare a worker process for its tasks."""
    gc.freeze()  # scanning the imported modules for garbage costs 10 % of the time for small items
    _end_with_parent()


def _end_with_parent() -> None:
    """End this worker with its parent; after a SIGKILL of the parent, the queue alone would keep it running."""
    # Skip the interpreter's shutdown, which takes 0.1 seconds that the parent would wait for.
    atexit.register(os._exit, 0)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()
