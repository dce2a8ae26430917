"""Assign groups of rows to splits, so that every split gets its share of each answer."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from convkit.errors import SourceError
from convkit.utils.union_find import UnionFind

if TYPE_CHECKING:
    from convkit.split.converter import PooledRow, SplitOptions

TOLERANCE = 1e-9
RARE = ""
"""The stratum that pools all answers too rare to appear in every split."""


def assign(strata: Sequence[Counter[str]], names: Sequence[str], options: "SplitOptions") -> list[str]:
    """Choose a split for each bundle of rows, independent of the order of the bundles.

    Bundles are taken in the order of a hash. Each goes to the split where it brings the shares of the answers closest
    to the ratios (by chi-square), among the splits that still have room for all its rows. If none has room, it goes to
    the split that misses most rows. The size of each split differs from its share by less than the largest bundle.

    Args:
        strata: the number of rows per answer, for each bundle.
        names: a name per bundle that does not depend on the order of rows.
    """
    ratios = options.ratios
    strata = _merge_rare(strata, min(ratios.values()))
    total = _sum(strata)
    missing = {split: ratio * total.total() for split, ratio in ratios.items()}
    assigned: dict[str, Counter[str]] = {split: Counter() for split in ratios}

    def cost(split: str, bundle: Counter[str]) -> float:
        terms = ((count, ratios[split] * total[a], assigned[split][a]) for a, count in sorted(bundle.items()))
        return sum(count * (2 * (has - share) + count) / share for count, share, has in terms)

    chosen: dict[int, str] = {}
    for index in sorted(range(len(names)), key=lambda i: (_hash(options.seed, names[i]), names[i])):
        bundle = strata[index]
        room = [split for split in ratios if missing[split] >= bundle.total() - TOLERANCE * total.total()]
        split = min(room, key=lambda s: cost(s, bundle)) if room else max(ratios, key=lambda s: missing[s])
        chosen[index] = split
        assigned[split].update(bundle)
        missing[split] -= bundle.total()
    return [chosen[index] for index in range(len(names))]


def _sum(strata: Iterable[Counter[str]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for counts in strata:
        total.update(counts)
    return total


def _merge_rare(strata: Sequence[Counter[str]], least: float) -> list[Counter[str]]:
    """Pool answers with less than one row for the smallest split, which would all go to the largest one."""
    total = _sum(strata)
    merged = []
    for bundle in strata:
        counts: Counter[str] = Counter()
        for answer, count in bundle.items():
            counts[answer if total[answer] * least >= 1 - TOLERANCE else RARE] += count
        merged.append(counts)
    return merged


def bundle_rows(pooled: "Sequence[PooledRow]") -> "list[list[PooledRow]]":
    """Return the bundles of rows that belong together, in the order of their first rows."""
    sets = UnionFind[Hashable]()
    for number, row in enumerate(pooled):
        sets.join(number, (("image", digest) for digest in row.images))
        sets.join(number, [("group", row.group)] if row.group is not None else [])
    bundles: dict[Hashable, list[PooledRow]] = defaultdict(list)
    for number, row in enumerate(pooled):
        bundles[sets.find(number)].append(row)
    return list(bundles.values())


def refuse_empty_splits(
    ratios: Mapping[str, float], split_of: Sequence[str], bundles: "Sequence[Sequence[PooledRow]]"
) -> None:
    """Raise a SourceError if a split would get no rows, with the size of the largest bundle."""
    rows, largest = sum(map(len, bundles)), max(map(len, bundles), default=0)
    if empty := next((split for split in ratios if split not in split_of), None):
        raise SourceError(
            f"the split {empty} would be empty: its share is {ratios[empty]:g} of {rows} rows, which are "
            f"{len(bundles)} groups that cannot be separated, the largest of {largest} rows. "
            "Give it a larger share in --ratios."
        )


def _hash(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()
