"""Extents: sorted, disjoint byte ranges - the currency of every floor above."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

_Bounds = npt.NDArray[np.int64]


def _coalesce(bounds: _Bounds) -> _Bounds:
    """Sort, drop empty ranges, and join those that overlap or touch."""
    bounds = bounds[bounds[:, 1] > bounds[:, 0]]
    if (bounds[1:, 0] > bounds[:-1, 1]).all():
        return bounds
    bounds = bounds[np.argsort(bounds[:, 0], kind="stable")]
    reach = np.maximum.accumulate(bounds[:, 1])
    first = np.concatenate(([True], bounds[1:, 0] > reach[:-1]))
    last = np.concatenate((first[1:], [True]))
    return np.column_stack((bounds[first, 0], reach[last]))


class Extents:
    """An immutable set of bytes, held as half-open ranges ``[start, stop)`` in ascending order.

    Ranges never overlap or touch: equal sets compare and hash equal. Offsets are bytes, >= 0.
    Raises ValueError for a negative start or a stop before its start, TypeError for a range
    that is not two integers.
    """

    __slots__ = ("_bounds",)
    _bounds: _Bounds

    def __init__(self, ranges: Iterable[tuple[int, int]] | _Bounds = ()) -> None:
        array = ranges if isinstance(ranges, np.ndarray) else np.array(list(ranges))
        if array.size == 0:
            array = np.empty((0, 2), np.int64)
        if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "iu":
            raise TypeError("ranges: expected pairs of integers (start, stop)")
        bounds = array.astype(np.int64)
        if (bounds[:, 0] < 0).any() or (bounds[:, 1] < bounds[:, 0]).any():
            raise ValueError("ranges: expected 0 <= start <= stop")
        self._bounds = _coalesce(bounds)
        self._bounds.flags.writeable = False

    @classmethod
    def _of(cls, bounds: _Bounds) -> Extents:
        """From bounds that are sorted, disjoint and apart already: nothing is looked at again."""
        self = cls.__new__(cls)
        self._bounds = bounds
        self._bounds.flags.writeable = False
        return self

    @property
    def bounds(self) -> _Bounds:
        """The ranges as a read-only int64 array of shape (n, 2), in bytes."""
        return self._bounds

    @property
    def total(self) -> int:
        """Bytes in all ranges together."""
        return int((self._bounds[:, 1] - self._bounds[:, 0]).sum())

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return map(tuple, self._bounds.tolist())

    def __len__(self) -> int:
        """The number of ranges, not of bytes (that is ``total``)."""
        return len(self._bounds)

    def __contains__(self, offset: int) -> bool:
        at = int(np.searchsorted(self._bounds[:, 0], offset, side="right")) - 1
        return at >= 0 and offset < int(self._bounds[at, 1])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Extents):
            return NotImplemented
        return np.array_equal(self._bounds, other._bounds)

    def __hash__(self) -> int:
        return hash(self._bounds.tobytes())

    def __repr__(self) -> str:
        shown = ", ".join(f"{start}:{stop}" for start, stop in self._bounds[:4].tolist())
        more = f", ... {len(self) - 4} more" if len(self) > 4 else ""
        return f"<Extents {self.total} bytes [{shown}{more}]>"

    def __or__(self, other: Extents) -> Extents:
        if not len(self) or not len(other):
            return self if len(self) else other
        return Extents(np.concatenate((self._bounds, other._bounds)))

    def __and__(self, other: Extents) -> Extents:
        return self._combine(other, lambda mine, theirs: mine & theirs)

    def __sub__(self, other: Extents) -> Extents:
        return self._combine(other, lambda mine, theirs: mine & ~theirs)

    def __xor__(self, other: Extents) -> Extents:
        return self._combine(other, lambda mine, theirs: mine ^ theirs)

    def _combine(self, other: Extents, keep: Any) -> Extents:
        # Between two neighbouring boundaries of either set nothing changes: decide each
        # such segment once. A segment is inside a set if an odd number of the set's
        # boundaries lie at or before its start.
        edges = np.unique(np.concatenate((self._bounds.ravel(), other._bounds.ravel())))
        if len(edges) == 0:
            return Extents()
        starts = edges[:-1]
        mine = np.searchsorted(self._bounds.ravel(), starts, side="right") % 2 == 1
        theirs = np.searchsorted(other._bounds.ravel(), starts, side="right") % 2 == 1
        kept = keep(mine, theirs)
        return Extents(np.column_stack((starts[kept], edges[1:][kept])))

    def clip(self, start: int, stop: int) -> Extents:
        """What lies in ``[start, stop)`` (bytes)."""
        if stop <= start:
            return Extents()
        first = int(np.searchsorted(self._bounds[:, 1], start, side="right"))
        after = int(np.searchsorted(self._bounds[:, 0], stop, side="left"))
        return Extents._of(self._bounds[first:after].clip(start, stop))

    def shift(self, offset: int) -> Extents:
        """The same ranges, ``offset`` bytes further on (or back, if negative).

        ValueError if a range would start before 0.
        """
        if len(self) and int(self._bounds[0, 0]) + offset < 0:
            raise ValueError("offset: a range would start before 0")
        return Extents._of(self._bounds + offset)

    def pages(self, page_size: int = 4096) -> npt.NDArray[np.int64]:
        """The numbers of all pages of ``page_size`` bytes that hold a byte, ascending."""
        if page_size <= 0:
            raise ValueError("page_size: expected a positive number of bytes")
        outer = self._outward(page_size)
        lengths = outer[:, 1] - outer[:, 0]
        skipped = np.repeat(outer[:, 0] - (np.cumsum(lengths) - lengths), lengths)
        pages: npt.NDArray[np.int64] = skipped + np.arange(lengths.sum())
        return pages

    def slices(self, array: npt.NDArray[Any]) -> Iterator[slice]:
        """Slices of the flat, C-contiguous ``array`` whose items hold at least one of the bytes."""
        inside = self.clip(0, array.nbytes)
        return (slice(start, stop) for start, stop in inside._outward(array.itemsize).tolist())

    def rows(self, array: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Indices of the rows (first axis) of the C-contiguous ``array`` that hold such a byte."""
        if array.ndim == 0:
            raise ValueError("array: a zero-dimensional array has no rows")
        row = array.nbytes // len(array) if len(array) else 0
        if row == 0:
            return np.empty(0, np.int64)
        return self.clip(0, array.nbytes).pages(row)

    def _outward(self, size: int) -> _Bounds:
        """The ranges in units of ``size`` bytes, rounded outward."""
        starts, stops = self._bounds[:, 0], self._bounds[:, 1]
        return _coalesce(np.column_stack((starts // size, -(-stops // size))))
