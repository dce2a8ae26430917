"""Disjoint sets: what belongs together, directly or through others."""

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class UnionFind(Generic[T]):
    """Disjoint sets of anything hashable; what was never joined is a set of its own."""

    def __init__(self) -> None:
        self._parent: dict[T, T] = {}

    def find(self, member: T) -> T:
        """The one member that stands for the set."""
        parent = self._parent
        while (above := parent.get(member, member)) != member:
            parent[member] = parent.get(above, above)
            member = above
        return member

    def join(self, member: T, others: Iterable[T]) -> None:
        """Make one set of the sets of all these."""
        for other in others:
            self._parent[self.find(other)] = self.find(member)
