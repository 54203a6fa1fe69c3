"""
The authenticator of ``docs/examples/sqlite_users``: a checker of ``twisted.cred``,
found as a plugin outside the package.
"""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import bcrypt
from twisted.internet import reactor
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

import twisted.plugins
from tests.access.support import basic
from tests.integration.programs import ROOT
from txbits.access.description import (
    authenticator_from_description,
    available_authenticators,
)
from txbits.errors import (
    CredentialsRejected,
    CredentialsUncheckable,
    InvalidSetting,
)
from txbits.interfaces import IAuthenticator, IAuthenticatorParser, Identity

_FOLDER = ROOT / "docs" / "examples" / "sqlite_users"


class SQLiteUsersTests(TestCase):
    """Users in a database."""

    def setUp(self):
        plugins = self.mktemp()
        # A copy, since Twisted keeps a cache of plugins beside them.
        Path(plugins).mkdir()
        (plugin,) = (_FOLDER / "twisted" / "plugins").glob("*.py")
        (Path(plugins) / plugin.name).write_text(plugin.read_text())
        twisted.plugins.__path__.append(plugins)
        self.addCleanup(twisted.plugins.__path__.remove, plugins)
        sys.path.append(str(_FOLDER))
        self.addCleanup(sys.path.remove, str(_FOLDER))
        self.path = self.mktemp()
        hashed = bcrypt.hashpw("sécret".encode(), bcrypt.gensalt(4)).decode()
        with closing(sqlite3.connect(self.path)) as database, database:
            database.execute("CREATE TABLE users (name TEXT, hash TEXT, groups TEXT)")
            database.execute(
                "INSERT INTO users VALUES (?, ?, ?)", ("alice", hashed, "a,b")
            )

    def make(self):
        return authenticator_from_description(f"sqlite:{self.path}", reactor)

    def test_it_is_listed(self):
        found = {one.scheme: one for one in available_authenticators()}
        self.assertEqual(found["sqlite"].format, "sqlite:PATH")
        self.assertTrue(verifyObject(IAuthenticatorParser, found["sqlite"]))

    async def test_users_are_known_with_their_groups(self):
        authenticator = self.make()
        self.assertTrue(verifyObject(IAuthenticator, authenticator))
        self.assertEqual(
            await authenticator.authenticate(basic("alice", "sécret")),
            Identity("alice", "sqlite", frozenset({"a", "b"})),
        )

    async def test_anyone_else_is_rejected(self):
        authenticator = self.make()
        for pair in (("alice", "wrong"), ("bob", "")):
            with self.assertRaises(CredentialsRejected):
                await authenticator.authenticate(basic(*pair))

    async def test_a_database_that_breaks_means_later(self):
        authenticator = self.make()
        Path(self.path).write_text("no database" * 1000)
        with self.assertRaises(CredentialsUncheckable):
            await authenticator.authenticate(basic("alice", "sécret"))

    def test_a_database_that_is_not_there_is_refused(self):
        Path(self.path).unlink()
        error = self.assertRaises(InvalidSetting, self.make)
        self.assertIn("cannot be read", str(error))
