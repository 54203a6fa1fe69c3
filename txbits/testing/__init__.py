"""
Tools for testing with txbits: for people who write a backend, or embed the server.

- :class:`txbits.testing.BackendContract` tests a backend.
- :class:`txbits.testing.HoldableBackend` wraps one, so that what it does can be held
  open, or made to fail.
- :class:`txbits.testing.HoldableNotifier` is a server application that answers when a
  test says so.
- :mod:`txbits.testing.memory` joins a client and a site without sockets.
"""

from __future__ import annotations

from txbits.testing.backend import BackendContract
from txbits.testing.faults import Gate, HoldableBackend
from txbits.testing.notifiers import HoldableNotifier

__all__ = ["BackendContract", "Gate", "HoldableBackend", "HoldableNotifier"]
