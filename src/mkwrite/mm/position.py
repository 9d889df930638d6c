"""Where a store stands between its thresholds, and by how much that speeds or slows writers.

All quantities are pages; source of the formulas, by function name: mm/page-writeback.c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


def background_thresh(thresh: int, background: int) -> int:
    """Pages from which writeback starts: always below ``thresh``. domain_dirty_limits()."""
    return background if background < thresh else thresh // 2


def dirty_freerun(thresh: int, bg_thresh: int) -> int:
    """Pages up to which nobody is paused. dirty_freerun_ceiling()."""
    return (thresh + bg_thresh) // 2


def dirty_poll_interval(dirty: int, thresh: int) -> int:
    """Pages that a dirtier may dirty before it looks again: about the root of the room left."""
    return 1 << ((thresh - dirty).bit_length() - 1 >> 1) if thresh > dirty else 1


def pos_ratio_polynom(setpoint: float, dirty: int, limit: int) -> float:
    """The rate's factor by position: 2 at freerun, 1 at ``setpoint``, 0 at ``limit``.

    A cubic: flat around the setpoint, steep where it matters. pos_ratio_polynom().
    """
    error = (setpoint - dirty) / (limit - setpoint)
    return float(min(2.0, max(0.0, 1.0 + error**3)))


class Counts(NamedTuple):
    """Pages at this moment, exact: in all stores of the domain, and in the one (``wb_``)."""

    nr_dirty: int
    nr_writeback: int
    wb_nr_dirty: int
    wb_nr_writeback: int


@dataclass(frozen=True, slots=True)
class Control:
    """The position of one store in its domain, in pages (struct dirty_throttle_control)."""

    thresh: int
    bg_thresh: int
    limit: int  # thresh, or above it while it follows a lowered thresh down
    dirty: int  # dirty + writeback
    wb_thresh: int
    wb_dirty: int
    strictlimit: bool = False  # the store's own counters decide, and its wb_thresh is hard

    @property
    def wb_bg_thresh(self) -> int:
        return self.wb_thresh * self.bg_thresh // self.thresh

    @property
    def setpoint(self) -> float:
        return (dirty_freerun(self.thresh, self.bg_thresh) + self.limit) / 2

    @property
    def wb_setpoint(self) -> float:
        """Of a strictlimit store: halfway between its background and its threshold."""
        return (self.wb_thresh + self.wb_bg_thresh) / 2

    @property
    def full(self) -> bool:
        """At a hard limit: nobody passes."""
        return self.dirty >= self.limit or (self.strictlimit and self.wb_dirty >= self.wb_thresh)

    @property
    def freerun(self) -> bool:
        """Far enough from every limit that nobody need pause."""
        if self.full:
            return False
        if self.strictlimit:
            return self.wb_dirty <= dirty_freerun(self.wb_thresh, self.wb_bg_thresh)
        return self.dirty <= dirty_freerun(self.thresh, self.bg_thresh)

    @property
    def dirty_exceeded(self) -> bool:
        over = self.strictlimit or self.dirty > self.thresh
        return over and self.wb_dirty > self.wb_thresh


def pos_ratio(control: Control, write_bw: int) -> float:
    """What a dirtier's rate is multiplied by, from its store's position; 0 where it is full.

    ``write_bw``: the store's measured bandwidth, pages/s. wb_position_ratio().
    """
    if control.full:
        return 0.0
    ratio = pos_ratio_polynom(control.setpoint, control.dirty, control.limit)
    if control.strictlimit:
        wb_ratio = pos_ratio_polynom(control.wb_setpoint, control.wb_dirty, control.wb_thresh)
        return min(ratio, wb_ratio)
    return ratio * _wb_line(control, write_bw)


def _wb_line(control: Control, write_bw: int) -> float:
    """The store's own factor: 1 at its setpoint, falling to 1/4, up to 8 where it runs dry."""
    share = min(control.wb_thresh, control.thresh)
    scale = share / control.thresh
    wb_setpoint = control.setpoint * scale
    # With one store the slope is set by what it writes in 8 s, with many by its own share,
    # which may fluctuate by as much as itself.
    span = (control.thresh - share + 8 * write_bw) * scale
    x_intercept = wb_setpoint + span
    ratio = 0.25
    if control.wb_dirty < x_intercept - span / 4:
        ratio = (x_intercept - control.wb_dirty) / span
    reserve = share / 2
    if control.wb_dirty < reserve:  # never let the device idle for want of dirty pages
        ratio *= reserve / control.wb_dirty if control.wb_dirty > reserve / 8 else 8.0
    return ratio
