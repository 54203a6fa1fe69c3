"""
What Negotiate remembers of a connection, and for how long; the library is played.

That the library does as it is played here is what :mod:`tests.kerberos` is for.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.access.support import HeldThreads
from tests.access.test_keytab import key_of, keytab
from txbits.access._steps import Step, Suspicious, Unusable
from txbits.access.negotiate import NegotiateAuthenticator
from txbits.errors import (
    CredentialsIncomplete,
    CredentialsRejected,
    CredentialsUncheckable,
    InvalidSetting,
)
from txbits.interfaces import Credentials, Identity

ROOT = Path(__file__).parents[2]

ALICE = Identity("alice", "negotiate")
BOB = Identity("bob", "negotiate")


class PlayedAcceptor:
    """
    Takes tokens that say what happens.

    ``b"alice"`` is a ticket of alice's, good for an hour; ``b"more"`` needs another
    token.

    :ivar seen: What it was given.
    :ivar failure: What it fails with from now on.
    """

    def __init__(self):
        self.seen = []
        self.failure = None

    def step(self, context, token):
        self.seen.append((context, token))
        if self.failure is not None:
            raise self.failure
        if token == b"more":
            return Step(b"answer", None, context=(context or 0) + 1)
        name = token.decode()
        return Step(b"proof", name if "@" in name else f"{name}@EXAMPLE.TEST", 3600)


def at_once(function, /, *args):
    """A thread that has ended when it is started."""
    threads = HeldThreads()
    done = threads(function, *args)
    threads.end_all()
    return done


class NegotiateCase(SynchronousTestCase):
    """An authenticator for two realms."""

    def setUp(self):
        self.clock = Clock()
        path = Path(self.mktemp())
        path.write_bytes(keytab(key_of("HTTP", "a")))
        path.chmod(0o600)
        self.keytab = str(path)
        self.acceptor = PlayedAcceptor()
        self.authenticator = self.make()
        self.events = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def make(self, realms=("EXAMPLE.TEST", "SALES.TEST"), in_thread=at_once):
        return NegotiateAuthenticator(
            self.clock,
            self.keytab,
            realms,
            acceptor=self.acceptor,
            in_thread=in_thread,
        )

    def lines(self):
        """What was logged, but for the debug messages."""
        return [
            event["log_format"].format(**event)
            for event in self.events
            if event["log_level"] >= LogLevel.info
        ]

    def ask(self, token=None, connection=None, *, value=None, **more):
        """Authenticate a request with a token, and return its credentials as well."""
        if token is not None:
            value = b"Negotiate " + b64encode(token)
        headers = {} if value is None else {b"authorization": [value]}
        credentials = Credentials(
            headers, connection={} if connection is None else connection, **more
        )
        return credentials, self.authenticator.authenticate(credentials)

    def known(self, *args, **kwargs):
        """Whom a request comes from."""
        return self.successResultOf(self.ask(*args, **kwargs)[1])

    def refused(self, *args, error=CredentialsRejected, **kwargs):
        """How a request is refused."""
        return self.failureResultOf(self.ask(*args, **kwargs)[1], error).value


class LoginTests(NegotiateCase):
    """One token, and who that is."""

    def test_ticket_names_the_user(self):
        self.assertEqual(self.known(b"alice"), ALICE)

    def test_scheme_is_offered_without_a_token(self):
        self.assertEqual(self.authenticator.challenge(Credentials({})), b"Negotiate")

    def test_answer_proves_who_the_server_is(self):
        credentials, _ = self.ask(b"alice")
        self.assertEqual(
            credentials.response_headers,
            [
                (b"WWW-Authenticate", b"Negotiate " + b64encode(b"proof")),
                (b"Persistent-Auth", b"true"),
            ],
        )

    def test_nobody_without_a_token(self):
        self.assertIsNone(self.known())
        self.assertEqual(self.acceptor.seen, [])

    def test_other_schemes_are_left_to_others(self):
        ntlm = b64encode(b"NTLMSSP\0\1\0\0\0")
        for value in (b"Basic YTpi", b"NTLM " + ntlm, b"Negotiate " + ntlm):
            self.assertIsNone(self.known(value=value))
        self.assertEqual(self.acceptor.seen, [])

    def test_two_authorization_headers_are_none(self):
        both = [b"Negotiate " + b64encode(name) for name in (b"alice", b"bob")]
        credentials = Credentials({b"authorization": both})
        asked = self.authenticator.authenticate(credentials)
        self.assertIsNone(self.successResultOf(asked))

    def test_no_base64(self):
        for value in (b"Negotiate", b"Negotiate ?", b"Negotiate YQ"):
            self.refused(value=value)
        self.assertEqual(self.acceptor.seen, [])

    def test_realm_that_is_not_listed(self):
        self.assertEqual(self.known(b"alice@SALES.TEST"), ALICE)
        for realm in (b"EVIL.TEST", b"example.test", b""):
            error = self.refused(b"alice@" + realm)
            self.assertIn("is not one of realms", str(error))

    def test_services_hosts_and_second_identities(self):
        for name in (b"alice/admin", b"host/pc.example.test", b"a\\/b", b"a\\@b"):
            error = self.refused(name + b"@EXAMPLE.TEST")
            self.assertIn("only NAME@REALM can log in", str(error))

    def test_computer_of_a_domain_is_a_user(self):
        self.assertEqual(self.known(b"PC01$"), Identity("PC01$", "negotiate"))

    def test_names_that_cannot_be_a_segment_of_a_path(self):
        for name in (b"..", b"anonymous", b"*", b"@staff", b"a:b", b""):
            self.refused(name + b"@EXAMPLE.TEST")

    def test_refused_user_is_not_remembered(self):
        connection = {}
        self.refused(b"alice@EVIL.TEST", connection)
        self.assertEqual(connection, {})


class ConnectionTests(NegotiateCase):
    """Who a connection belongs to."""

    def test_later_requests_need_no_token(self):
        connection = {}
        self.known(b"alice", connection)
        credentials, asked = self.ask(None, connection)
        self.assertEqual(self.successResultOf(asked), ALICE)
        self.assertEqual(credentials.response_headers, [])
        self.assertIsNone(self.known(None, {}))

    def test_identity_ends_with_the_ticket(self):
        connection = {}
        self.known(b"alice", connection)
        self.clock.advance(3599)
        self.assertEqual(self.known(None, connection), ALICE)
        self.clock.advance(1)
        self.assertIsNone(self.known(None, connection))
        self.assertEqual(connection, {})

    def test_other_user_takes_the_connection_over(self):
        connection = {}
        self.known(b"alice", connection)
        self.assertEqual(self.known(b"bob", connection), BOB)
        self.assertEqual(self.known(None, connection), BOB)

    def test_wrong_credentials_end_the_identity(self):
        for value in (b"Basic YTpi", b"Negotiate ?", b"NTLM abc", b"nonsense"):
            connection = {}
            self.known(b"alice", connection)
            _, asked = self.ask(None, connection, value=value)
            asked.addErrback(lambda failure: failure.trap(CredentialsRejected))
            self.assertIsNone(self.known(None, connection), value)

    def test_refused_ticket_ends_the_identity(self):
        connection = {}
        self.known(b"alice", connection)
        self.acceptor.failure = CredentialsRejected("expired")
        self.refused(b"bob", connection)
        self.assertIsNone(self.known(None, connection))

    def test_connection_of_a_proxy_is_nobodys(self):
        connection = {}
        credentials, asked = self.ask(b"alice", connection, is_proxied=True)
        self.assertEqual(self.successResultOf(asked), ALICE)
        self.assertIn((b"Persistent-Auth", b"false"), credentials.response_headers)
        self.assertEqual(connection, {})
        self.assertIsNone(self.known(None, connection, is_proxied=True))

    def test_connection_that_proves_to_be_a_proxys_is_nobodys_any_more(self):
        connection = {}
        self.known(b"alice", connection)
        self.assertIsNone(self.known(None, connection, is_proxied=True))
        self.assertIsNone(self.known(None, connection))

    def test_two_directories_do_not_share_an_identity(self):
        connection = {}
        self.known(b"alice", connection)
        self.authenticator = self.make()
        self.assertIsNone(self.known(None, connection))


class WorkerTests(NegotiateCase):
    """A login that another worker is told of."""

    def test_login_holds_at_the_other_worker_for_as_long(self):
        for realm in ("EXAMPLE.TEST", "SALES.TEST"):
            connection = {}
            self.known(f"alice@{realm}".encode(), connection)
            self.clock.advance(1000)
            login = json.loads(json.dumps(self.authenticator.login_of(connection)))
            other, there = self.make(["EXAMPLE.TEST"]), {}
            other.take_login(there, login)
            credentials = Credentials({}, connection=there)
            for seconds, identity in ((0, ALICE), (2599, ALICE), (1, None)):
                self.clock.advance(seconds)
                found = self.successResultOf(other.authenticate(credentials))
                expected = identity if realm == "EXAMPLE.TEST" else None
                self.assertEqual(found, expected)

    def test_ticket_without_an_end(self):
        self.patch(self.acceptor, "step", lambda *_: Step(b"", "alice@EXAMPLE.TEST"))
        connection = {}
        self.known(b"alice", connection)
        other, there = self.make(), {}
        login = json.loads(json.dumps(self.authenticator.login_of(connection)))
        other.take_login(there, login)
        self.clock.advance(10**9)
        credentials = Credentials({}, connection=there)
        self.assertEqual(self.successResultOf(other.authenticate(credentials)), ALICE)

    def test_login_under_way_is_none(self):
        connection = {}
        self.assertIsNone(self.authenticator.login_of(connection))
        self.refused(b"more", connection, error=CredentialsIncomplete)
        self.assertIsNone(self.authenticator.login_of(connection))


class SeveralStepsTests(NegotiateCase):
    """A login that takes more than one token."""

    def begin(self, connection=None):
        connection = {} if connection is None else connection
        error = self.refused(b"more", connection, error=CredentialsIncomplete)
        self.assertEqual(error.challenge, b"Negotiate " + b64encode(b"answer"))
        return connection

    def test_next_token_goes_on(self):
        connection = self.begin()
        self.assertIsNone(self.known(None, {}))
        self.assertEqual(self.known(b"alice", connection), ALICE)
        self.assertEqual(self.acceptor.seen, [(None, b"more"), (1, b"alice")])
        self.assertEqual(self.known(None, connection), ALICE)

    def test_request_without_a_token_begins_anew(self):
        connection = self.begin()
        self.assertIsNone(self.known(None, connection))
        self.known(b"alice", connection)
        self.assertEqual(self.acceptor.seen[-1], (None, b"alice"))

    def test_connections_do_not_mix(self):
        one, other = self.begin(), self.begin()
        self.known(b"alice", one)
        self.known(b"bob", other)
        self.assertEqual(self.known(None, one), ALICE)
        self.assertEqual(self.known(None, other), BOB)

    def test_steps_are_bounded(self):
        connection = {}
        for _ in range(4):
            self.begin(connection)
        error = self.refused(b"more", connection)
        self.assertNotIsInstance(error, CredentialsIncomplete)
        self.assertEqual(connection, {})

    def test_slow_login_is_refused(self):
        connection = self.begin()
        self.clock.advance(60)
        self.assertIn("too long", str(self.refused(b"alice", connection)))
        self.assertEqual(self.known(b"alice", connection), ALICE)

    def test_logins_under_way_are_bounded_until_they_are_too_old(self):
        connections = [self.begin() for _ in range(1000)]
        self.refused(b"more", {}, error=CredentialsUncheckable)
        self.assertEqual(self.known(b"alice"), ALICE)
        self.clock.advance(60)
        self.begin()
        self.assertIn("too long", str(self.refused(b"alice", connections[0])))

    def test_lost_connection_makes_room(self):
        connections = [self.begin() for _ in range(1000)]
        connections.pop()
        gc.collect()
        self.begin()

    def test_no_proxy_may_be_in_between(self):
        error = self.refused(b"more", {}, is_proxied=True)
        self.assertNotIsInstance(error, CredentialsIncomplete)
        connection = self.begin()
        self.known(b"alice", connection, is_proxied=True)
        self.assertEqual(self.acceptor.seen[-1], (None, b"alice"))


class TroubleTests(NegotiateCase):
    """Whose fault it is, and who is told."""

    def test_trouble_of_the_server_is_told_once_a_minute(self):
        self.acceptor.failure = Unusable("the keytab is gone")
        for _ in range(3):
            error = self.refused(b"alice", error=CredentialsUncheckable)
            self.assertEqual(error.retry_after, 60)
        (line,) = self.lines()
        self.assertEqual(
            line,
            "A Kerberos ticket cannot be checked, and the client is told to try later: "
            "the keytab is gone",
        )
        self.clock.advance(60)
        self.refused(b"alice", error=CredentialsUncheckable)
        self.assertIn("(2 more failures", self.lines()[1])

    def test_end_of_the_trouble_is_told(self):
        self.acceptor.failure = Unusable("the keytab is gone")
        self.refused(b"alice", error=CredentialsUncheckable)
        self.acceptor.failure = None
        self.known(b"alice")
        self.known(b"alice")
        self.assertEqual(len(self.lines()), 2)
        self.assertIn("can be checked again", self.lines()[1])

    def test_one_ticket_that_cannot_be_checked_is_not_over_with_another(self):
        self.acceptor.failure = Unusable("no such version", is_general=False)
        self.refused(b"alice", error=CredentialsUncheckable)
        self.acceptor.failure = None
        self.known(b"bob")
        self.assertEqual(len(self.lines()), 1)

    def test_suspicion_is_told_once_a_minute(self):
        self.acceptor.failure = Suspicious("skew", "the clock is wrong")
        for _ in range(3):
            self.refused(b"alice")
        (line,) = self.lines()
        self.assertEqual(
            line,
            "A Kerberos ticket was refused: skew. If this happens to all clients, "
            "the clock is wrong.",
        )

    def test_wrong_ticket_tells_the_operator_nothing(self):
        self.acceptor.failure = CredentialsRejected("expired")
        self.refused(b"alice")
        self.assertEqual(self.lines(), [])

    def test_fault_of_ours_is_a_fault(self):
        self.acceptor.failure = ZeroDivisionError()
        self.refused(b"alice", error=ZeroDivisionError)

    def test_check_that_does_not_end(self):
        threads = HeldThreads()
        self.authenticator = self.make(in_thread=threads)
        _, asked = self.ask(b"alice")
        self.clock.advance(30)
        self.failureResultOf(asked, CredentialsUncheckable)
        self.assertIn("nothing for 30 s", self.lines()[0])
        # It does, after all.
        threads.end_all()
        _, asked = self.ask(b"alice")
        threads.end_all()
        self.assertEqual(self.successResultOf(asked), ALICE)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_checks_are_bounded(self):
        threads = HeldThreads()
        self.authenticator = self.make(in_thread=threads)
        asked = [self.ask(b"alice")[1] for _ in range(4 + 256)]
        self.refused(b"alice", error=CredentialsUncheckable)
        self.assertEqual(len(threads.jobs), 4)
        threads.end_all()
        for one in asked:
            self.assertEqual(self.successResultOf(one), ALICE)


class SettingTests(NegotiateCase):
    """How it is made, and replaced."""

    def test_keys_are_told(self):
        (found,) = self.authenticator.keys
        self.assertEqual(str(found), "HTTP/a@EXAMPLE.TEST")

    def test_no_realm(self):
        for realms in ((), ("",)):
            with self.assertRaises(InvalidSetting):
                self.make(realms=realms)

    def test_wrong_keytab(self):
        Path(self.keytab).write_bytes(keytab(key_of("host", "a")))
        with self.assertRaises(InvalidSetting):
            self.make()

    def test_missing_library_is_one_line(self):
        code = (
            "import sys; sys.modules['gssapi'] = None\n"
            "from txbits.access.negotiate import NegotiateAuthenticator as Made\n"
            "from txbits.errors import InvalidSetting\n"
            "try: Made(None, sys.argv[1], ['EXAMPLE.TEST'])\n"
            "except InvalidSetting as error: print(error)\n"
        )
        words = [sys.executable, "-c", code, Path(self.keytab).absolute()]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
        self.assertIn("negotiate needs the package gssapi; run pip", done.stdout)
        self.assertEqual((done.stdout.count("\n"), done.stderr), (1, ""))

    def replace(self, **more):
        previous, self.authenticator = self.authenticator, self.make(**more)
        self.authenticator.adopt(previous)

    def test_successor_knows_who_has_logged_in(self):
        connection = {}
        self.known(b"alice", connection)
        self.replace()
        self.assertEqual(self.known(None, connection), ALICE)

    def test_successor_goes_on_with_a_login(self):
        connection = {}
        self.refused(b"more", connection, error=CredentialsIncomplete)
        self.replace()
        self.assertEqual(self.known(b"alice", connection), ALICE)

    def test_realm_that_is_gone_ends_the_identities(self):
        connection = {}
        self.known(b"alice@SALES.TEST", connection)
        self.replace(realms=["EXAMPLE.TEST"])
        self.assertIsNone(self.known(None, connection))
