"""track(): which bytes of memory that the program already has were stored to.

The kernel resolves each first store (WP_ASYNC); nobody is asked, no privilege is needed.
"""

from .tracker import Tracker, Trackers, track

__all__ = ["Tracker", "Trackers", "track"]
