"""mkwrite: know, ask and commit what a program stores to memory."""

from .extents import Extents
from .tracking import Tracker, track

__all__ = ["Extents", "Tracker", "track"]
