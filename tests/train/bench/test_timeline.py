"""The timeline of a step: sections without gaps; and GPU activity, with overlaps counted once."""

import pytest

from convkit.train.bench import gpu
from convkit.train.bench.timeline import DATA, LANGUAGE, Timeline
from tests.train.bench.helpers import CPU


def test_all_time_of_a_step_belongs_to_a_section(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
    timeline = Timeline(CPU)
    timeline.enter(DATA)  # before the first step: belongs to none
    for _ in range(2):
        timeline.begin()
        timeline.enter(DATA)
        timeline.enter(LANGUAGE)
        timeline.enter(DATA)
    timeline.begin()
    assert timeline.steps() == [{"other": 1000.0, DATA: 2000.0, LANGUAGE: 1000.0}] * 2


def test_overlapping_spans_are_counted_once() -> None:
    assert gpu.covered_length([(10, 20), (0, 5), (12, 15), (18, 25), (30, 31)]) == 5 + 15 + 1
    assert gpu.covered_length([]) == 0
