"""userfaultfd(2): creating one, and its ioctls. Addresses and lengths are bytes, page-aligned."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import struct
import sys
from enum import IntFlag

_SYSCALL = {"x86_64": 323, "aarch64": 282}
_USER_MODE_ONLY = 1  # since Linux 5.11
_IOC_NEW = 0xAA00  # on /dev/userfaultfd, since Linux 6.1
_API, _REGISTER, _UNREGISTER = 0xC018AA3F, 0xC020AA00, 0x8010AA01
_WAKE, _WRITEPROTECT = 0x8010AA02, 0xC018AA06
_API_VERSION = 0xAA


class Feature(IntFlag):
    """UFFD_FEATURE_*, each with the kernel that brought it."""

    PAGEFAULT_FLAG_WP = 1 << 0  # 5.7
    EVENT_FORK = 1 << 1  # 4.11, needs CAP_SYS_PTRACE
    EVENT_REMAP = 1 << 2  # 4.11
    EVENT_REMOVE = 1 << 3  # 4.11
    EVENT_UNMAP = 1 << 6  # 4.11
    THREAD_ID = 1 << 8  # 4.14
    MINOR_SHMEM = 1 << 10  # 5.14
    EXACT_ADDRESS = 1 << 11  # 5.18
    WP_HUGETLBFS_SHMEM = 1 << 12  # 5.19
    WP_UNPOPULATED = 1 << 13  # 6.4
    WP_ASYNC = 1 << 15  # 6.7


class Mode(IntFlag):
    """UFFDIO_REGISTER_MODE_*."""

    MISSING = 1
    WP = 2
    MINOR = 4


def _new_fd(flags: int) -> int:
    number = _SYSCALL.get(platform.machine())
    if sys.platform != "linux" or number is None:
        raise OSError(errno.ENOSYS, "userfaultfd needs Linux on x86-64 or aarch64")
    libc = ctypes.CDLL(None, use_errno=True)
    fd = int(libc.syscall(ctypes.c_long(number), ctypes.c_int(flags)))
    if fd < 0:
        raise OSError(ctypes.get_errno(), f"userfaultfd: {os.strerror(ctypes.get_errno())}")
    return fd


def _device_fd(flags: int) -> int:
    import fcntl

    device = os.open("/dev/userfaultfd", os.O_RDWR | os.O_CLOEXEC)
    try:
        return fcntl.ioctl(device, _IOC_NEW, flags)
    finally:
        os.close(device)


class Userfaultfd:
    """One userfaultfd, non-blocking (a blocking one polls as POLLERR) and close-on-exec.

    Tries the system call, then /dev/userfaultfd, then user mode only, where the kernel's
    own accesses to a protected page fail with EFAULT (``user_mode_only`` tells; that does
    not concern WP_ASYNC, which never asks anybody).

    Raises OSError: ENOSYS (no userfaultfd), EPERM or EACCES (not for this user), EINVAL
    (this kernel lacks one of ``features``).
    """

    def __init__(self, features: Feature) -> None:
        self.fd, self.user_mode_only = self._create()
        try:
            self._ioctl(_API, struct.pack("QQQ", _API_VERSION, features, 0))
        except OSError:
            self.close()
            raise
        self.features = features

    @staticmethod
    def _create() -> tuple[int, bool]:
        flags = os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0) if sys.platform == "linux" else 0
        try:
            return _new_fd(flags), False
        except PermissionError:
            with contextlib.suppress(OSError):
                return _device_fd(flags), False
            return _new_fd(flags | _USER_MODE_ONLY), True

    def _ioctl(self, request: int, argument: bytes) -> bytes:
        import fcntl

        return fcntl.ioctl(self.fd, request, argument)

    def register(self, start: int, length: int, mode: Mode = Mode.WP) -> None:
        """OSError: EBUSY (another userfaultfd holds the mapping), EINVAL (not this memory)."""
        self._ioctl(_REGISTER, struct.pack("QQQQ", start, length, mode, 0))

    def unregister(self, start: int, length: int) -> None:
        """Wakes only waiters for missing pages: call ``wake`` afterwards if any may wait."""
        self._ioctl(_UNREGISTER, struct.pack("QQ", start, length))

    def protect(self, start: int, length: int) -> None:
        """Write-protect every page of the range. OSError: ENOENT where it is not registered."""
        self._ioctl(_WRITEPROTECT, struct.pack("QQQ", start, length, 1))

    def unprotect(self, start: int, length: int, *, wake: bool = True) -> None:
        """Let stores through; ``wake=False`` leaves the faulting threads asleep (DONTWAKE)."""
        self._ioctl(_WRITEPROTECT, struct.pack("QQQ", start, length, 0 if wake else 2))

    def wake(self, start: int, length: int) -> None:
        """Wake the threads that wait for a page of the range; they fault anew if need be."""
        self._ioctl(_WAKE, struct.pack("QQ", start, length))

    def close(self) -> None:
        """Give the memory back: waiters wake, stores go unnoticed from here on."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
