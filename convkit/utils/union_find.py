"""Disjoint sets (union-find) of hashable values."""

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class UnionFind(Generic[T]):
    """Disjoint sets of hashable values; a value that was never joined is a set of its own."""

    def __init__(self) -> None:
        self._parent: dict[T, T] = {}

    def find(self, member: T) -> T:
        """Return the representative of the set that contains the member."""
        parent = self._parent
        while (above := parent.get(member, member)) != member:
            parent[member] = parent.get(above, above)
            member = above
        return member

    def join(self, member: T, others: Iterable[T]) -> None:
        """Merge the sets of the member and of all others."""
        for other in others:
            self._parent[self.find(other)] = self.find(member)
