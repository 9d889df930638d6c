"""balance_dirty_pages(): how long a writer that dirtied pages sleeps, so that writeback keeps up.

Nothing here sleeps, writes or reads a clock: the caller passes ``now`` and takes a Pause.
Quantities are pages, seconds and pages per second. Source of the formulas, by function
name: mm/page-writeback.c (Wu Fengguang's I/O-less throttling, Linux 3.2).

J. Bounded. dirty + writeback passes the hard limit by at most one granted run per writer:
   every run is decided on with exact counters, and at the limit nobody passes. A pause is
   at most 200 ms, and only the dirtier's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from .bandwidth import BANDWIDTH_INTERVAL, Bandwidth, Completions, Share
from .position import Control, Counts, background_thresh, dirty_poll_interval, pos_ratio

__all__ = ["Counts", "Dirtier", "Domain", "Pause", "Throttle"]

MAX_PAUSE = 0.2  # seconds
TICK = 0.001  # seconds: the kernel's jiffy at HZ=1000, the grain of a sleep
TARGET_PAUSE = 0.010  # seconds, for a single dirtier
THINK_TIME = 1.0  # seconds of other work that a dirtier's later pauses make good
DIRTY_POLL_THRESH = 32  # pages: fewer are not worth a pause of their own
EXCEEDED_POLL = 8  # pages between two decisions while the store is over its share
PIPES = 1 / 16  # of the hard limit is kept for stores that others would otherwise shut out


def max_pause(wb_dirty: int, write_bw: int) -> float:
    """Seconds: an eighth of what the store needs for its dirty pages, or it may run dry.

    wb_max_pause().
    """
    return min(MAX_PAUSE, TICK + wb_dirty / (8 * max(1, write_bw)))


def min_pause(
    longest: float, write_bw: int, dirty_ratelimit: int, task_ratelimit: int
) -> tuple[float, int]:
    """The shortest pause worth a sleep (seconds), and the pages to dirty until the next.

    wb_min_pause(): 10 ms for one dirtier, 10 ms more for each doubling of their number.
    """
    doublings = max(0, write_bw.bit_length() - dirty_ratelimit.bit_length())
    target = min(TARGET_PAUSE * (1 + doublings), TICK + longest / 2)
    pages = int(dirty_ratelimit * target)
    if pages < DIRTY_POLL_THRESH:  # tiny bursts hurt the device: stretch to 32 pages
        target = longest
        pages = int(dirty_ratelimit * target)
        if pages > DIRTY_POLL_THRESH:
            pages, target = DIRTY_POLL_THRESH, DIRTY_POLL_THRESH / dirty_ratelimit
    if pages / (task_ratelimit + 1) > longest:
        target = longest
        pages = int(task_ratelimit * target)
    return (TICK + target / 2 if pages >= DIRTY_POLL_THRESH else target), pages


@dataclass(slots=True)
class Dirtier:
    """One writer's account: a thread of a client, or whatever is paused as one."""

    nr_dirtied: int = 0  # pages since its last pause
    nr_dirtied_pause: int = DIRTY_POLL_THRESH  # pages until its next look
    paused_when: float | None = None  # its virtual clock, seconds: behind ``now`` is credit
    waiting: bool = False  # told to come again: no poll interval lets it off


class Pause(NamedTuple):
    """What balance_dirty_pages() has to do now: wake, sleep, and perhaps ask again."""

    seconds: float = 0.0
    wake_flusher: bool = False  # writeback is due, here and in every store of the domain
    again: bool = False  # after the sleep (or when pages were cleaned) decide anew


def dirty_pause(
    dirtier: Dirtier, now: float, task_ratelimit: int, shortest: float, longest: float, pages: int
) -> float:
    """Seconds that the dirtier sleeps for what it dirtied; settles its account.

    ``shortest``, ``longest`` (seconds) bound a sleep, ``pages`` is the interval to the next.
    The second half of balance_dirty_pages().
    """
    dirtied = dirtier.nr_dirtied
    period = dirtied / task_ratelimit if task_ratelimit else longest
    pause = period
    if task_ratelimit and dirtier.paused_when is not None:
        pause -= now - dirtier.paused_when  # time that it spent otherwise is already paid
    if task_ratelimit and pause < shortest:
        if pause < -THINK_TIME or dirtier.paused_when is None:
            dirtier.paused_when, dirtier.nr_dirtied = now, 0  # a light dirtier: no hoarding
        elif dirtied:
            dirtier.paused_when += period
            dirtier.nr_dirtied = 0
        return 0.0
    # Of what is cut off, the next pause is owed one more ``longest``; the rest is forgiven:
    # the rate limit was low for a moment.
    owed = min(max(0.0, pause - longest), longest)
    pause = min(pause, longest)
    dirtier.paused_when = now + owed + pause
    dirtier.nr_dirtied, dirtier.nr_dirtied_pause = 0, pages
    return pause


