"""The userfaultfd method: the kernel resolves each first store, a page-table walk tells which.

One registry for the process: the kernel allows one userfaultfd a mapping, and trackers may share
pages. A scan re-arms what it reports, so whatever a scan finds is added to the pending set of
every span whose pages it touches, never to the caller's alone.
"""

from __future__ import annotations

import bisect
import contextlib
import errno
import mmap
import os
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import Unsupported
from ..extents import Extents
from ..kernel.memory import MS_ASYNC, msync
from ..kernel.ownmemory import OwnMemory
from ..kernel.pagemap import Category, Pagemap, ScanFlag
from ..kernel.userfaultfd import Feature, Mode, Userfaultfd
from .span import Span

_FEATURES = Feature.WP_ASYNC | Feature.WP_UNPOPULATED | Feature.PAGEFAULT_FLAG_WP
_HOLDS_MEMORY = Category.PRESENT | Category.SWAPPED
_TAKE = ScanFlag.WP_MATCHING | ScanFlag.CHECK_WPASYNC
# Arming a page that was never touched costs 8 bytes of page table. From this size on an anonymous
# mapping is taken to be sparse and such pages are left alone: they cost nothing, and the price
# is that a first touch of huge-page memory reads as the whole huge page (2 MiB). Memory of files
# has no such choice: an unarmed page that the kernel drops would read as changed.
SPARSE = 64 << 30


class _Mapping(NamedTuple):
    """One line of /proc/self/maps."""

    start: int
    stop: int
    anonymous: bool

    @property
    def sparse(self) -> bool:
        return self.anonymous and self.stop - self.start >= SPARSE


class _Place(NamedTuple):
    """Whole pages of a span inside one mapping."""

    start: int
    stop: int
    mapping: _Mapping


class Registry:
    """All spans tracked in this process, on userfaultfds that live while any does."""

    name = "userfaultfd"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: dict[Span, list[_Place]] = {}
        self._edges: tuple[list[Span], npt.NDArray[np.int64]] | None = None  # cache of _routes
        self._machine: _Machine | None = None

    def add(self, spans: Sequence[Span]) -> None:
        """OSError EBUSY: another userfaultfd holds the memory. Unsupported: not to be had here."""
        with self._lock:
            if self._machine is None:
                self._machine = _Machine()
            mappings: set[_Mapping] = set()
            try:
                all_mappings = list(_mappings())
                places = {span: _locate(span, all_mappings) for span in spans}
                new = [place for found in places.values() for place in found]
                mappings = {place.mapping for place in new}
                for mapping in mappings:
                    self._machine.register(mapping)
                if any(self._sharers(Extents([place[:2] for place in new]))):
                    self._scan(new)  # what they have not taken yet is theirs: before arming
                for place in _joined(new):
                    self._machine.arm(place)
            except OSError:
                self._release(mappings)
                raise
            self._places.update(places)
            self._edges = None

    def collect(self, spans: Sequence[Span], *, take: bool) -> list[Extents]:
        """OSError EFAULT: memory of a span was unmapped or lies past its file's end.

        Under one lock from the scan to the emptied pending set: another span's collect may
        add to it at any moment.
        """
        with self._lock:
            places = [place for span in spans for place in self._places[span]]
            self._scan(places)
            self._machine_in_use().check(places)
            found = [span.pending for span in spans]
            if take:
                for span in spans:
                    span.pending = Extents()
            return found

    def put_back(self, spans: Sequence[Span], found: Sequence[Extents]) -> None:
        with self._lock:
            for span, extents in zip(spans, found, strict=True):
                span.pending |= extents

    def remove(self, spans: Sequence[Span]) -> None:
        with self._lock:
            gone = [place for span in spans for place in self._places.pop(span, ())]
            self._edges = None
            self._release({place.mapping for place in gone})

    def forget(self) -> None:
        """In a forked child: its memory is not registered, its descriptors are the parent's."""
        if self._machine is not None:
            self._machine.close()
        self.__init__()  # type: ignore[misc]

    def _scan(self, places: Sequence[_Place]) -> None:
        """Re-arm the written pages of ``places`` and route them to all spans they lie in."""
        written = self._machine_in_use().take(places)
        for span in self._sharers(written):
            span.pending |= written.clip(span.start, span.stop)

    def _sharers(self, addresses: Extents) -> Iterator[Span]:
        """Spans that hold one of ``addresses``."""
        spans, edges = self._routes()
        first = np.searchsorted(addresses.bounds[:, 1], edges[:, 0], side="right")
        after = np.searchsorted(addresses.bounds[:, 0], edges[:, 1], side="left")
        for at in np.flatnonzero(first < after).tolist():
            yield spans[at]

    def _routes(self) -> tuple[list[Span], npt.NDArray[np.int64]]:
        if self._edges is None:
            spans = list(self._places)
            edges = np.array([(span.start, span.stop) for span in spans], np.int64)
            self._edges = spans, edges.reshape(-1, 2)
        return self._edges

    def _machine_in_use(self) -> _Machine:
        assert self._machine is not None
        return self._machine

    def _release(self, mappings: set[_Mapping]) -> None:
        """Give back what no span lies in any more."""
        kept = {place.mapping for found in self._places.values() for place in found}
        for mapping in mappings:
            if not any(k.start < mapping.stop and mapping.start < k.stop for k in kept):
                self._machine_in_use().unregister(mapping)
        if not self._places and self._machine is not None:
            self._machine.close()
            self._machine = None


