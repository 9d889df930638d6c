"""The throttle's formulas and single decisions against the kernel's published behaviour."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mkwrite.mm.bandwidth import BANDWIDTH_PERIOD, INIT_BW, Bandwidth, Completions, Share
from mkwrite.mm.position import (
    Control,
    Counts,
    background_thresh,
    dirty_freerun,
    dirty_poll_interval,
    pos_ratio,
    pos_ratio_polynom,
)
from mkwrite.mm.throttle import (
    DIRTY_POLL_THRESH,
    MAX_PAUSE,
    TICK,
    Dirtier,
    Domain,
    Throttle,
    dirty_pause,
    max_pause,
    min_pause,
)

THRESH, BACKGROUND = 1000, 500
FREERUN, SETPOINT = 750, 875


def control(dirty, wb_dirty=None, *, wb_thresh=THRESH, **options):
    wb_dirty = dirty if wb_dirty is None else wb_dirty
    return Control(THRESH, BACKGROUND, THRESH, dirty, wb_thresh, wb_dirty, **options)


def alone(dirty, writeback=0):
    """The counts of a domain with one store."""
    return Counts(dirty, writeback, dirty, writeback)


def due():
    return Dirtier(nr_dirtied=DIRTY_POLL_THRESH)


# --- thresholds -----------------------------------------------------------------------------


def test_background_lies_below_the_threshold():  # B36
    assert background_thresh(1000, 400) == 400
    assert background_thresh(1000, 1000) == 500
    assert background_thresh(1000, 5000) == 500
    assert dirty_freerun(1000, 500) == 750


@pytest.mark.parametrize(
    ("dirty", "interval"), [(0, 16), (744, 16), (745, 8), (936, 8), (937, 4), (999, 1)]
)
def test_poll_interval_is_about_the_root_of_the_room_left(dirty, interval):  # B36
    assert dirty_poll_interval(dirty, 1000) == interval


def test_poll_interval_at_and_above_the_threshold_is_one_page():
    assert dirty_poll_interval(1000, 1000) == dirty_poll_interval(2000, 1000) == 1


def test_pos_ratio_is_2_at_freerun_1_at_setpoint_0_at_limit():  # B36
    assert pos_ratio_polynom(SETPOINT, FREERUN, THRESH) == 2
    assert pos_ratio_polynom(SETPOINT, SETPOINT, THRESH) == 1
    assert pos_ratio_polynom(SETPOINT, THRESH, THRESH) == 0
    assert pos_ratio_polynom(SETPOINT, (SETPOINT + THRESH) / 2, THRESH) == 1 - 1 / 8


def test_pos_ratio_of_a_single_store():  # B36
    # Both lines cross 1 at the setpoint; a fast disk's own line is nearly flat.
    assert pos_ratio(control(SETPOINT), INIT_BW) == pytest.approx(1)
    assert pos_ratio(control(FREERUN), INIT_BW) == pytest.approx(2, rel=1e-3)
    assert pos_ratio(control(THRESH), INIT_BW) == 0
    assert pos_ratio(control(THRESH + 9), INIT_BW) == 0


def test_pos_ratio_by_the_stores_own_line():
    # 100 of 1000 pages are this store's: its setpoint is 87.5, its line falls over
    # (1000 - 100 + 8 * 50) / 10 = 130 pages.
    at = [
        pos_ratio(control(SETPOINT, wb, wb_thresh=100), 50) for wb in (3, 25, 50, 87, 100, 185, 500)
    ]
    assert at == pytest.approx(
        [8 * 214.5 / 130, 2 * 192.5 / 130, 167.5 / 130, 130.5 / 130, 117.5 / 130, 0.25, 0.25]
    )


def test_strictlimit_takes_the_smaller_of_global_and_own():  # B47
    def strict(dirty, wb_dirty):
        return pos_ratio(control(dirty, wb_dirty, wb_thresh=100, strictlimit=True), INIT_BW)

    assert strict(0, 75) == 1  # its own setpoint, and the domain is empty
    assert strict(0, 100) == 0
    assert strict(SETPOINT, 50) == 1  # its own would be 2
    assert strict(THRESH, 1) == 0


@given(
    thresh=st.integers(1, 10**7),
    part=st.integers(0, 99),
    extra=st.integers(0, 10**6),
    wb_thresh=st.integers(1, 10**7),
    dirty=st.tuples(st.integers(0, 10**7), st.integers(0, 10**7)).map(sorted),
    wb_dirty=st.tuples(st.integers(0, 10**7), st.integers(0, 10**7)).map(sorted),
    bandwidth=st.integers(1, 10**7),
    strict=st.booleans(),
)
def test_pos_ratio_never_rises_with_dirty_pages(
    thresh, part, extra, wb_thresh, dirty, wb_dirty, bandwidth, strict
):
    def ratio(dirty, wb_dirty):
        background = thresh * part // 100
        limit = thresh + extra
        at = Control(thresh, background, limit, dirty, wb_thresh, wb_dirty, strictlimit=strict)
        return pos_ratio(at, bandwidth)

    assert ratio(dirty[0], wb_dirty[0]) >= ratio(dirty[1], wb_dirty[0]) >= 0
    assert ratio(dirty[0], wb_dirty[0]) >= ratio(dirty[0], wb_dirty[1]) - 1e-9


# --- pauses ---------------------------------------------------------------------------------


def test_max_pause_is_an_eighth_of_the_time_to_drain():  # J
    assert max_pause(8000, 10000) == pytest.approx(0.1 + TICK)
    assert max_pause(0, 10000) == TICK
    assert max_pause(10**6, 10000) == max_pause(10**6, 0) == MAX_PAUSE == 0.2


def test_target_pause_is_10_ms_and_10_ms_more_for_each_doubling_of_dirtiers():
    assert min_pause(MAX_PAUSE, 25600, 25600, 25600) == (pytest.approx(0.006), 256)
    assert min_pause(MAX_PAUSE, 25600, 6400, 6400) == (pytest.approx(0.016), 192)


def test_slow_dirtiers_gather_32_pages_for_a_pause():
    assert min_pause(MAX_PAUSE, 1000, 1000, 1000) == (pytest.approx(0.017), DIRTY_POLL_THRESH)
    assert min_pause(MAX_PAUSE, 100, 100, 100) == (MAX_PAUSE, 20)  # not even those in 200 ms


def test_interval_shrinks_rather_than_that_a_pause_is_cut_off():
    assert min_pause(MAX_PAUSE, 25600, 25600, 500) == (pytest.approx(0.101), 100)


def test_pause_pays_for_what_was_dirtied():  # B36
    dirtier = Dirtier(nr_dirtied=100, paused_when=5.0)
    assert dirty_pause(dirtier, 5.0, 1000, 0.01, 0.2, 32) == pytest.approx(0.1)
    assert dirtier == Dirtier(0, 32, pytest.approx(5.1))


def test_think_time_is_paid_already():
    dirtier = Dirtier(nr_dirtied=100, paused_when=5.0)
    assert dirty_pause(dirtier, 5.06, 1000, 0.01, 0.2, 32) == pytest.approx(0.04)


def test_pause_below_the_minimum_is_not_slept_but_owed():
    dirtier = Dirtier(nr_dirtied=5, paused_when=5.0)
    assert dirty_pause(dirtier, 5.0, 1000, 0.01, 0.2, 32) == 0
    assert (dirtier.nr_dirtied, dirtier.paused_when) == (0, pytest.approx(5.005))
    dirtier.nr_dirtied = 6
    assert dirty_pause(dirtier, 5.0, 1000, 0.01, 0.2, 32) == pytest.approx(0.011)


def test_think_time_is_credited_up_to_a_second():
    busy = Dirtier(nr_dirtied=100, paused_when=5.0)
    assert dirty_pause(busy, 6.0, 1000, 0.01, 0.2, 32) == 0
    assert busy.paused_when == pytest.approx(5.1)  # 0.9 s of credit left
    light = Dirtier(nr_dirtied=100, paused_when=5.0)
    assert dirty_pause(light, 6.2, 1000, 0.01, 0.2, 32) == 0
    assert light.paused_when == 6.2  # none


def test_of_what_is_cut_off_at_most_one_pause_is_owed():  # J
    dirtier = Dirtier(nr_dirtied=10**6, paused_when=5.0)
    assert dirty_pause(dirtier, 5.0, 1000, 0.01, 0.2, 32) == 0.2
    assert dirtier.paused_when == pytest.approx(5.4)


# --- decisions ------------------------------------------------------------------------------


def test_no_pause_up_to_freerun_and_the_flusher_is_woken_above_background():  # B36
    throttle = Throttle(Domain(THRESH))
    assert throttle.decide(alone(BACKGROUND), due(), 1.0) == (0, False, False)
    assert throttle.decide(alone(BACKGROUND + 1), due(), 1.0) == (0, True, False)
    assert throttle.decide(alone(1, FREERUN), Dirtier(), 1.0) == (0, False, False)
    dirtier = due()
    assert throttle.decide(alone(FREERUN), dirtier, 1.0) == (0, True, False)
    assert dirtier == Dirtier(0, 8, 1.0)


def test_above_freerun_the_dirtier_pauses_and_the_flusher_is_woken():  # B36, B37
    throttle = Throttle(Domain(THRESH))
    throttle.started(1.0)
    bystander = Dirtier()
    dirtier = Dirtier(nr_dirtied=200)
    pause = throttle.decide(alone(1, SETPOINT), dirtier, 1.0)
    assert 0 < pause.seconds <= MAX_PAUSE
    assert pause.wake_flusher and not pause.again
    assert bystander == Dirtier()


def test_between_two_looks_nobody_pauses():  # B35
    throttle = Throttle(Domain(THRESH))
    dirtier = Dirtier(nr_dirtied=DIRTY_POLL_THRESH - 1)
    assert throttle.decide(alone(SETPOINT), dirtier, 1.0).seconds == 0
    assert dirtier.nr_dirtied == DIRTY_POLL_THRESH - 1


def test_at_the_limit_every_run_waits_until_there_is_room():  # B36, J
    throttle = Throttle(Domain(THRESH))
    dirtier = Dirtier()
    throttle.dirtied(1, dirtier)
    for now in (1.0, 1.2, 1.4):
        pause = throttle.decide(alone(THRESH), dirtier, now)
        assert pause.again and pause.wake_flusher and 0 < pause.seconds <= MAX_PAUSE
    assert not throttle.decide(alone(FREERUN), dirtier, 1.6).again


def test_a_store_within_its_pipe_runs_free_and_has_its_pages_written():  # B37
    domain = Domain(THRESH, background=900)
    throttle, _ = Throttle(domain), Throttle(domain)
    elsewhere = Counts(domain.pipe, THRESH, domain.pipe, 0)  # in writeback, and stuck there
    assert throttle.decide(elsewhere, Dirtier(), 1.0) == (0, True, False)
    more = Counts(domain.pipe + 1, THRESH, domain.pipe + 1, 0)
    assert throttle.decide(more, Dirtier(), 1.0).again


def test_runs_are_the_unit_of_overshoot_not_poll_intervals():  # J
    throttle = Throttle(Domain(THRESH))
    dirtier = Dirtier(nr_dirtied=0, nr_dirtied_pause=10**6)
    assert throttle.decide(alone(THRESH + 64), dirtier, 1.0).again


def test_exited_dirtiers_leave_their_pages_to_the_others():
    throttle = Throttle(Domain(THRESH))
    gone, stays = Dirtier(nr_dirtied=DIRTY_POLL_THRESH - 1), Dirtier(nr_dirtied=1)
    throttle.exited(gone)
    assert (gone.nr_dirtied, throttle.leaks) == (0, DIRTY_POLL_THRESH - 1)
    throttle.decide(alone(FREERUN), stays, 1.0)
    assert stays.paused_when == 1.0  # it was looked at, so it counted as a whole interval
    assert throttle.leaks == 0


def test_hard_limit_of_nothing_is_refused():
    with pytest.raises(ValueError, match="hard_limit"):
        Domain(0)


def test_a_lowered_limit_is_followed_down_by_a_32nd_each_200_ms_and_up_at_once():
    domain = Domain(32000)
    domain.hard_limit = 16000
    seen = []
    for turn in range(1, 4):
        domain.update_dirty_limit(0, turn * 0.21)
        domain.update_dirty_limit(0, turn * 0.21 + 0.1)  # not again within 200 ms
        seen.append(domain.limit)
    assert seen == [31500, 31015, 30545]
    domain.update_dirty_limit(30500, 9.0)
    assert domain.limit == 30543  # never below what is dirty
    domain.hard_limit = 64000
    domain.update_dirty_limit(0, 9.01)
    assert domain.limit == 64000
    domain.hard_limit = 100
    for turn in range(1000):
        domain.update_dirty_limit(0, 10 + turn)
    assert domain.limit == 100


@given(
    hard=st.integers(1, 10**6),
    stores=st.integers(1, 9),
    pages=st.lists(st.integers(0, 10**6), min_size=4, max_size=4),
    strict=st.booleans(),
    cap=st.none() | st.integers(1, 10**6),
    dirtier=st.builds(
        Dirtier,
        st.integers(0, 10**6),
        st.integers(0, 10**6),
        st.none() | st.floats(-10, 20),
        st.booleans(),
    ),
    bandwidth=st.integers(1, 10**6),
    ratelimit=st.integers(1, 10**6),
    background=st.none() | st.integers(0, 10**6),
)
def test_every_decision_is_bounded_and_none_waits_in_vain(  # J, B36, B37
    hard, stores, pages, strict, cap, dirtier, bandwidth, ratelimit, background
):
    domain = Domain(hard, background)
    domain.stores = stores - 1
    throttle = Throttle(domain, max_pages=cap, strictlimit=strict)
    throttle.bandwidth.avg_write_bandwidth = bandwidth
    throttle.bandwidth.dirty_ratelimit = ratelimit
    others = pages[:2] if stores > 1 else (0, 0)
    counts = Counts(others[0] + pages[2], others[1] + pages[3], pages[2], pages[3])
    now = 10.0
    wb_dirty = pages[2] + pages[3]
    full = throttle.control(counts).full
    pause = throttle.decide(counts, dirtier, now)
    assert 0 <= pause.seconds <= MAX_PAUSE
    assert dirtier.waiting == pause.again
    assert pause.seconds > 0 or not pause.again
    if full and wb_dirty > domain.pipe:
        assert pause.again  # at the limit nobody passes but through its pipe
    if pause.again:  # somebody will clean a page of this store: it is told to, or does so now
        assert pause.wake_flusher and (throttle.over_background(counts) or counts.wb_nr_writeback)
    if sum(counts[:2]) <= dirty_freerun(domain.thresh, domain.bg_thresh) and not strict:
        assert pause.seconds == 0


# --- bandwidth ------------------------------------------------------------------------------


def test_bandwidth_forgets_over_its_period():
    bandwidth = Bandwidth(write_bandwidth=1000, avg_write_bandwidth=1000)
    bandwidth.nr_written = 400  # 2000 pages/s for 200 ms
    bandwidth.update_write_bandwidth(0.2)
    expected = int(1000 + 1000 * 0.2 / BANDWIDTH_PERIOD)
    assert (bandwidth.write_bandwidth, bandwidth.avg_write_bandwidth) == (expected, 1000)
    bandwidth.nr_written = 800
    bandwidth.update_write_bandwidth(0.3)  # too early
    assert bandwidth.write_bandwidth == expected
    bandwidth.update_write_bandwidth(0.4)
    assert bandwidth.avg_write_bandwidth == 1000 + (expected - 1000) // 8


def test_idle_time_is_not_measured():
    throttle = Throttle(Domain(THRESH))
    throttle.started(1000.0)
    throttle.completed(5120, 1000.2)
    assert throttle.bandwidth.write_bandwidth == pytest.approx(INIT_BW, abs=2)
    throttle.started(2000.0)
    throttle.completed(5120, 2000.2)
    assert throttle.bandwidth.write_bandwidth == pytest.approx(INIT_BW, abs=2)


def test_rate_limit_moves_only_where_both_errors_agree():
    def after(ratio, dirtied):
        bandwidth = Bandwidth(1000, 1000, 1000, 1000, nr_dirtied=dirtied)
        bandwidth.update_dirty_ratelimit(0.2, ratio, 100, 100 if ratio <= 1 else 101)
        return bandwidth.dirty_ratelimit

    assert after(0.5, 100) == 1000  # too full, but dirtied at half the disk's speed
    assert after(0.5, 400) == 1000  # the previous estimate does not agree yet
    assert after(1.5, 400) == 1000  # room left, but dirtied at twice the disk's speed
    bandwidth = Bandwidth(1000, 1000, 1000, 500, nr_dirtied=400)
    bandwidth.update_dirty_ratelimit(0.2, 0.5, 100, 90)
    # step 499 to the position's 501, halved once for being near, an eighth of that
    assert bandwidth.dirty_ratelimit == 1000 - 32


@given(
    rates=st.lists(st.integers(1, 10**6), min_size=3, max_size=3),
    dirtied=st.integers(-100, 10**6),
    ratio=st.floats(0, 16),
    position=st.integers(-100, 100),
)
def test_rate_limit_never_leaves_its_targets(rates, dirtied, ratio, position):
    average, limit, balanced = rates
    bandwidth = Bandwidth(average, average, limit, balanced, nr_dirtied=dirtied)
    bandwidth.update_dirty_ratelimit(0.2, ratio, 100 + position, 100)
    moved = bandwidth.dirty_ratelimit - limit
    assert bandwidth.dirty_ratelimit >= 1
    assert abs(moved) <= max(limit, average) // 8 + 1
    assert moved == 0 or (moved > 0) == (position < 0)


def test_shares_follow_completions_and_age_in_periods():
    completions, fast, slow = Completions(), Share(), Share()
    assert completions.fraction(fast) is None
    completions.add(fast, 300, 0.0)
    completions.add(slow, 100, 0.1)
    assert (completions.fraction(fast), completions.fraction(slow)) == (0.75, 0.25)
    completions.add(slow, 100, 3.1)  # a period later: the old ones count half
    assert completions.fraction(fast) == pytest.approx(150 / 300)
    completions.age(1000.0)
    assert completions.fraction(fast) is None


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1000), st.floats(0, 10)), max_size=30))
def test_shares_add_up(events):
    completions, shares, now = Completions(), [Share(), Share(), Share()], 0.0
    for store, pages, later in events:
        now += later
        completions.add(shares[store], pages, now)
    parts = [completions.fraction(share) for share in shares]
    if parts[0] is not None:
        assert all(0 <= part <= 1 for part in parts)
        assert sum(parts) <= 1 + 1e-9
