"""A span: the bytes of memory one tracker watches, and the two calls every method answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..extents import Extents


class Span:
    """Addresses ``[start, stop)``, in bytes; compared by identity."""

    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop = start, stop
        self.pending = Extents()  # addresses found changed and not taken yet


class Method(Protocol):
    """A way to know which pages of spans changed: ``userfaultfd`` or ``hash``.

    Spans may overlap; what one has taken stays pending for the others. Thread-safe.
    """

    name: str

    def add(self, spans: Sequence[Span]) -> None:
        """Watch these from now on, all or none."""

    def collect(self, spans: Sequence[Span], *, take: bool) -> list[Extents]:
        """Per span, the addresses of its changed pages; ``take`` begins anew in the same step."""

    def put_back(self, spans: Sequence[Span], found: Sequence[Extents]) -> None:
        """Undo a take: the next one reports ``found`` again."""

    def remove(self, spans: Sequence[Span]) -> None:
        """Watch these no longer; those not watched are passed over."""
