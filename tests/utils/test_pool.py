"""The process pool keeps the order, reads a bounded number ahead, and survives crashed workers."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from convkit.utils import pool
from tests.conftest import ROOT
from tests.utils import tasks


def _crash(item: int) -> int:
    return -item


def _never(item: object) -> int:
    raise AssertionError(f"{item} killed no worker")


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("count", [0, 1, 5, 2000])
def test_results_come_in_the_order_of_the_items(workers: int, count: int) -> None:
    assert list(pool.run(tasks.double, range(count), workers, _never)) == [2 * item for item in range(count)]


def test_zero_workers_use_this_process() -> None:
    assert set(pool.run(tasks.process_id, range(3), 0, _never)) == {os.getpid()}


def test_workers_are_other_processes() -> None:
    assert os.getpid() not in set(pool.run(tasks.process_id, range(3), 1, _never))


def test_without_workers_nothing_is_read_ahead() -> None:
    items = iter(range(10))
    results = pool.run(tasks.double, items, 0, _never)
    assert (next(results), next(results), next(items)) == (0, 2, 2)


def test_no_item_is_read_before_the_first_result_is_asked_for() -> None:
    items = iter(range(10))
    results = pool.run(tasks.double, items, 1, _never)
    assert next(items) == 0
    assert next(results) == 2


def test_endless_items_are_read_a_bounded_number_ahead() -> None:
    read = 0

    def endless() -> Iterator[int]:
        nonlocal read
        while True:
            read += 1
            yield read

    results = pool.run(tasks.double, endless(), 2, _never)
    next(results)
    assert read == 2 * pool.CHUNKS_AHEAD
    ahead = [read - done for done, _ in enumerate(itertools.islice(results, 5000), 2)]
    results.close()
    assert max(ahead) <= 2 * (pool.CHUNKS_AHEAD + 1) * pool.MAX_CHUNK


@pytest.mark.parametrize("workers", [0, 2])
def test_an_exception_of_the_task_ends_the_run_in_its_turn(workers: int) -> None:
    results = pool.run(tasks.fail_at_five, range(100), workers, _never)
    assert list(itertools.islice(results, 5)) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="five"):
        next(results)
    assert list(results) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_an_exception_of_the_items_ends_the_run(workers: int) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        list(pool.run(tasks.double, items(), workers, _never))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_item_that_kills_its_worker_costs_no_other(workers: int) -> None:
    expected = [-item if item % 10 == 7 else item for item in range(20)]
    assert list(pool.run(tasks.die_at_sevens, range(20), workers, _crash)) == expected


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_dies_while_sending_is_detected(workers: int) -> None:
    """Otherwise the pool would keep reading, and the other worker would wait to send."""
    expected = [-item if item % 10 == 7 else item for item in range(10)]
    assert list(pool.run(tasks.die_sending_sevens, range(10), workers, _crash)) == expected


def test_the_last_item_may_kill_its_worker() -> None:
    assert list(pool.run(tasks.die_at_sevens, range(8), 1, _crash)) == [*range(7), -7]


def test_an_item_that_dies_once_gets_its_result(tmp_path: Path) -> None:
    items = [(number, str(tmp_path / "died")) for number in range(6)]
    assert list(pool.run(tasks.die_once, items, 1, _never)) == list(range(6))
    assert (tmp_path / "died").exists()


def test_a_crash_among_quick_items_does_not_cost_a_process_for_each() -> None:
    """Hundreds of quick items are in flight; a process per item would take a minute."""
    ids = list(pool.run(tasks.die_at_1500, range(2000), 2, _crash))
    assert ids[1500] == -1500
    assert len(set(ids)) < 10


LOADED = """
import sys
from tests.utils import tasks
from convkit.utils import pool

loaded = list(pool.run(tasks.is_loaded, ["colorsys", "chunk"], 1, print, imports=["colorsys"]))
print(loaded, "colorsys" in sys.modules)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers are started anew")
def test_workers_start_with_what_the_task_needs() -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    output = subprocess.run([sys.executable, "-c", LOADED], env=env, capture_output=True, text=True, check=True).stdout
    assert output == "[True, False] False\n"


@pytest.mark.parametrize("started", [False, True])
def test_abandoned_results_leave_no_process(started: bool) -> None:
    results = pool.run(tasks.process_id, range(100), 2, _never)
    workers = {next(results)} if started else set()
    results.close()
    assert [pid for pid in workers if Path(f"/proc/{pid}").exists()] == []


def test_abandoned_results_need_not_be_sent_completely(tmp_path: Path) -> None:
    """A worker is killed while the pool reads what it sends."""
    fifo = tmp_path / "half is sent"
    os.mkfifo(fifo)
    results = pool.run(tasks.never_send_all, ["", str(fifo)], 1, _never)
    assert next(results) == ""
    fifo.open("rb").close()  # waits for the other end
    results.close()


def test_the_default_is_one_worker_per_cpu() -> None:
    assert pool.default_workers() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("imports", [[], ["__main__"]])
def test_workers_that_cannot_start_do_not_reject_items(imports: list[str], tmp_path: Path) -> None:
    """Each worker imports the unguarded script, which starts workers again."""
    run = f"pool.run(abs, [1, 2], 1, lambda item: 'blamed', {imports})"
    script = tmp_path / "unguarded.py"
    script.write_text(f"from convkit.utils import pool\nprint(list({run}))\n")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert "worker processes cannot start" in done.stderr
    assert "blamed" not in done.stdout
