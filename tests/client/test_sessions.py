"""
``txbits sessions``, against the real interface on a Unix socket in this process.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any
from unittest.mock import patch

import bcrypt
from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.admin.sessions import ON_FIRE, ListView, record
from tests.client.fakes import Pipe, Terminal
from tests.web.support import Authenticator
from txbits.access.basic import BasicAuthenticator, Passwords
from txbits.admin import AdminResource
from txbits.admin.api import SessionsAPI
from txbits.admin.resource import Operators
from txbits.admin.tokens import FormTokens
from txbits.client._admin import AdminServer, InvalidEndpoint, admin_server
from txbits.client.cli import parse
from txbits.client.commands._command import Context, Status, run
from txbits.interfaces import Identity
from txbits.service.admin_address import InvalidSetting, admin_endpoint
from txbits.web import BITSSite

FIELDS = {
    *("session", "directory", "destination", "owner", "client", "bytes", "total"),
    *("created", "last_progress", "state"),
}


_BOLD = re.compile("\x1b\\[[0-9;]*m")


class EndpointTests(SynchronousTestCase):
    """Where the operator's listener is."""

    def test_client_endpoints_of_twisted_are_read(self) -> None:
        for text, server in (
            ("unix:/run/admin", AdminServer("http://localhost", "/run/admin")),
            ("unix:path=/a\\:b", AdminServer("http://localhost", "/a:b")),
            ("tcp:host=h:port=8080", AdminServer("http://h:8080")),
            ("tcp:h:80", AdminServer("http://h")),
            ("tcp:host=\\:\\:1:port=81", AdminServer("http://[::1]:81")),
            ("tls:host=h.example:port=443", AdminServer("https://h.example")),
            ("ssl:h:8443", AdminServer("https://h:8443")),
        ):
            self.assertEqual(admin_server(text), server)

    def test_others_are_told(self) -> None:
        for text in (
            "",
            "unix:",
            "/run/admin",
            "tcp:h",
            "tcp:h:x",
            "tcp:a b:80",
            "x:y",
        ):
            with self.assertRaises(InvalidEndpoint) as caught:
                admin_server(text)
            self.assertNotIn("\n", str(caught.exception))

    def endpoint(self, admin_listen: str | None) -> str:
        path = self.mktemp()
        listen = "" if admin_listen is None else f'admin-listen = "{admin_listen}"\n'
        users = "" if admin_listen is None else 'admin-users = ["root"]\n'
        with open(path, "w", encoding="utf-8") as file:
            file.write(
                f'listen = ["tcp:80"]\n{listen}{users}[[directory]]\nmount = "/"\n'
                'backend = "memory:"\nauthenticate = ["basic"]\n'
                'password-file = "passwords"\n'
            )
        return admin_endpoint(path)

    def test_settings_of_servers_tell_it(self) -> None:
        for server, client in (
            ("unix:/run/admin:mode=600", "unix:/run/admin"),
            ("unix:address=/run/a\\\\:b", "unix:/run/a\\:b"),
            ("tcp:9000", "tcp:host=127.0.0.1:port=9000"),
            ("tcp:port=9000:interface=0.0.0.0", "tcp:host=127.0.0.1:port=9000"),
            ("tcp:9000:interface=192.0.2.1", "tcp:host=192.0.2.1:port=9000"),
            ("tcp6:9000", "tcp:host=\\:\\:1:port=9000"),
            ("tcp6:9000:interface=\\\\:\\\\:", "tcp:host=\\:\\:1:port=9000"),
        ):
            self.assertEqual(self.endpoint(server), client)
            admin_server(client)

    def test_some_do_not(self) -> None:
        with self.assertRaisesRegex(InvalidSetting, "admin-listen is not set"):
            self.endpoint(None)
        with self.assertRaisesRegex(InvalidSetting, "use --admin"):
            self.endpoint("systemd:domain=UNIX:index=0")


class SessionsCase(TestCase):
    """The command, and a server with a list of sessions."""

    def setUp(self) -> None:
        self.view = ListView([record(n) for n in range(1, 4)])
        self.operators: Operators | None = None
        root = AdminResource(
            {},
            lambda: self.operators,
            FormTokens(reactor.seconds),
            SessionsAPI(self.view).routes(),
        )
        # A socket's path must be short.
        folder = self.mktemp()
        os.makedirs(folder)
        self.socket = os.path.relpath(os.path.join(folder, "admin"))
        self.site = BITSSite(root, reactor=reactor)
        port: Any = reactor.listenUNIX(self.socket, self.site, mode=0o600)
        self.addCleanup(port.stopListening)
        self.out: Any = Pipe()
        self.err = Pipe()

    async def run_sessions(self, act: str, *argv: str, **environ: str) -> Status:
        where = () if "--admin" in argv else ("--admin", f"unix:{self.socket}")
        context = Context(
            reactor,
            self.out,
            self.err,
            maybeDeferred,
            {"HOME": self.mktemp(), **environ},
            now=lambda: 1000.0,
        )
        return await run(context, parse(["sessions", act, *argv, *where]))

    def said(self) -> Any:
        return json.loads(self.out.getvalue())


