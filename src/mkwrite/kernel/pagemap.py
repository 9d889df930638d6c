"""PAGEMAP_SCAN (Linux 6.7): which pages of a range were written, re-protecting them in one step."""

from __future__ import annotations

import os
import struct
from enum import IntFlag

import numpy as np
import numpy.typing as npt

_PAGEMAP_SCAN = 0xC0606610
_ARG = struct.Struct("12Q")
_WALK_END = 4 * 8  # offset of walk_end in struct pm_scan_arg
_VECTOR = 4096  # regions one call can return; the walk resumes until the range is done


class Category(IntFlag):
    """PAGE_IS_*."""

    WPALLOWED = 1
    WRITTEN = 2
    FILE = 4
    PRESENT = 8
    SWAPPED = 16
    PFNZERO = 32


class ScanFlag(IntFlag):
    """PM_SCAN_*."""

    WP_MATCHING = 1  # write-protect what matched; only on WP_ASYNC registrations
    CHECK_WPASYNC = 2  # EPERM for a mapping that is not such a registration


class Pagemap:
    """The page table of one process, opened once: /proc/PID/pagemap."""

    def __init__(self, pid: int | None = None) -> None:
        self.fd = os.open(f"/proc/{pid or 'self'}/pagemap", os.O_RDONLY | os.O_CLOEXEC)

    def scan(
        self,
        start: int,
        stop: int,
        flags: ScanFlag = ScanFlag(0),  # noqa: B008
        require: Category = Category.WRITTEN,
        inverted: Category = Category(0),  # noqa: B008
        any_of: Category = Category(0),  # noqa: B008
    ) -> npt.NDArray[np.uint64]:
        """Address ranges, shape (n, 2) in bytes, whose pages have every category of ``require``.

        Categories in ``inverted`` must be absent instead of present; of ``any_of``, unless it is
        empty, one must be there as well. Any number of ranges:
        a full vector makes the walk resume at its walk_end. Unmapped holes are skipped.
        OSError: ENOTTY (before Linux 6.7), EPERM (CHECK_WPASYNC failed).
        """
        import fcntl

        vector = np.empty((_VECTOR, 3), np.uint64)
        found = []
        while start < stop:
            argument = bytearray(
                _ARG.pack(
                    _ARG.size, flags, start, stop, 0, vector.ctypes.data, _VECTOR, 0,
                    inverted, require, any_of, require,
                )
            )  # fmt: skip
            count = fcntl.ioctl(self.fd, _PAGEMAP_SCAN, argument)
            found.append(vector[:count, :2].copy())
            start = struct.unpack_from("Q", argument, _WALK_END)[0]
        return np.concatenate(found) if found else np.empty((0, 2), np.uint64)

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
