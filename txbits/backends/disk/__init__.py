"""
Uploads in directories of the machine: the backend that most servers use.

A session is a file of bytes, and a line of a table, in a staging area beside the
published files; publishing is a link or a rename. :mod:`txbits.backends.disk._session`
is where a session is told from its start to its end.
"""

from __future__ import annotations

from txbits.backends.disk._staging import FsyncPolicy
from txbits.backends.disk.backend import DiskBackend

__all__ = ["DiskBackend", "FsyncPolicy"]
