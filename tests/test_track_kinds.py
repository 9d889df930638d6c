"""take() is the pages stored to: every kind of memory, every kind of store, by both methods."""

import os
import socket
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mkwrite

from .kinds import KINDS, PAGE

SIZE = 48 * PAGE


# Every store changes every byte that it stores, so comparing finds exactly what it stored.


def by_fancy_index(array, at, rng):
    array[np.append(rng.choice(array.size, 5), at)] += 1


def by_slice(array, at, rng):
    array[at : at + rng.integers(1, 3 * PAGE)] += 1


def by_stride(array, at, rng):
    array[at :: 7 * PAGE] += 1


def by_mask(array, at, rng):
    mask = rng.random(array.size) < 1e-4
    mask[at] = True
    array[mask] += 1


def by_dtype(array, at, rng):
    dtype = np.dtype(rng.choice(["i2", "f4", "f8", "c16", "M8[s]", "S3"]))
    part = array[at - at % dtype.itemsize :]
    items = part[: len(part) // dtype.itemsize * dtype.itemsize].view(dtype)
    if len(items):
        items[0] = np.frombuffer((~part[: dtype.itemsize]).tobytes(), dtype)[0]
    else:
        array[at] += 1


def by_ufunc_out(array, at, rng):
    part = array[at : at + 200]
    np.add(part, 1, out=part)


def by_threads(array, at, rng):
    threads = [
        threading.Thread(target=by_slice, args=(array, (at + n * PAGE) % array.size, rng))
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def by_readinto(array, at, rng):
    part = array[at : at + 2 * PAGE]
    with tempfile.TemporaryFile(buffering=0) as f:
        f.write(~part)
        f.seek(0)
        f.readinto(part)


def by_preadv(array, at, rng):
    part, head = array[at : at + 10], array[: min(5, at)]
    with tempfile.TemporaryFile(buffering=0) as f:
        f.write((~part).tobytes() + (~head).tobytes())
        os.preadv(f.fileno(), [part, head], 0)


def by_recv_into(array, at, rng):
    part = array[at : at + 100]
    a, b = socket.socketpair()
    with a, b:
        a.sendall(~part)
        b.recv_into(part)


STORES = [
    by_fancy_index, by_slice, by_stride, by_mask, by_dtype, by_ufunc_out, by_threads,
    by_readinto, by_preadv, by_recv_into,
]  # fmt: skip


def pages_of(found, array):
    """Pages of memory, not of the buffer, whose start need not be a page's."""
    return found.shift(array.ctypes.data).pages(PAGE).tolist()


def stored_pages(before, array):
    return np.unique((np.flatnonzero(before != array) + array.ctypes.data) // PAGE).tolist()


def store_and_take(tracker, array, rounds):
    for stores in rounds:
        before = array.copy()
        for store, at, seed in stores:
            store(array, at % array.size, np.random.default_rng(seed))
        expected = stored_pages(before, array)
        # Two stores of one round may undo each other: those pages were stored to all the same.
        exact = len(stores) == 1
        peeked, found = tracker.peek(), tracker.take()
        assert peeked == found
        assert set(expected) <= set(pages_of(found, array)), "a store was missed"
        if exact:
            assert pages_of(found, array) == expected
    assert tracker.take() == mkwrite.Extents()


store = st.tuples(st.sampled_from(STORES), st.integers(0, SIZE - 1), st.integers(0, 2**32 - 1))
rounds = st.lists(st.lists(store, min_size=1, max_size=3), max_size=4)


def check(kind, method, rounds):
    with tempfile.TemporaryDirectory() as tmp, KINDS[kind](SIZE, Path(tmp)) as (tracked, array):
        with mkwrite.track(tracked, method=method) as tracker:
            assert tracker.method == method
            store_and_take(tracker, array, rounds)
        del tracked, array


@pytest.mark.parametrize("method", ["userfaultfd", "hash"])
@pytest.mark.parametrize("kind", sorted(KINDS))
@settings(max_examples=25, deadline=None)
@given(rounds=rounds)
def test_take_is_the_pages_stored_to(kind, method, rounds):
    check(kind, method, rounds)


@pytest.mark.nightly
@pytest.mark.parametrize("method", ["userfaultfd", "hash"])
@pytest.mark.parametrize("kind", sorted(KINDS))
@settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(rounds=rounds)
def test_take_is_the_pages_stored_to_ten_thousand_times(kind, method, rounds):
    check(kind, method, rounds)


@pytest.mark.parametrize("method", ["userfaultfd", "hash"])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_hot_writers_lose_nothing_between_takes(kind, method, tmp_path):
    """Takes run against the stores: together they tell every page, each store in one of them."""
    with KINDS[kind](SIZE, tmp_path) as (tracked, array):
        before = array.copy()
        at = np.random.default_rng(1).permutation(SIZE)[:3000]

        def write():
            for i in at:
                array[i] += 1

        with mkwrite.track(tracked, method=method) as tracker:
            thread = threading.Thread(target=write)
            thread.start()
            found = mkwrite.Extents()
            while thread.is_alive():
                found |= tracker.take()
            thread.join()
            found |= tracker.take()
        assert pages_of(found, array) == stored_pages(before, array)
        del tracked
