"""The throttle at work: writers, flushers and disks on a simulated clock.

Pages of 4 KiB, a limit of 256 MiB, disks of 40 MB/s.
"""

import pytest

from mkwrite.mm.throttle import MAX_PAUSE

from .disks import Disk, World, Writer

LIMIT, SPEED = 65536, 10000  # pages, pages/s
RUN = 8  # pages granted at once


def paced(world, writers, seconds):
    """Pages a second that each writer dirtied in the next ``seconds``."""
    before = [writer.nr_dirtied for writer in writers]
    world.run(seconds)
    return [
        (writer.nr_dirtied - then) / seconds for writer, then in zip(writers, before, strict=True)
    ]


@pytest.mark.parametrize("dirtiers", [1, 10])
def test_the_rate_converges_to_the_disks_over_the_dirtiers(dirtiers):  # B36, B38, J
    world = World(LIMIT)
    disk = Disk(world, SPEED)
    writers = [Writer(disk, RUN) for _ in range(dirtiers)]
    world.run(40)
    rates = paced(world, writers, 10)
    fair = SPEED / dirtiers
    assert sum(rates) == pytest.approx(SPEED, rel=0.05)
    assert rates == pytest.approx([fair] * dirtiers, rel=0.1)
    assert disk.throttle.bandwidth.avg_write_bandwidth == pytest.approx(SPEED, rel=0.02)
    assert disk.throttle.bandwidth.dirty_ratelimit == pytest.approx(fair, rel=0.15)
    setpoint = disk.throttle.control(disk.counts()).setpoint
    assert world.dirty == pytest.approx(setpoint, rel=0.06)
    assert world.worst <= LIMIT + dirtiers * RUN
    assert max(max(writer.pauses) for writer in writers) <= MAX_PAUSE


def test_a_disk_that_keeps_up_pauses_nobody():  # B36
    world = World(LIMIT)
    disk = Disk(world, 200_000)
    writer = Writer(disk, RUN, think=160e-6)  # dirties 50,000 pages a second
    world.run(5)
    assert writer.pauses == []
    assert world.worst <= LIMIT * 3 // 4


def test_a_light_dirtier_is_hardly_paused_beside_a_heavy_one():  # B37
    world = World(LIMIT)
    disk = Disk(world, SPEED)
    heavy, light = Writer(disk, RUN), Writer(disk, think=0.01)  # 100 pages a second
    world.run(30)
    rates = paced(world, [heavy, light], 10)
    assert rates[1] > 90
    assert sum(rates) == pytest.approx(SPEED, rel=0.05)


def test_when_the_only_store_stops_its_writers_wait_at_the_limit():  # B36, J
    world = World(LIMIT // 4)
    disk = Disk(world, SPEED)
    writers = [Writer(disk, RUN) for _ in range(3)]
    world.run(5)
    disk.speed = 0
    world.run(60)
    assert sum(paced(world, writers, 10)) <= RUN
    assert all(writer.account.waiting for writer in writers)
    assert LIMIT // 4 * 7 // 8 < world.dirty <= LIMIT // 4 + RUN * len(writers)
    assert max(max(writer.pauses) for writer in writers) <= MAX_PAUSE
    disk.speed = SPEED
    world.run(10)
    assert not any(writer.account.waiting for writer in writers)
    assert sum(paced(world, writers, 10)) == pytest.approx(SPEED, rel=0.1)


@pytest.mark.parametrize("run", [4, 32])
def test_a_stuck_store_stops_its_own_writers_and_no_others(run):  # B36, B37, B38, J
    world = World(LIMIT // 4)
    stuck, healthy = Disk(world, SPEED), Disk(world, SPEED)
    writers = [Writer(stuck, run), Writer(stuck, run), Writer(healthy, run)]
    world.run(5)
    stuck.speed = 0
    world.run(15)
    first, second, other = paced(world, writers, 10)
    assert first + second <= run
    assert other == pytest.approx(SPEED, rel=0.05)
    assert world.worst <= world.domain.hard_limit + len(writers) * run
    stuck.speed = SPEED  # it comes back, and so do its writers
    world.run(20)
    first, second, other = paced(world, writers, 10)
    assert first + second > 0.5 * SPEED
    assert other > 0.8 * SPEED


@pytest.mark.parametrize("limit", [1, 2, 7, 64])
def test_tiny_limits_hold_and_do_not_hang(limit):  # J, B38
    world = World(limit)
    disk = Disk(world, SPEED)
    writers = [Writer(disk) for _ in range(3)]
    world.run(5)
    assert world.worst <= limit + len(writers)
    assert all(writer.nr_dirtied > 10 for writer in writers)


def test_a_strictlimit_store_keeps_to_its_pages_while_the_domain_has_room():  # B47, J
    world = World(LIMIT)
    capped = Disk(world, SPEED, max_pages=500, strictlimit=True)
    Disk(world, SPEED)  # another store, idle
    writer = Writer(capped, RUN)
    worst = 0
    for _ in range(2000):
        world.run(0.01)
        worst = max(worst, capped.nr_dirty + capped.nr_writeback)
    assert 250 < worst <= 500 + RUN
    assert paced(world, [writer], 5)[0] > 0.9 * SPEED
