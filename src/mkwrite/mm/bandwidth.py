"""How fast a store really is, and how fast each of its dirtiers may therefore be.

Measured, never configured: pages written per second, the rate limit that balances the
dirtiers against it, and each store's share of all completed writes. Source of the formulas:
mm/page-writeback.c and lib/flex_proportions.c; rates are whole pages per second as there.
"""

from __future__ import annotations

from dataclasses import dataclass

BANDWIDTH_INTERVAL = 0.2  # seconds between two estimates
BANDWIDTH_PERIOD = 4.096  # seconds that an estimate remembers: 3 s in the kernel's round figures
BANDWIDTH_IDLE = 1.0  # seconds without writeback, after which nothing is measured
COMPLETIONS_PERIOD = 3.0  # seconds after which a completion counts half
INIT_BW = 25600  # pages/s: 100 MB/s of 4 KiB pages, until something was measured


@dataclass(slots=True)
class Bandwidth:
    """One store's measured write bandwidth and the rate limit derived from it (bdi_writeback).

    All rates are pages per second, all stamps seconds of the caller's clock.
    """

    write_bandwidth: int = INIT_BW
    avg_write_bandwidth: int = INIT_BW  # smoothed once more: what the formulas use
    dirty_ratelimit: int = INIT_BW  # what each dirtier may do; tends to bandwidth / dirtiers
    balanced_dirty_ratelimit: int = INIT_BW  # the last estimate of that target
    nr_dirtied: int = 0  # pages since ever; redirtied ones are taken back
    nr_written: int = 0
    dirtied_stamp: int = 0
    written_stamp: int = 0
    ratelimit_time: float = 0.0
    written_time: float = 0.0

    def start(self, now: float) -> None:
        """Writeback begins, none was in flight: idle time is no sign of a slow store.

        wb_bandwidth_estimate_start().
        """
        if now - self.written_time > BANDWIDTH_IDLE:
            self.written_time, self.written_stamp = now, self.nr_written
        if now - self.ratelimit_time > BANDWIDTH_IDLE:
            self.ratelimit_time, self.dirtied_stamp = now, self.nr_dirtied

    def update_write_bandwidth(self, now: float) -> None:
        """Measure again if 200 ms have passed. wb_update_write_bandwidth()."""
        elapsed = now - self.written_time
        if elapsed < BANDWIDTH_INTERVAL:
            return
        written = max(0, self.nr_written - self.written_stamp)
        self.written_time, self.written_stamp = now, self.nr_written
        old, avg = self.write_bandwidth, self.avg_write_bandwidth
        if elapsed > BANDWIDTH_PERIOD:
            bandwidth = avg = int(written / elapsed)
        else:
            bandwidth = int((written + old * (BANDWIDTH_PERIOD - elapsed)) / BANDWIDTH_PERIOD)
            # The average moves only when the last two measurements lie on its same side:
            # a sudden spike moves nothing.
            if avg > old >= bandwidth:
                avg -= (avg - old) >> 3
            elif avg < old <= bandwidth:
                avg += (old - avg) >> 3
        self.write_bandwidth, self.avg_write_bandwidth = bandwidth, max(1, avg)

    def update_dirty_ratelimit(
        self, now: float, pos_ratio: float, dirty: int, setpoint: float
    ) -> None:
        """Step toward the rate that balances the dirtiers, if 200 ms have passed.

        ``dirty`` and ``setpoint`` (pages) are those that ``pos_ratio`` was computed from.
        wb_update_dirty_ratelimit().
        """
        elapsed = now - self.ratelimit_time
        if elapsed < BANDWIDTH_INTERVAL:
            return
        dirty_rate = int(max(0, self.nr_dirtied - self.dirtied_stamp) / elapsed)
        self.ratelimit_time, self.dirtied_stamp = now, self.nr_dirtied
        # What each dirtier was allowed; + 1 lets a rate limit of next to nothing grow again.
        task_ratelimit = int(self.dirty_ratelimit * pos_ratio) + 1
        # N dirtiers at that rate were seen to dirty dirty_rate = N * task_ratelimit.
        balanced = task_ratelimit * self.avg_write_bandwidth // max(1, dirty_rate)
        balanced = min(balanced, self.avg_write_bandwidth)
        step = self._step(balanced, task_ratelimit, below=dirty < setpoint)
        toward = step if self.dirty_ratelimit < balanced else -step
        self.dirty_ratelimit = max(1, self.dirty_ratelimit + toward)
        self.balanced_dirty_ratelimit = balanced

    def _step(self, balanced: int, task_ratelimit: int, *, below: bool) -> int:
        """How far to go: only where the errors in rate and in position agree on the way."""
        targets = (self.balanced_dirty_ratelimit, balanced, task_ratelimit)
        if below:
            step = max(0, min(targets) - self.dirty_ratelimit)
        else:
            step = max(0, self.dirty_ratelimit - max(targets))
        # An eighth of the way, and far less when the target is near: it trembles anyway.
        shift = self.dirty_ratelimit // (2 * step + 1)
        return -(-(step >> min(shift, 64)) // 8)


@dataclass(slots=True)
class Share:
    """One store's part in a Completions: its pages written, aged up to ``period``."""

    events: int = 0
    period: int = 0


@dataclass(slots=True)
class Completions:
    """Pages written by all stores, each period counting half of the next (fprop_global)."""

    events: int = 0
    period: int = 0
    started: float | None = None  # seconds: when the current period began

    def add(self, share: Share, pages: int, now: float) -> None:
        """``share``'s store has written ``pages``. __fprop_add_percpu()."""
        self.age(now)
        self._reflect(share)
        share.events += pages
        self.events += pages

    def age(self, now: float) -> None:
        """Begin as many new periods as are due. fprop_new_period()."""
        if self.started is None:
            self.started = now
        periods = int(max(0.0, now - self.started) / COMPLETIONS_PERIOD)
        if periods:
            self.started += periods * COMPLETIONS_PERIOD
            self.events >>= min(periods, 64)
            self.period += periods

    def fraction(self, share: Share) -> float | None:
        """The store's part of all completions, 0 to 1; None if there are none.

        fprop_fraction_percpu().
        """
        self._reflect(share)
        return share.events / self.events if self.events else None

    def _reflect(self, share: Share) -> None:
        # Aged only when somebody asks: an idle store costs nothing.
        share.events >>= min(self.period - share.period, 64)
        share.period = self.period
