"""The hash method: read everything, compare 128 bits a page. Works on every system, slowly.

Also what ``verify`` compares with. Two different pages share a digest once in 2**64 comparisons
or so; a page whose bytes changed and changed back reads as unchanged.
"""

from __future__ import annotations

import hashlib
import itertools
import mmap
import os
import threading
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ..extents import Extents
from ..kernel.ownmemory import OwnMemory
from .span import Span

Digests = npt.NDArray[np.uint8]  # shape (pages, 16)
_CHUNK = 256 * mmap.PAGESIZE


def _choose() -> Callable[[bytes], bytes]:
    try:
        import xxhash
    except ModuleNotFoundError:  # the `hash` extra: ten times faster
        return lambda page: hashlib.blake2b(page, digest_size=16).digest()
    digest: Callable[[bytes], bytes] = xxhash.xxh3_128_digest
    return digest


class PageHasher:
    """Digests of the pages of a span; the pieces of edge pages that lie outside do not count."""

    def __init__(self) -> None:
        self._memory = OwnMemory()
        self._digest = _choose()

    def digests(self, span: Span) -> Digests:
        """One row a page. OSError EIO: not mapped any more, or past its file's end."""
        digest, found, page = self._digest, bytearray(), mmap.PAGESIZE
        for start in range(span.start - span.start % _CHUNK, span.stop, _CHUNK):
            low, high = max(start, span.start), min(start + _CHUNK, span.stop)
            chunk = self._memory.read(low, high - low)
            edges = [0, *range(page - low % page, high - low, page), high - low]
            for a, b in itertools.pairwise(edges):
                found += digest(chunk[a:b])
        return np.frombuffer(found, np.uint8).reshape(-1, 16)

    def renew(self, digests: Digests, span: Span, part: Span) -> None:
        """Hash anew, in place, the pages of ``span`` that ``part`` of it lies in."""
        page = mmap.PAGESIZE
        first, after = part.start // page, -(-part.stop // page)
        whole = Span(max(span.start, first * page), min(span.stop, after * page))
        digests[first - span.start // page : after - span.start // page] = self.digests(whole)

    @staticmethod
    def differing(span: Span, before: Digests, now: Digests) -> Extents:
        """Addresses inside ``span`` of the pages whose digests differ."""
        page = mmap.PAGESIZE
        numbers = np.flatnonzero((before != now).any(axis=1)) + span.start // page
        ranges = np.column_stack((numbers, numbers + 1)) * page
        return Extents(ranges).clip(span.start, span.stop)

    def close(self) -> None:
        self._memory.close()


class Hashing:
    """The same calls as the userfaultfd registry; spans never concern each other here."""

    name = "hash"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hasher = PageHasher()
        self._digests: dict[Span, Digests] = {}

    def add(self, spans: Sequence[Span]) -> None:
        digests = {span: self._hasher.digests(span) for span in spans}
        with self._lock:
            self._digests.update(digests)

    def collect(self, spans: Sequence[Span], *, take: bool) -> list[Extents]:
        """OSError EIO: memory of a span was unmapped or lies past its file's end."""
        with self._lock:
            now = [self._hasher.digests(span) for span in spans]
            found = []
            for span, digests in zip(spans, now, strict=True):
                changed = self._hasher.differing(span, self._digests[span], digests)
                found.append(span.pending | changed)
                if take:
                    self._digests[span] = digests
                    span.pending = Extents()
            return found

    def put_back(self, spans: Sequence[Span], found: Sequence[Extents]) -> None:
        with self._lock:
            for span, extents in zip(spans, found, strict=True):
                span.pending |= extents

    def remove(self, spans: Sequence[Span]) -> None:
        with self._lock:
            for span in spans:
                self._digests.pop(span, None)

    def forget(self) -> None:
        """In a forked child: another process's memory, and it tracks none of it."""
        self._hasher.close()
        self.__init__()  # type: ignore[misc]


HASHING = Hashing()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=HASHING.forget)
