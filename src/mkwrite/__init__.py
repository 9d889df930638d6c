"""mkwrite: know, ask and commit what a program stores to memory."""

from .extents import Extents

__all__ = ["Extents"]
