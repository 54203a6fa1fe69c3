"""
Sessions: which packet acts next, what is released when, and when time is out.

Nothing here knows of requests and responses, and nothing of files: the web is above,
backends are below, and a :class:`~twisted.internet.task.Clock` turns the time.
"""

from txbits.sessions._fragments import Received
from txbits.sessions._session import Caller, IRequestBody
from txbits.sessions.manager import SessionManager
from txbits.sessions.settings import Settings

__all__ = ["Caller", "IRequestBody", "Received", "SessionManager", "Settings"]
