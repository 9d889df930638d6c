"""The facts about the kernel that the code leans on, each by name."""

import mmap

import numpy as np
import pytest

from mkwrite.kernel.pagemap import Pagemap, ScanFlag
from mkwrite.kernel.userfaultfd import Feature, Mode, Userfaultfd

PAGE = mmap.PAGESIZE
TAKE = ScanFlag.WP_MATCHING | ScanFlag.CHECK_WPASYNC
ASYNC = Feature.WP_ASYNC | Feature.WP_UNPOPULATED | Feature.PAGEFAULT_FLAG_WP


@pytest.fixture
def memory():
    """64 touched pages of private memory, registered with WP_ASYNC and protected."""
    mapping = mmap.mmap(-1, 64 * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    array = np.frombuffer(mapping, np.uint8)  # unmapped when the last array on it is gone
    array[:] = 1
    uffd, pagemap = Userfaultfd(ASYNC), Pagemap()
    uffd.register(array.ctypes.data, array.nbytes, Mode.WP)
    uffd.protect(array.ctypes.data, array.nbytes)
    yield array, uffd, pagemap
    uffd.close()
    pagemap.close()


def pages(array, found):
    base = array.ctypes.data
    return [p for s, e in found.tolist() for p in range((s - base) // PAGE, (e - base) // PAGE)]


def test_scan_gets_and_rearms_in_one_step(memory):
    array, _, pagemap = memory
    start, stop = array.ctypes.data, array.ctypes.data + array.nbytes
    assert pages(array, pagemap.scan(start, stop, TAKE)) == []
    array[3 * PAGE] = array[40 * PAGE] = 2
    assert pages(array, pagemap.scan(start, stop)) == [3, 40]  # a plain scan does not re-arm
    assert pages(array, pagemap.scan(start, stop, TAKE)) == [3, 40]
    assert pages(array, pagemap.scan(start, stop, TAKE)) == []
    array[3 * PAGE] = 3
    assert pages(array, pagemap.scan(start, stop, TAKE)) == [3]


def test_scan_resumes_when_its_vector_is_full(memory, monkeypatch):
    array, _, pagemap = memory
    monkeypatch.setattr("mkwrite.kernel.pagemap._VECTOR", 3)
    array[:: 2 * PAGE] = 2
    found = pagemap.scan(array.ctypes.data, array.ctypes.data + array.nbytes, TAKE)
    assert pages(array, found) == list(range(0, 64, 2))


def test_kernel_mode_stores_count(memory):
    array, _, pagemap = memory
    with open("/dev/zero", "rb", buffering=0) as zero:
        zero.readinto(memoryview(array)[20 * PAGE : 22 * PAGE])
    found = pagemap.scan(array.ctypes.data, array.ctypes.data + array.nbytes, TAKE)
    assert pages(array, found) == [20, 21]


def test_a_mapping_has_one_userfaultfd(memory):
    array, _, _ = memory
    other = Userfaultfd(ASYNC)
    with pytest.raises(OSError, match="busy"):
        other.register(array.ctypes.data, array.nbytes, Mode.WP)
    other.close()


def test_unregistered_memory_is_an_error_not_an_empty_answer():
    with mmap.mmap(-1, PAGE) as mapping:
        array = np.frombuffer(mapping, np.uint8)
        pagemap = Pagemap()
        with pytest.raises(PermissionError):
            pagemap.scan(array.ctypes.data, array.ctypes.data + PAGE, TAKE)
        pagemap.close()
        del array
