"""Calls on this process's own mappings. Addresses and lengths are bytes."""

from __future__ import annotations

import ctypes
import os

MS_ASYNC = 1


def msync(start: int, length: int, flags: int) -> None:
    """msync(2). OSError ENOMEM: part of the range is not mapped."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.msync(ctypes.c_void_p(start), ctypes.c_size_t(length), ctypes.c_int(flags)):
        raise OSError(ctypes.get_errno(), f"msync: {os.strerror(ctypes.get_errno())}")
