"""mkwrite: know, ask and commit what a program stores to memory."""

from .errors import SlowTrackingWarning, Unsupported
from .extents import Extents
from .tracking import Tracker, Trackers, track

__all__ = ["Extents", "SlowTrackingWarning", "Tracker", "Trackers", "Unsupported", "track"]
