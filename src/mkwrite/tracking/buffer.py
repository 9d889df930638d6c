"""Buffer: any writable, C-contiguous memory that a program holds, as address and length."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable
from typing import Any

import numpy as np


class Buffer:
    """``x`` resolved: numpy array, torch CPU tensor, SharedMemory, mmap, bytearray, memoryview.

    Holds an export of it, so that what can refuse to be resized or closed meanwhile does; for
    what cannot (``ndarray.resize(refcheck=False)``, a tensor's storage), ``check`` tells.
    ``view`` is its bytes, flat and writable; ``dtype`` and ``shape`` describe its items
    (dtype as in ``np.dtype.str``, or torch's name).

    ``name`` is how errors call it. Raises TypeError for what holds no memory, ValueError for a
    read-only, non-contiguous or empty one, or one of Python objects.
    """

    def __init__(self, x: Any, name: str = "buffer") -> None:
        self.name = name
        self._where: Callable[[], tuple[int, int]] | None = None
        if type(x).__module__.split(".")[0] == "torch" or hasattr(x, "untyped_storage"):
            self._of_tensor(x)
        elif isinstance(x, np.ndarray):
            self._of_array(x)
        else:
            self._of_exporter(getattr(x, "buf", x))
        if self.view.nbytes == 0:
            raise ValueError(f"{name}: expected at least one byte")
        self.nbytes = self.view.nbytes
        self.start = int(np.frombuffer(self.view, np.uint8).ctypes.data)
        self.stop = self.start + self.nbytes

    def _of_array(self, array: np.ndarray[Any, Any]) -> None:
        if not array.flags.writeable:
            raise ValueError(f"{self.name}: expected a writable one")
        if not array.flags.c_contiguous:
            raise ValueError(f"{self.name}: expected a C-contiguous one")
        if array.dtype.hasobject:
            raise ValueError(f"{self.name}: an array of Python objects holds references, not data")
        # Not memoryview(array): datetime64 and others have no buffer format.
        self.view = np.asarray(array).reshape(-1).view(np.uint8).data
        self.dtype, self.shape = array.dtype.str, array.shape
        self._where = lambda: (array.__array_interface__["data"][0], array.nbytes)

    def _of_tensor(self, tensor: Any) -> None:
        if not (hasattr(tensor, "data_ptr") and hasattr(tensor, "is_contiguous")):
            raise TypeError(f"{self.name}: {type(tensor).__name__} holds no memory to track")
        if tensor.device.type != "cpu":
            raise ValueError(f"{self.name}: expected a CPU tensor, this is on {tensor.device}")
        if not tensor.is_contiguous():
            raise ValueError(f"{self.name}: expected a C-contiguous one")

        def where() -> tuple[int, int]:
            return tensor.data_ptr(), tensor.numel() * tensor.element_size()

        address, nbytes = where()
        if nbytes == 0:
            raise ValueError(f"{self.name}: expected at least one byte")
        # By address: Tensor.numpy() knows neither bfloat16 nor tensors that require grad.
        raw = (ctypes.c_ubyte * nbytes).from_address(address)
        self.view = np.ctypeslib.as_array(raw).data
        self.dtype, self.shape = str(tensor.dtype), tuple(tensor.shape)
        self._where = where

    def _of_exporter(self, x: Any) -> None:
        try:
            view = memoryview(x)
        except TypeError as error:
            raise TypeError(
                f"{self.name}: {type(x).__name__} holds no memory to track; expected an array, "
                "a CPU tensor, a writable buffer, or a mapping of names to them"
            ) from error
        if view.readonly:
            raise ValueError(f"{self.name}: expected a writable one")
        if not view.c_contiguous:
            raise ValueError(f"{self.name}: expected a C-contiguous one")
        self.dtype, self.shape = np.asarray(view).dtype.str, view.shape or ()
        self.view = view.cast("B") if view.nbytes else view

    def check(self) -> None:
        """OSError EFAULT if the object's memory is not where it was."""
        if self._where is not None and self._where() != (self.start, self.nbytes):
            raise OSError(errno.EFAULT, f"{self.name}: was resized or moved while tracked")

    def release(self) -> None:
        """Give up the export."""
        self._where = None
        self.view.release()