class ListTests(SessionsCase):
    """``txbits sessions list``."""

    async def test_json_is_an_array_of_objects(self) -> None:
        self.assertEqual(await self.run_sessions("list", "--json"), Status.DONE)
        self.assertEqual(self.said(), [one.as_json() for one in self.view.sessions])
        self.assertLessEqual(FIELDS, set(self.said()[0]))

    async def test_no_sessions_are_an_empty_array(self) -> None:
        self.view.sessions = []
        self.assertEqual(await self.run_sessions("list", "--json"), Status.DONE)
        self.assertEqual(self.said(), [])
        self.out.truncate(0)
        self.assertEqual(await self.run_sessions("list"), Status.DONE)
        self.assertEqual(self.out.getvalue().strip("\0"), "no open sessions\n")

    async def test_all_pages_are_listed(self) -> None:
        self.view.sessions = [record(n) for n in range(1, 1202)]
        self.assertEqual(await self.run_sessions("list", "--json"), Status.DONE)
        self.assertEqual(len(self.said()), 1201)

    async def test_columns_are_separated_by_tabs(self) -> None:
        self.view.sessions = [record(1, destination="a\tb\n", total=None)]
        self.assertEqual(await self.run_sessions("list"), Status.DONE)
        head, row = self.out.getvalue().splitlines()
        self.assertEqual(
            dict(zip(head.split("\t"), row.split("\t"), strict=True)),
            {
                "session": record(1).session,
                "directory": "/logs",
                "destination": "a\\ufffdb\\ufffd",
                "owner": "alice",
                "client": "-",
                "bytes": "5",
                "total": "-",
                "idle": "1000",
                "state": "receiving",
            },
        )

    async def test_a_terminal_gets_a_table(self) -> None:
        self.view.sessions = [
            record(1, client="192.0.2.1", total=5 * 1024**3),
            record(2, owner=None, bytes=None, state=None, destination=None),
        ]
        words = (record(1).session, "/logs/a/1.txt", "0% of 5.0G", "17m")
        for width, more in (("120", ("alice at 192.0.2.1", "receiving")), ("90", ())):
            self.out = Terminal()
            with patch.dict(os.environ, COLUMNS=width):
                self.assertEqual(await self.run_sessions("list"), Status.DONE)
            for each in (*words, *more):
                self.assertIn(each, self.out.getvalue())
            for line in self.out.getvalue().splitlines():
                self.assertLessEqual(len(_BOLD.sub("", line)), int(width))

    async def test_filters_are_sent(self) -> None:
        self.view.sessions.append(record(9, owner=None, state="created"))
        for argv, count in (
            (("--owner", ""), 1),
            (("--owner", "alice", "--text", "a/2"), 1),
            (("--state", "created"), 1),
            (("--directory", "/logs/"), 4),
            (("--client", "192.0.2.1"), 0),
            (("--active",), 0),
            (("--older-than", "15m"), 4),
            (("--older-than", "20m"), 0),
        ):
            self.out = Pipe()
            status = await self.run_sessions("list", "--json", *argv)
            self.assertEqual((status, len(self.said())), (Status.DONE, count), argv)

    async def test_what_is_missing_is_told(self) -> None:
        self.view.fault = ON_FIRE
        self.assertEqual(await self.run_sessions("list"), Status.GAVE_UP)
        self.assertEqual(self.err.getvalue(), "txbits: on fire\n")


class ShowTests(SessionsCase):
    """``txbits sessions show``."""

    async def test_everything_is_shown(self) -> None:
        session = f"{{{record(2).session}}}"
        self.assertEqual(await self.run_sessions("show", session), Status.DONE)
        for line in ("destination  a/2.txt", "bytes        5", "client       -"):
            self.assertIn(f"{line}\n", self.out.getvalue())

    async def test_json_is_an_object(self) -> None:
        status = await self.run_sessions("show", record(2).session, "--json")
        self.assertEqual((status, self.said()), (Status.DONE, record(2).as_json()))

    async def test_an_unknown_one_is_refused(self) -> None:
        status = await self.run_sessions("show", record(9).session)
        self.assertEqual(status, Status.REFUSED)
        self.assertEqual(self.err.getvalue(), "txbits: no such session\n")


class CancelTests(SessionsCase):
    """``txbits sessions cancel``."""

    async def test_each_is_cancelled(self) -> None:
        sessions = [record(n).session for n in (3, 1)]
        self.assertEqual(await self.run_sessions("cancel", *sessions), Status.DONE)
        self.assertEqual([one for one, _ in self.view.cancelled], sessions)
        self.assertIn(
            f"cancelled {sessions[0]}: /logs/a/3.txt, 5 of 10 bytes\n",
            self.out.getvalue(),
        )
        operator = self.view.cancelled[0][1]
        self.assertEqual(
            (operator.user, operator.scheme), (f"uid {os.getuid()}", "unix")
        )

    async def test_those_that_are_unknown_are_told(self) -> None:
        one, other = record(1).session, record(9).session
        status = await self.run_sessions("cancel", other, one, "--json")
        self.assertEqual(status, Status.REFUSED)
        self.assertEqual(self.said(), [record(1).as_json()])
        self.assertEqual(self.err.getvalue(), f"txbits: {other}: no such session\n")


