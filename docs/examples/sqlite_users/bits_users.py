"""
Users in an SQLite database, as a checker of ``twisted.cred``.

A checker for LDAP or PAM looks the same: it gets a name and a password, and its
Deferred fires with the name of the user, or fails with ``UnauthorizedLogin``. Here the
table ``users`` has the columns ``name``, ``hash`` (of ``bcrypt``) and ``groups``,
separated by commas.
"""

import sqlite3
from contextlib import closing
from typing import Any

import bcrypt
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from zope.interface import implementer

from txbits.interfaces import Identity

#: Compared with the password of a name that does not exist, which then takes as long.
_NOBODY = bcrypt.hashpw(b"", bcrypt.gensalt(12)).decode()


@implementer(ICredentialsChecker)
class DatabaseChecker:
    """Looks up names and passwords in the SQLite database *path*."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, path: str, reactor: Any) -> None:
        self._path = path
        self._reactor = reactor

    def requestAvatarId(self, credentials: Any) -> Deferred[Identity]:
        """Check a name and a password, in a thread: both SQLite and bcrypt block."""
        name, password = credentials.username, credentials.password
        pool = self._reactor.getThreadPool()
        return deferToThreadPool(self._reactor, pool, self._check, name, password)

    def _check(self, name: bytes, password: bytes) -> Identity:
        query = "SELECT hash, groups FROM users WHERE name = ?"
        with closing(
            sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)
        ) as database:
            found = database.execute(query, (name.decode(),)).fetchone()
        stored, groups = found or (_NOBODY, "")
        # bcrypt uses the first 72 bytes.
        if not bcrypt.checkpw(password[:72], stored.encode()) or not found:
            raise UnauthorizedLogin
        listed = frozenset(group for group in groups.split(",") if group)
        return Identity(name.decode(), "sqlite", listed)
