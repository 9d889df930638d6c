"""Extents against a naive set of bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mkwrite import Extents

ranges = st.lists(
    st.tuples(st.integers(0, 90), st.integers(0, 20)).map(lambda r: (r[0], r[0] + r[1])),
    max_size=12,
)


def naive(pairs):
    return {byte for start, stop in pairs for byte in range(start, stop)}


@given(ranges, ranges)
def test_set_algebra(a, b):
    x, y = Extents(a), Extents(b)
    assert naive(x | y) == naive(a) | naive(b)
    assert naive(x & y) == naive(a) & naive(b)
    assert naive(x - y) == naive(a) - naive(b)
    assert naive(x ^ y) == naive(a) ^ naive(b)
    assert (x == y) == (naive(a) == naive(b))
    if x == y:
        assert hash(x) == hash(y)


@given(ranges)
def test_canonical(a):
    x = Extents(a)
    assert x.total == len(naive(a))
    flat = x.bounds.ravel()
    assert (np.diff(flat) > 0).all()
    assert [b for b in range(120) if b in x] == sorted(naive(a))


@given(ranges, st.integers(1, 17))
def test_pages(a, size):
    assert Extents(a).pages(size).tolist() == sorted({b // size for b in naive(a)})


@given(ranges, st.sampled_from(["u1", "u2", "u8"]), st.integers(0, 9), st.integers(1, 3))
def test_rows_and_slices(a, dtype, rows, columns):
    array = np.zeros((rows, columns), dtype)
    inside = {b for b in naive(a) if b < array.nbytes}
    got = Extents(a).rows(array).tolist()
    assert got == sorted({b // (array.itemsize * columns) for b in inside})
    items = {i for s in Extents(a).slices(array) for i in range(s.start, s.stop)}
    assert items == {b // array.itemsize for b in inside}


@given(ranges, st.integers(0, 60), st.integers(0, 120))
def test_clip(a, start, stop):
    assert naive(Extents(a).clip(start, stop)) == {b for b in naive(a) if start <= b < stop}


@pytest.mark.parametrize("bad", [[(3, 2)], [(-1, 2)]])
def test_bad_ranges(bad):
    with pytest.raises(ValueError, match="ranges"):
        Extents(bad)


@pytest.mark.parametrize("bad", [[(1.0, 2.0)], [(1, 2, 3)], [1, 2]])
def test_not_ranges(bad):
    with pytest.raises(TypeError, match="ranges"):
        Extents(bad)


def test_bounds_are_read_only():
    with pytest.raises(ValueError):
        Extents([(0, 4)]).bounds[0, 0] = 1


@given(ranges, st.integers(-50, 50))
def test_shift(a, offset):
    x = Extents(a)
    if naive(a) and min(naive(a)) + offset < 0:
        with pytest.raises(ValueError, match="offset"):
            x.shift(offset)
    else:
        assert naive(x.shift(offset)) == {b + offset for b in naive(a)}
        assert x.shift(offset).bounds.flags.writeable is False
