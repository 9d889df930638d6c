"""/proc/self/mem: this process's memory, read so that a page past its file's end is no SIGBUS."""

from __future__ import annotations

import ctypes
import os


class OwnMemory:
    """Reads by address. OSError EIO: not mapped, or the file behind it was truncated.

    Without /proc (other systems) it reads directly, and such a page kills the process.
    """

    def __init__(self) -> None:
        try:
            self.fd = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self.fd = -1

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes at ``address``."""
        if self.fd < 0:
            return ctypes.string_at(address, size)
        found = os.pread(self.fd, size, address)
        while len(found) < size:
            found += os.pread(self.fd, size - len(found), address + len(found))
        return found

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
