"""Trackers: what a program holds - of one buffer, or of a mapping of names to buffers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, overload

from ..extents import Extents
from .buffer import Buffer
from .hashing import PageHasher
from .span import Span
from .watch import MethodName, Watch

Answer = TypeVar("Answer")


class _Tracking(Generic[Answer]):
    """What both trackers do; they differ in the shape of an answer."""

    def __init__(self, buffers: Mapping[str, Buffer], method: MethodName, verify: bool) -> None:
        self._pid = os.getpid()
        self._buffers = dict(buffers)
        self._open = True
        self._watch = Watch(list(self._buffers.values()), method)
        self._truth = _Truth(list(self._buffers.values())) if verify else None

    @property
    def method(self) -> str:
        """How changes are found: ``"userfaultfd"`` or ``"hash"``."""
        return self._watch.method.name

    def take(self) -> Answer:
        """Bytes of the pages stored to since the last take; re-armed in the same step.

        Exact in pages: a store of the same bytes counts, and so does a neighbour's store on an
        edge page (not with ``hash``, which sees bytes). OSError: EFAULT or EIO, the memory was
        unmapped, resized, or the file under it truncated; what was found stays for later.
        RuntimeError in a forked child, whose stores the parent's tracker does not see.
        """
        self._check()
        found = self._watch.collect(take=True)
        if self._truth is not None:
            self._truth.renew(found)
        return self._answer(found)

    def peek(self) -> Answer:
        """As ``take``, and the next take or peek reports the same bytes again."""
        self._check()
        return self._answer(self._watch.collect(take=False))

    def clear(self) -> None:
        """Forget what was stored so far."""
        self.take()

    def verify(self) -> Answer:
        """Compare everything: the pages that changed although neither take nor peek knew.

        Reads and hashes all the memory. Finds what no page tracking can see, such as direct
        I/O in flight across a take. What it finds is in the next take, too. ValueError unless
        made by ``track(..., verify=True)``, which remembers 16 bytes a page.
        """
        self._check()
        if self._truth is None:
            raise ValueError("verify: there is nothing to compare with; use track(x, verify=True)")
        changed = self._truth.changed()
        # Looked up after the hashing: a page stored to before it was hashed is known by now.
        known = self._watch.collect(take=False)
        missed = [a - b for a, b in zip(changed, known, strict=True)]
        self._watch.put_back(missed)
        return self._answer(missed)

    def close(self) -> None:
        """Stop tracking and release the memory. May be called again."""
        if self._open:
            self._open = False
            self._watch.close()
            for buffer in self._buffers.values():
                buffer.release()

    def _answer(self, found: list[Extents]) -> Answer:
        raise NotImplementedError

    def _check(self) -> None:
        if self._pid != os.getpid():
            raise RuntimeError("a tracker does not track in a forked child: make a new one there")
        if not self._open:
            raise ValueError("the tracker is closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Tracker(_Tracking[Extents]):
    """Tracks one buffer; an answer is the ``Extents`` of byte offsets in it. See ``track``."""

    def _answer(self, found: list[Extents]) -> Extents:
        return found[0]

    def __repr__(self) -> str:
        state = f"{self.method}, {self._buffers['buffer'].nbytes} bytes" if self._open else "closed"
        return f"<mkwrite.Tracker: {state}>"


class Trackers(_Tracking[dict[str, Extents]]):
    """Tracks a mapping of names to buffers; an answer has an ``Extents`` for every name."""

    def _answer(self, found: list[Extents]) -> dict[str, Extents]:
        return dict(zip(self._buffers, found, strict=True))

    def __repr__(self) -> str:
        state = f"{self.method}, {len(self._buffers)} buffers" if self._open else "closed"
        return f"<mkwrite.Trackers: {state}>"


class _Truth:
    """Digests of what the tracking last told of: what ``verify`` compares with."""

    def __init__(self, buffers: list[Buffer]) -> None:
        self._hasher = PageHasher()
        self._buffers = buffers
        self._spans = [Span(buffer.start, buffer.stop) for buffer in buffers]
        self._digests = [self._hasher.digests(span) for span in self._spans]

    def renew(self, found: list[Extents]) -> None:
        """These were told. Hashed after they were armed again: a store in between is told twice."""
        for at, (span, extents) in enumerate(zip(self._spans, found, strict=True)):
            for start, stop in extents:
                part = Span(span.start + start, span.start + stop)
                self._hasher.renew(self._digests[at], span, part)

    def changed(self) -> list[Extents]:
        """Offsets in each buffer of the pages that differ."""
        answer = []
        for span, before in zip(self._spans, self._digests, strict=True):
            changed = self._hasher.differing(span, before, self._hasher.digests(span))
            answer.append(changed.shift(-span.start))
        return answer


@overload
def track(x: Mapping[str, Any], *, method: MethodName = ..., verify: bool = ...) -> Trackers: ...
@overload
def track(x: Any, *, method: MethodName = ..., verify: bool = ...) -> Tracker: ...
def track(x: Any, *, method: MethodName = "auto", verify: bool = False) -> Tracker | Trackers:
    """Track stores to ``x``: a writable C-contiguous buffer, or a mapping of names to them.

    A buffer is a numpy array or memmap, a torch CPU tensor, an ``mmap.mmap``, SharedMemory,
    bytearray or memoryview; a mapping may be a ``state_dict()``. It stays exported while
    tracked. Stores by this process's threads, and by the kernel for it (``readinto``), count;
    other processes' stores to shared memory do not.

    ``method="auto"`` uses userfaultfd where it is to be had (Linux 6.7, no privilege needed), else
    hashes pages and says why in one SlowTrackingWarning. ``verify=True`` lets ``verify()``
    compare everything.

    Raises TypeError for what holds no memory, ValueError for a read-only, non-contiguous or
    empty buffer; OSError EBUSY for memory that another userfaultfd of the process holds;
    Unsupported (an OSError) with ``method="userfaultfd"`` where it is not to be had.
    """
    if isinstance(x, Mapping):
        if not x:
            raise ValueError("buffer: expected at least one name")
        return Trackers({str(k): Buffer(v, f"buffer {k!r}") for k, v in x.items()}, method, verify)
    return Tracker({"buffer": Buffer(x)}, method, verify)
