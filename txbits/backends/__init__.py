"""
Where uploads are stored: the backends of txbits, and how others are found.

:class:`txbits.backends.memory.MemoryBackend` and
:class:`txbits.backends.disk.DiskBackend` are imported from their modules. A backend
stores bytes, and depends on neither HTTP nor packets.
"""

from __future__ import annotations

from txbits._descriptions import parse_description
from txbits.backends._destinations import checked_segments
from txbits.backends.description import (
    available_parsers,
    backend_from_description,
)

__all__ = [
    "available_parsers",
    "backend_from_description",
    "checked_segments",
    "parse_description",
]
