"""
Sessions: the order of packets, releases, and time-outs.

This package does not depend on HTTP, or on how bytes are stored: :mod:`txbits.web` uses
it, and it uses the interfaces of backends. Tests control the time with a
:class:`~twisted.internet.task.Clock`.
"""

from txbits.sessions._fragments import Received
from txbits.sessions._listing import OpenSession
from txbits.sessions._session import Caller, IRequestBody
from txbits.sessions.manager import SessionManager
from txbits.sessions.settings import Settings

__all__ = [
    "Caller",
    "IRequestBody",
    "OpenSession",
    "Received",
    "SessionManager",
    "Settings",
]
