"""Every kind of memory that can be tracked, as (name, maker); a maker returns the array over it."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np
import torch

PAGE = mmap.PAGESIZE


@contextlib.contextmanager
def private(nbytes: int, tmp: Path) -> Iterator[tuple[Any, np.ndarray]]:
    array = np.frombuffer(mmap.mmap(-1, nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)
    array[: nbytes // 2] = 1  # the other half is never-touched memory
    yield array, array


@contextlib.contextmanager
def huge(nbytes: int, tmp: Path) -> Iterator[tuple[Any, np.ndarray]]:
    mapping = mmap.mmap(-1, nbytes + (4 << 20), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    mapping.madvise(mmap.MADV_HUGEPAGE)
    whole = np.frombuffer(mapping, np.uint8)
    whole[:] = 1
    start = -whole.ctypes.data % (2 << 20)
    array = whole[start : start + nbytes]
    yield array, array


@contextlib.contextmanager
def heap(nbytes: int, tmp: Path) -> Iterator[tuple[Any, np.ndarray]]:
    # Not aligned to pages, and nobody else's bytes on the edge pages.
    inner = memoryview(bytearray(nbytes + 4 * PAGE))[PAGE + 100 :][:nbytes]
    yield inner, np.frombuffer(inner, np.uint8)


@contextlib.contextmanager
def file(nbytes: int, tmp: Path) -> Iterator[tuple[Any, np.ndarray]]:
    array = np.memmap(tmp / "file", np.uint8, "w+", shape=nbytes)
    yield array, array


@contextlib.contextmanager
def file_mmap(nbytes: int, tmp: Path) -> Iterator[tuple[Any, np.ndarray]]:
    (tmp / "mmap").write_bytes(bytes(nbytes))
    with open(tmp / "mmap", "r+b") as f:
        mapping = mmap.mmap(f.fileno(), 0)
    yield mapping, np.frombuffer(mapping, np.uint8)


@contextlib.contextmanager
def file_private(nbytes: int, tmp: Path) -> Iterator[tuple[Any, np.ndarray]]:
    (tmp / "copy").write_bytes(bytes(nbytes))
    array = np.memmap(tmp / "copy", np.uint8, "c", shape=nbytes)
    yield array, array


@contextlib.contextmanager
def shared(nbytes: int, tmp: Path) -> Iterator[tuple[Any, np.ndarray]]:
    memory = SharedMemory(create=True, size=nbytes)
    memory.unlink()
    array = np.frombuffer(memory.buf, np.uint8)[:nbytes]
    yield memory, array
    # The test's arrays may outlive this: leave the unmapping to the last of them, where
    # SharedMemory.close() would raise.
    os.close(memory._fd)
    memory._fd, memory._buf, memory._mmap = -1, None, None


@contextlib.contextmanager
def tensor(nbytes: int, tmp: Path) -> Iterator[tuple[Any, np.ndarray]]:
    parameter = torch.nn.Parameter(torch.zeros(nbytes // 4 + 4 * PAGE)[PAGE + 25 :][: nbytes // 4])
    yield parameter, parameter.detach().numpy().view(np.uint8)


@contextlib.contextmanager
def bfloat16(nbytes: int, tmp: Path) -> Iterator[tuple[Any, np.ndarray]]:
    half = torch.zeros(nbytes // 2 + 4 * PAGE, dtype=torch.bfloat16)[2 * PAGE :][: nbytes // 2]
    yield half, half.view(torch.uint8).numpy()


KINDS = {
    maker.__name__: maker
    for maker in (
        private, huge, heap, file, file_mmap, file_private, shared, tensor, bfloat16
    )
}  # fmt: skip