class _Machine:
    """The kernel objects that the registry works with; closing them gives all memory back."""

    def __init__(self) -> None:
        with contextlib.ExitStack() as opened:
            try:
                self.uffd = Userfaultfd(_FEATURES)
                opened.callback(self.uffd.close)
                self.pagemap = Pagemap()
                opened.callback(self.pagemap.close)
                self.pagemap.scan(0, mmap.PAGESIZE)
            except OSError as error:
                raise Unsupported(
                    error.errno,
                    f"tracking by userfaultfd is not to be had here ({error.strerror}); "
                    "`mkwrite doctor` tells the cure",
                ) from error
            self.memory = OwnMemory()
            opened.callback(self.memory.close)
            self.close = opened.pop_all().close

    def register(self, mapping: _Mapping) -> None:
        # Whole mappings: a registration of a part would split the mapping in two.
        try:
            self.uffd.register(mapping.start, mapping.stop - mapping.start, Mode.WP)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise OSError(
                    errno.EBUSY,
                    "another userfaultfd of this process holds this memory, and the kernel "
                    "allows one a mapping: close it, or track with method='hash'",
                ) from error
            raise Unsupported(
                error.errno, f"userfaultfd cannot track this kind of memory ({error.strerror})"
            ) from error

    def unregister(self, mapping: _Mapping) -> None:
        with contextlib.suppress(OSError):  # unmapped meanwhile: nothing left to give back
            self.uffd.unregister(mapping.start, mapping.stop - mapping.start)

    def arm(self, place: _Place) -> None:
        start, stop, mapping = place
        if mapping.sparse:
            self.pagemap.scan(start, stop, _TAKE, Category(0), any_of=_HOLDS_MEMORY)
        else:
            self.uffd.protect(start, stop - start)

    def take(self, places: Sequence[_Place]) -> Extents:
        """Addresses of the pages written since they were last armed; armed again."""
        found = []
        for start, stop, mapping in _joined(places):
            try:
                if mapping.sparse:
                    # Never-touched pages are not armed: written is what holds memory.
                    written = self.pagemap.scan(
                        start, stop, _TAKE, Category.WRITTEN | Category.PFNZERO, Category.PFNZERO,
                        any_of=_HOLDS_MEMORY,
                    )  # fmt: skip
                else:
                    written = self.pagemap.scan(start, stop, _TAKE)
            except PermissionError as error:  # CHECK_WPASYNC: something else is mapped here now
                raise _gone() from error
            found.append(written)
        return Extents(np.concatenate(found)) if found else Extents()

    def check(self, places: Sequence[_Place]) -> None:
        """OSError EFAULT unless all of it is still mapped and can be read.

        After the scan, which tells what is mapped but not registered, and passes over what is
        not mapped as if it were unchanged.
        """
        for start, stop, mapping in _joined(places):
            try:
                msync(start, stop - start, MS_ASYNC)  # does nothing but look for holes
            except OSError as error:
                raise _gone() from error
            if not mapping.anonymous:
                try:
                    self.memory.read(stop - 1, 1)
                except OSError as error:
                    raise OSError(
                        errno.EFAULT, "the file under the tracked memory was truncated"
                    ) from error


def _gone() -> OSError:
    return OSError(
        errno.EFAULT, "the tracked memory was unmapped or re-mapped: its changes are unknown"
    )


def _mappings() -> Iterator[_Mapping]:
    """This process's mappings, ascending."""
    with open("/proc/self/maps", "rb") as maps:
        for line in maps:
            edges, _, _, _, inode = line.split(maxsplit=5)[:5]
            low, high = (int(edge, 16) for edge in edges.split(b"-"))
            yield _Mapping(low, high, inode == b"0")


def _locate(span: Span, mappings: Sequence[_Mapping]) -> list[_Place]:
    start = span.start - span.start % mmap.PAGESIZE
    stop = span.stop + -span.stop % mmap.PAGESIZE
    places = []
    for mapping in mappings[bisect.bisect(mappings, start, key=lambda m: m.stop) :]:
        if mapping.start >= stop:
            break
        places.append(_Place(max(start, mapping.start), min(stop, mapping.stop), mapping))
    if sum(place.stop - place.start for place in places) != stop - start:
        raise OSError(errno.EFAULT, f"no memory is mapped at all of {start:#x}-{stop:#x}")
    return places


def _joined(places: Sequence[_Place]) -> list[_Place]:
    """The same pages in as few places as can be: a system call each, for many small spans."""
    joined: list[_Place] = []
    for place in sorted(places):
        last = joined[-1] if joined else None
        if last and place.start <= last.stop and place.mapping == last.mapping:
            joined[-1] = _Place(last.start, max(last.stop, place.stop), last.mapping)
        else:
            joined.append(place)
    return joined


REGISTRY = Registry()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=REGISTRY.forget)
