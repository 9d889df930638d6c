"""track(): the pages stored to, and none missed."""

import mmap
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mkwrite

PAGE = mmap.PAGESIZE


def buffer(pages=16):
    return np.frombuffer(mmap.mmap(-1, pages * PAGE), np.uint8)


@given(st.lists(st.sets(st.integers(0, 16 * PAGE - 1), max_size=8), max_size=4))
def test_take_is_the_pages_stored_to(rounds):
    array = buffer()
    with mkwrite.track(array) as tracker:
        for stored in rounds:
            array[list(stored)] += 1
            assert tracker.peek().pages(PAGE).tolist() == sorted({i // PAGE for i in stored})
            assert tracker.take().pages(PAGE).tolist() == sorted({i // PAGE for i in stored})
        assert tracker.take() == mkwrite.Extents()


def test_overlapping_trackers_do_not_clear_each_other():
    array = buffer()
    with mkwrite.track(array) as whole, mkwrite.track(array[100 : 3 * PAGE]) as part:
        array[PAGE] = array[9 * PAGE] = 1
        assert part.take().total == PAGE
        assert whole.take().pages(PAGE).tolist() == [1, 9]
        array[2 * PAGE] = 1
        with mkwrite.track(array[2 * PAGE :]) as late:
            assert late.take() == mkwrite.Extents()
        assert whole.take().pages(PAGE).tolist() == [2]


def test_ext4_memmap(tmp_path):
    array = np.memmap(tmp_path / "x", np.uint8, "w+", shape=8 * PAGE)
    with mkwrite.track(array) as tracker:
        array[5 * PAGE] = 1
        assert tracker.take().pages(PAGE).tolist() == [5]
        array.flush()
        assert tracker.take() == mkwrite.Extents()


def test_a_forked_child_is_told():
    array = buffer()
    with mkwrite.track(array) as tracker:
        pid = os.fork()
        if pid == 0:
            try:
                tracker.take()
            except RuntimeError:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0
        array[0] = 1
        assert tracker.take().total == PAGE


@pytest.mark.parametrize(
    "bad",
    [b"read-only", np.zeros((4, 4))[:, ::2], bytearray()],
    ids=["readonly", "strided", "empty"],
)
def test_bad_buffers(bad):
    with pytest.raises(ValueError, match="buffer"):
        mkwrite.track(bad)


def test_closed():
    tracker = mkwrite.track(buffer())
    tracker.close()
    tracker.close()
    with pytest.raises(ValueError, match="closed"):
        tracker.take()