@dataclass(slots=True)
class Domain:
    """All stores that share one dirty limit (struct wb_domain)."""

    hard_limit: int  # pages; may be changed at any time
    background: int | None = None  # pages; half of the limit if not given
    stores: int = 0
    completions: Completions = field(default_factory=Completions)
    dirty_limit: int = 0
    dirty_limit_time: float = 0.0

    def __post_init__(self) -> None:
        if self.hard_limit < 1:
            raise ValueError("hard_limit: expected at least one page")
        self.dirty_limit = self.hard_limit

    @property
    def pipe(self) -> int:
        """Pages that a store may always have dirty, so that a stuck one blocks no other.

        The kernel lets such writers through one by one, after a sleep each; here a store
        within its pipe runs free.
        """
        if self.stores < 2:
            return 0
        return max(1, int(self.hard_limit * PIPES / self.stores))

    @property
    def thresh(self) -> int:
        # The pipes lie below the hard limit: who passes through one does not break J.
        return max(1, self.hard_limit - self.pipe * self.stores)

    @property
    def bg_thresh(self) -> int:
        wanted = self.hard_limit // 2 if self.background is None else self.background
        return background_thresh(self.thresh, wanted)

    @property
    def limit(self) -> int:
        return self.thresh + max(0, self.dirty_limit - self.hard_limit)

    def update_dirty_limit(self, dirty: int, now: float) -> None:
        """Up at once; down by 1/32 each 200 ms and not below what is dirty, so that a lowered
        limit slows the dirtiers but does not stop them all. update_dirty_limit()."""
        target = max(self.hard_limit, dirty)
        if self.dirty_limit <= self.hard_limit:
            self.dirty_limit = self.hard_limit
        elif now - self.dirty_limit_time >= BANDWIDTH_INTERVAL:
            self.dirty_limit -= -(-max(0, self.dirty_limit - target) // 32)
            self.dirty_limit_time = now


class Throttle:
    """One store's place in its domain: told of pages, asked for pauses.

    ``max_pages`` caps the store's share of the threshold; with ``strictlimit`` the share is
    a hard limit that holds also while the domain has room.
    """

    def __init__(
        self, domain: Domain, *, max_pages: int | None = None, strictlimit: bool = False
    ) -> None:
        self.domain = domain
        self.max_pages = max_pages
        self.strictlimit = strictlimit
        self.bandwidth = Bandwidth()
        self.share = Share()
        self.dirty_exceeded = False
        self.leaks = 0  # pages that ended dirtiers never paused for
        domain.stores += 1

    def close(self) -> None:
        """The store is gone; call once."""
        self.domain.stores -= 1

    def dirtied(self, pages: int, dirtier: Dirtier) -> None:
        """``dirtier`` made so many clean pages dirty. folio_account_dirtied()."""
        self.bandwidth.nr_dirtied += pages
        dirtier.nr_dirtied += pages

    def redirtied(self, pages: int) -> None:
        """A failed write left them dirty: nobody dirtied them anew. folio_account_redirty()."""
        self.bandwidth.nr_dirtied -= pages

    def exited(self, dirtier: Dirtier) -> None:
        """Its unpaid pages fall to the others, or short-lived writers would go free."""
        self.leaks += dirtier.nr_dirtied
        dirtier.nr_dirtied = 0

    def started(self, now: float) -> None:
        """Writeback begins and none was in flight."""
        self.bandwidth.start(now)

    def completed(self, pages: int, now: float) -> None:
        """So many pages were written."""
        self.bandwidth.nr_written += pages
        self.bandwidth.update_write_bandwidth(now)
        self.domain.completions.add(self.share, pages, now)

    def wb_thresh(self, thresh: int, room: int) -> int:
        """This store's part of ``thresh``: its share of the completions. __wb_calc_thresh().

        An idle store has no share; an eighth of the ``room`` left lets it begin.
        """
        share = self.domain.completions.fraction(self.share)
        if share is None:  # nobody has written anything yet
            share = 1 / max(1, self.domain.stores)
        pages = max(int(thresh * share), room // 8, 1)
        return min(pages, max(1, self.max_pages)) if self.max_pages is not None else pages

    def over_background(self, counts: Counts) -> bool:
        """Background writeback of this store should go on. wb_over_bg_thresh().

        Unlike the kernel's also wherever dirtiers pause: with another store's writeback stuck
        near the limit nobody else would write the pages that this one's dirtiers wait for.
        """
        control = self.control(counts)
        over = counts.nr_dirty > control.bg_thresh or counts.wb_nr_dirty > control.wb_bg_thresh
        return counts.wb_nr_dirty > 0 and (over or not control.freerun)

    def control(self, counts: Counts) -> Control:
        domain = self.domain
        thresh, limit = domain.thresh, domain.limit
        dirty = counts.nr_dirty + counts.nr_writeback
        return Control(
            thresh=thresh,
            bg_thresh=domain.bg_thresh,
            limit=limit,
            dirty=dirty,
            wb_thresh=self.wb_thresh(thresh, max(0, limit - dirty)),
            wb_dirty=counts.wb_nr_dirty + counts.wb_nr_writeback,
            strictlimit=self.strictlimit,
        )

    def decide(self, counts: Counts, dirtier: Dirtier, now: float) -> Pause:
        """One turn of balance_dirty_pages(): call after each run that was dirtied."""
        self.domain.completions.age(now)
        self.domain.update_dirty_limit(counts.nr_dirty + counts.nr_writeback, now)
        control = self.control(counts)
        wake = counts.nr_dirty > control.bg_thresh or (
            control.strictlimit and counts.wb_nr_dirty > control.wb_bg_thresh
        )
        if not self._due(control, dirtier):
            return Pause(wake_flusher=wake)
        if control.freerun or control.wb_dirty <= self._pipe(control):
            dirtier.paused_when, dirtier.nr_dirtied, dirtier.waiting = now, 0, False
            dirtier.nr_dirtied_pause = self._poll_interval(control)
            return Pause(wake_flusher=wake or not control.freerun)
        if counts.wb_nr_writeback == 0:
            self.bandwidth.start(now)
        return self._throttle(control, dirtier, now)

    def _due(self, control: Control, dirtier: Dirtier) -> bool:
        """balance_dirty_pages_ratelimited(); the kernel's inexact counters look less often."""
        interval = dirtier.nr_dirtied_pause
        if self.dirty_exceeded:
            interval = min(interval, EXCEEDED_POLL)
        taken = min(self.leaks, max(0, interval - dirtier.nr_dirtied))
        self.leaks -= taken
        dirtier.nr_dirtied += taken
        return dirtier.waiting or control.full or dirtier.nr_dirtied >= interval

    def _poll_interval(self, control: Control) -> int:
        if control.strictlimit:
            return dirty_poll_interval(control.wb_dirty, control.wb_thresh)
        return dirty_poll_interval(control.dirty, control.thresh)

    def _throttle(self, control: Control, dirtier: Dirtier, now: float) -> Pause:
        bandwidth = self.bandwidth
        self.dirty_exceeded = control.dirty_exceeded
        ratio = pos_ratio(control, bandwidth.avg_write_bandwidth)
        if control.strictlimit:
            dirty, setpoint = control.wb_dirty, control.wb_setpoint
        else:
            dirty, setpoint = control.dirty, control.setpoint
        bandwidth.update_dirty_ratelimit(now, ratio, dirty, setpoint)
        bandwidth.update_write_bandwidth(now)
        write_bw, ratelimit = bandwidth.avg_write_bandwidth, bandwidth.dirty_ratelimit
        task_ratelimit = int(ratelimit * ratio)
        longest = max_pause(control.wb_dirty, write_bw)
        shortest, pages = min_pause(longest, write_bw, ratelimit, task_ratelimit)
        seconds = dirty_pause(dirtier, now, task_ratelimit, shortest, longest, pages)
        dirtier.waiting = task_ratelimit == 0
        return Pause(seconds, wake_flusher=True, again=dirtier.waiting)

    def _pipe(self, control: Control) -> int:
        pipe = self.domain.pipe
        return min(pipe, control.wb_thresh - 1) if control.strictlimit else pipe
