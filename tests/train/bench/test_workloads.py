"""Synthetic workloads: their token counts, kinds of rows, and determinism."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from convkit.train.bench.random_model import RandomPhi3V
from convkit.train.bench.synthetic import write_dataset
from convkit.train.bench.workloads import WORKLOADS, RowShape
from tests.train.bench.helpers import CPU


@pytest.mark.parametrize(("name", "tokens"), [("document", 2559), ("video", 6109)])
def test_rows_have_as_many_tokens_as_the_recipes(name: str, tokens: int, tmp_path: Path) -> None:
    workload = WORKLOADS[name]
    family = RandomPhi3V(tmp_path / "model", "tiny", workload.num_crops, CPU, seed=0)
    data = write_dataset(workload, 3, family, tmp_path / "data")
    assert set(data.index.tokens) == {tokens}


def test_the_mixture_has_all_kinds_of_rows_and_is_deterministic() -> None:
    def rows() -> Iterator[RowShape]:
        random = Random(0)
        return (WORKLOADS["mixed"].draw(random) for _ in range(100))

    found = list(rows())
    assert {len(row.images) for row in found} == {0, 1, 2, 3, 4, 8}
    assert {row.kind for row in found if len(row.images) == 1} == {"page", "noise"}
    assert found == list(rows())
