"""A tiny discrete-event world for the throttle: writers, flushers and disks on one clock."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

from mkwrite.mm.throttle import Counts, Dirtier, Domain, Pause, Throttle

BATCH = 64  # pages in one write


class World:
    """Runs what is due, in order; every page counter is checked against the limit (J)."""

    def __init__(self, hard_limit: int, background: int | None = None) -> None:
        self.domain = Domain(hard_limit, background)
        self.now = 0.0
        self.disks: list[Disk] = []
        self.worst = 0  # the most pages ever dirty or in writeback
        self.order = itertools.count()
        self._due: list[tuple[float, int, Callable[[], None]]] = []

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self.now + seconds, next(self.order), call))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._due and self._due[0][0] <= end:
            self.now, _, call = heapq.heappop(self._due)
            call()
            self.worst = max(self.worst, self.dirty)
        self.now = end

    @property
    def dirty(self) -> int:
        return sum(disk.nr_dirty + disk.nr_writeback for disk in self.disks)


class Disk:
    """A store that writes ``speed`` pages a second (0: stopped), and its flusher."""

    def __init__(self, world: World, speed: float, **options: object) -> None:
        self.world, self.speed = world, speed
        self.throttle = Throttle(world.domain, **options)  # type: ignore[arg-type]
        self.nr_dirty = self.nr_writeback = self.nr_written = 0
        world.disks.append(self)

    def counts(self) -> Counts:
        disks = self.world.disks
        return Counts(
            sum(disk.nr_dirty for disk in disks),
            sum(disk.nr_writeback for disk in disks),
            self.nr_dirty,
            self.nr_writeback,
        )

    def flush(self) -> None:
        """Write one batch, and the next when it is done, while there is cause to."""
        if self.nr_writeback or not self.throttle.over_background(self.counts()):
            return
        pages = min(BATCH, self.nr_dirty)
        self.throttle.started(self.world.now)
        self.nr_dirty -= pages
        self.nr_writeback += pages
        self.complete()

    def complete(self) -> None:
        if not self.speed:
            self.world.after(0.05, self.complete)  # stopped: look again later
        else:
            self.world.after(self.nr_writeback / self.speed, self.written)

    def written(self) -> None:
        if not self.speed:
            return self.complete()
        self.throttle.completed(self.nr_writeback, self.world.now)
        self.nr_written += self.nr_writeback
        self.nr_writeback = 0
        self.flush()


class Writer:
    """Dirties runs of ``run`` pages as fast as it is let, ``think`` seconds a run."""

    def __init__(self, disk: Disk, run: int = 1, think: float = 10e-6) -> None:
        self.disk, self.run, self.think = disk, run, think
        self.account = Dirtier()
        self.nr_dirtied = 0
        self.pauses: list[float] = []
        # Writers that all start at one instant would pause and store in step for ever.
        disk.world.after(0.0137 * len(disk.world.disks) * next(disk.world.order), self.store)

    def store(self) -> None:
        self.disk.nr_dirty += self.run
        self.nr_dirtied += self.run
        self.disk.throttle.dirtied(self.run, self.account)
        self.balance()

    def balance(self) -> None:
        world = self.disk.world
        pause: Pause = self.disk.throttle.decide(self.disk.counts(), self.account, world.now)
        if pause.wake_flusher:
            for disk in world.disks:
                disk.flush()
        if pause.seconds:
            self.pauses.append(pause.seconds)
        if pause.again:
            world.after(pause.seconds, self.balance)
        else:
            world.after(pause.seconds + self.think, self.store)
