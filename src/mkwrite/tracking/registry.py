"""The process's one userfaultfd for tracking: the kernel allows one a mapping.

Trackers may share pages, and a scan re-arms what it reports; so whatever a scan finds is
added to the pending set of every tracker whose pages it touches, never to the caller's alone.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
from collections.abc import Iterator

from ..extents import Extents
from ..kernel.pagemap import Category, Pagemap, ScanFlag
from ..kernel.userfaultfd import Feature, Mode, Userfaultfd

_FEATURES = Feature.WP_ASYNC | Feature.WP_UNPOPULATED | Feature.PAGEFAULT_FLAG_WP
_TAKE = ScanFlag.WP_MATCHING | ScanFlag.CHECK_WPASYNC


class Span:
    """Whole pages ``[start, stop)`` that one tracker watches, and what was found there."""

    def __init__(self, start: int, stop: int) -> None:
        self.start = start - start % mmap.PAGESIZE
        self.stop = stop + -stop % mmap.PAGESIZE
        self.pending = Extents()  # addresses


class Registry:
    """All spans tracked in this process, on one userfaultfd that lives while any does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: list[Span] = []
        self._uffd: Userfaultfd | None = None
        self._pagemap: Pagemap | None = None

    def add(self, span: Span) -> None:
        """Watch ``span`` from now on. OSError EBUSY: another userfaultfd holds the memory."""
        with self._lock:
            if self._uffd is None or self._pagemap is None:
                self._uffd, self._pagemap = Userfaultfd(_FEATURES), Pagemap()
            try:
                # Register whole mappings and arm pages only: a registration of a part
                # splits the mapping in two.
                for start, stop in _mappings(span.start, span.stop):
                    self._uffd.register(start, stop - start, Mode.WP)
                self._collect(span)  # what neighbours on our pages have not taken yet is theirs
                self._uffd.protect(span.start, span.stop - span.start)
            except OSError as error:
                self._close_if_unused()
                if error.errno == errno.EBUSY:
                    raise OSError(
                        errno.EBUSY, "another userfaultfd of this process holds this memory"
                    ) from error
                raise
            self._spans.append(span)

    def remove(self, span: Span) -> None:
        with self._lock:
            if span in self._spans:
                self._spans.remove(span)
            self._close_if_unused()

    def collect(self, span: Span, *, take: bool) -> Extents:
        """What ``span`` was stored to (addresses), re-armed. OSError EFAULT: no longer mapped.

        ``take`` empties what is pending in the same step, under the lock: another tracker's
        collect may add to it at any moment.
        """
        with self._lock:
            self._collect(span)
            found = span.pending
            if take:
                span.pending = Extents()
            return found

    def _collect(self, span: Span) -> None:
        assert self._pagemap is not None
        covered = self._pagemap.scan(span.start, span.stop, require=Category.WPALLOWED)
        if Extents(covered).total != span.stop - span.start:
            raise OSError(
                errno.EFAULT, "the tracked memory was unmapped or re-mapped: changes are unknown"
            )
        written = Extents(self._pagemap.scan(span.start, span.stop, _TAKE))
        for other in self._spans:
            if other.start < span.stop and span.start < other.stop:
                other.pending |= written.clip(other.start, other.stop)

    def _close_if_unused(self) -> None:
        if not self._spans and self._uffd is not None and self._pagemap is not None:
            self._uffd.close()
            self._pagemap.close()
            self._uffd = self._pagemap = None

    def forget(self) -> None:
        """In a forked child: its memory is not registered, its descriptors are the parent's."""
        self.__init__()  # type: ignore[misc]


def _mappings(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """This process's mappings that hold a byte of ``[start, stop)``."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            low, high = (int(edge, 16) for edge in line.split(maxsplit=1)[0].split("-"))
            if low < stop and start < high:
                yield low, high


REGISTRY = Registry()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=REGISTRY.forget)
