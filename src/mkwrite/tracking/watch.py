"""A watch: one reader's account of what was stored to some buffers, by one method."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Sequence
from typing import Literal

from ..errors import SlowTrackingWarning, Unsupported
from ..extents import Extents
from .buffer import Buffer
from .hashing import HASHING
from .registry import REGISTRY
from .span import Method, Span

MethodName = Literal["auto", "userfaultfd", "hash"]
_warned = False


class Watch:
    """Readers of the same buffers (take, save) have a watch each and never disturb each other."""

    def __init__(self, buffers: Sequence[Buffer], method: MethodName) -> None:
        self._buffers = buffers
        self._spans = [Span(buffer.start, buffer.stop) for buffer in buffers]
        self.method = _add(self._spans, method)
        # Also when the owner just drops it. Not in the collector's own moment, which may be
        # inside the method's lock: see _bury.
        self._finalizer = weakref.finalize(self, _bury, self.method, self._spans)

    def collect(self, *, take: bool) -> list[Extents]:
        """Per buffer, byte offsets of its changed pages; ``take`` begins anew in the same step."""
        for buffer in self._buffers:
            buffer.check()
        found = self.method.collect(self._spans, take=take)
        return [
            extents.shift(-buffer.start)
            for buffer, extents in zip(self._buffers, found, strict=True)
        ]

    def put_back(self, found: Sequence[Extents]) -> None:
        """Undo a take: the next one reports ``found`` (offsets) again."""
        shifted = [
            extents.shift(buffer.start)
            for buffer, extents in zip(self._buffers, found, strict=True)
        ]
        self.method.put_back(self._spans, shifted)

    def close(self) -> None:
        if self._finalizer.detach():
            self.method.remove(self._spans)


def _add(spans: Sequence[Span], method: MethodName) -> Method:
    _remove_dead()
    if method not in ("auto", "userfaultfd", "hash"):
        raise ValueError(f"method: expected 'auto', 'userfaultfd' or 'hash', not {method!r}")
    if method != "hash":
        try:
            REGISTRY.add(spans)
            return REGISTRY
        except Unsupported as error:
            if method == "userfaultfd":
                raise
            _warn(error)
    HASHING.add(spans)
    return HASHING


def _warn(reason: Unsupported) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"{reason.strerror}; tracking by hashing every page instead, which is slower",
            SlowTrackingWarning,
            stacklevel=6,  # the caller of track()
        )


_dead: list[tuple[Method, Sequence[Span]]] = []


def _bury(method: Method, spans: Sequence[Span]) -> None:
    """What the garbage collector found; the next call of any watch removes it."""
    _dead.append((method, spans))


def _remove_dead() -> None:
    while _dead:
        method, spans = _dead.pop()
        method.remove(spans)