class PurgeTests(SessionsCase):
    """``txbits sessions purge``."""

    async def test_all_that_are_old_are_cancelled(self) -> None:
        self.view.sessions = [record(n) for n in range(1, 202)]
        self.view.sessions.append(record(999, last_progress=999.0))
        status = await self.run_sessions("purge", "--older-than", "10m")
        # The list says that one is left.
        self.assertEqual(status, Status.GAVE_UP)
        self.assertEqual(len(self.view.cancelled), 201)
        self.assertTrue(self.out.getvalue().endswith("\n201 sessions cancelled\n"))
        self.assertIn("txbits: one is left\n", self.err.getvalue())

    async def test_a_dry_run_cancels_nothing(self) -> None:
        argv = ("--older-than", "10m", "--dry-run")
        self.assertEqual(await self.run_sessions("purge", *argv), Status.DONE)
        self.assertIn("3 sessions would be cancelled\n", self.out.getvalue())
        self.out = Pipe()
        self.assertEqual(await self.run_sessions("purge", *argv, "--json"), Status.DONE)
        self.assertEqual(len(self.said()), 3)
        self.assertEqual(self.view.cancelled, [])

    async def test_one_session_is_told_in_the_singular(self) -> None:
        self.view.sessions = [record(1)]
        await self.run_sessions("purge", "--older-than", "10m")
        self.assertTrue(self.out.getvalue().endswith("\n1 session cancelled\n"))


class ConnectionTests(SessionsCase):
    """The server cannot be asked, or asks who it is."""

    async def test_a_socket_that_is_not_there(self) -> None:
        status = await self.run_sessions("list", "--admin", "unix:nowhere")
        self.assertEqual(status, Status.GAVE_UP)
        self.assertEqual(
            self.err.getvalue(),
            "txbits: cannot connect to nowhere: No such file or directory\n",
        )

    async def test_an_endpoint_that_is_none(self) -> None:
        status = await self.run_sessions("list", "--admin", "x")
        self.assertEqual(status, Status.USAGE)
        self.assertIn(
            "txbits: --admin: x is not a client endpoint", self.err.getvalue()
        )

    async def test_settings_that_cannot_be_read(self) -> None:
        context = Context(reactor, self.out, self.err, maybeDeferred, {})
        status = await run(context, parse(["sessions", "list", "--config", "nowhere"]))
        self.assertEqual(status, Status.USAGE)
        self.assertRegex(self.err.getvalue(), r"^txbits: .*nowhere.*\n$")

    async def test_a_listener_of_something_else(self) -> None:
        self.view.sessions = []
        for argv in (["list"], ["show", record(1).session]):
            self.err.truncate(0)
            self.err.seek(0)
            port: Any = reactor.listenUNIX(
                f"{self.socket}-2",
                BITSSite(
                    AdminResource({}, lambda: None, FormTokens(reactor.seconds)),
                    reactor=reactor,
                ),
            )
            where = f"unix:{self.socket}-2"
            status = await self.run_sessions(*argv, "--admin", where)
            await port.stopListening()
            self.assertEqual(status, Status.REFUSED)
            self.assertIn(
                "is not the admin-listen of a txbits server", self.err.getvalue()
            )

    async def test_a_password_is_sent_where_it_is_asked_for(self) -> None:
        stored = bcrypt.hashpw(b"secret", bcrypt.gensalt(4))
        basic = BasicAuthenticator(reactor, Passwords({"root": stored}))
        self.operators = Operators(["root"], lambda: [basic])
        self.assertEqual(await self.run_sessions("list"), Status.REFUSED)
        self.assertIn("it asks for Basic", self.err.getvalue())
        self.assertIn("--user NAME sends a name and a password", self.err.getvalue())
        status = await self.run_sessions(
            "list", "--json", "--user", "root", TXBITS_PASSWORD="secret"
        )
        self.assertEqual((status, len(self.said())), (Status.DONE, 3))

    async def test_a_tcp_listener_is_reached_without_a_proxy(self) -> None:
        port: Any = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        where = f"tcp:host=127.0.0.1:port={port.getHost().port}"
        status = await self.run_sessions(
            *("list", "--json", "--admin", where), http_proxy="http://127.0.0.1:1"
        )
        self.assertEqual((status, len(self.said())), (Status.DONE, 3))

    async def test_who_is_no_operator_is_told(self) -> None:
        authenticator = Authenticator(Identity("bob", "told"))
        self.operators = Operators(["root"], lambda: [authenticator])
        self.assertEqual(await self.run_sessions("list"), Status.REFUSED)
        self.assertIn("this user is not in admin-users", self.err.getvalue())
