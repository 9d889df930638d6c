"""Tracker: what one program object - a writable buffer - had stored to it."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any, Self

import numpy as np

from ..extents import Extents
from .registry import REGISTRY, Span


class Tracker:
    """Tells the bytes of the pages of a buffer that were stored to; see ``track``.

    The buffer stays exported while tracked. Not for use from a forked child, where every
    call raises RuntimeError.
    """

    def __init__(self, buffer: Any) -> None:
        view = memoryview(buffer)
        if view.readonly:
            raise ValueError("buffer: expected a writable one")
        if not view.c_contiguous:
            raise ValueError("buffer: expected a C-contiguous one")
        if view.nbytes == 0:
            raise ValueError("buffer: expected at least one byte")
        self._view: memoryview | None = view
        self._start = int(np.frombuffer(view, np.uint8).ctypes.data)
        self._stop = self._start + view.nbytes
        self._pid = os.getpid()
        self._span = Span(self._start, self._stop)
        REGISTRY.add(self._span)

    def take(self) -> Extents:
        """Byte ranges in the buffer, of pages stored to since the last take; re-arms them.

        A neighbour's store on an edge page counts. OSError EFAULT: the memory was unmapped.
        """
        return self._collect(take=True)

    def peek(self) -> Extents:
        """As ``take``, and the next take or peek reports the same bytes again."""
        return self._collect(take=False)

    def _collect(self, *, take: bool) -> Extents:
        self._check()
        inside = REGISTRY.collect(self._span, take=take).clip(self._start, self._stop)
        return Extents(inside.bounds - self._start)

    def clear(self) -> None:
        """Forget what was stored so far."""
        self.take()

    def close(self) -> None:
        """Stop tracking and release the buffer. May be called again."""
        if self._view is not None:
            if self._pid == os.getpid():
                REGISTRY.remove(self._span)
            self._view.release()
            self._view = None

    def _check(self) -> None:
        if self._pid != os.getpid():
            raise RuntimeError("a tracker does not track in a forked child: make a new one there")
        if self._view is None:
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


def track(buffer: Any) -> Tracker:
    """Track stores to a writable C-contiguous buffer (Linux 6.7 or newer, no privilege).

    Raises ValueError for a read-only, non-contiguous or empty buffer, OSError where
    userfaultfd is not to be had (ENOSYS, EPERM, EINVAL) or is held by others (EBUSY).
    """
    return Tracker(buffer)
