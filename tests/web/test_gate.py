"""
Authenticators and the access policy in front of a directory: who is asked, in which
order, and what clients are answered.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.logger import LogLevel, capturedLogs, eventAsText, formatEvent
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.web.support import (
    UNKNOWN_ID,
    Authenticator,
    DenyingPolicy,
    Policy,
    Response,
    WebCase,
    fragment,
    packet,
    request,
    responses,
)
from txbits.errors import BackendError, CredentialsIncomplete, CredentialsRejected
from txbits.interfaces import (
    Credentials,
    Grant,
    IAccessPolicy,
    IAuthenticator,
    Identity,
    IRemembering,
    Scope,
)
from txbits.sessions import Settings
from txbits.web import BITSResource, Gate

ALICE = Identity("alice", "told")


@implementer(IAuthenticator)
class ByName:
    """Believes every name that follows ``Told``."""

    scheme = "told"
    strength = 1

    def challenge(self, credentials: Credentials) -> bytes | None:
        return b"Told"

    def authenticate(self, credentials: Credentials) -> Deferred[Identity | None]:
        said = credentials.authorization
        if said is None or said[0] != "told":
            return succeed(None)
        return succeed(Identity(said[1].decode(), "told"))


@implementer(IRemembering)
class Remembering(Authenticator):
    """Counts how often it has to forget who has logged in."""

    scheme = "kept"
    forgotten = 0

    def forget(self, credentials: Credentials) -> None:
        self.forgotten += 1


def told(data: bytes, name: str) -> bytes:
    """Add credentials to a request."""
    line = b"\r\nAuthorization: Told " + name.encode() + b"\r\n"
    return data.replace(b"\r\n", line, 1)


class AuthenticatorTests(WebCase):
    """``IAuthenticator``: asked before the body of any packet."""

    def challenges(self, ack: Response) -> list[str]:
        return ack.headers.get("www-authenticate", [])

    def test_the_fake_provides_the_interface(self) -> None:
        self.assertTrue(verifyObject(IAuthenticator, Authenticator()))

    def test_what_is_no_authenticator_is_refused_at_assembly(self) -> None:
        with self.assertRaises(TypeError):
            BITSResource(self.memory, authenticators=[object()], reactor=self.clock)

    def test_they_are_asked_in_order_until_one_knows(self) -> None:
        first, second, third = (
            Authenticator(),
            Authenticator(ALICE),
            Authenticator(Identity("bob")),
        )
        self.serve(authenticators=[first, second, third], policy=(policy := Policy()))
        self.assert_success(self.ask(packet(b"Ping")), None)
        self.assertEqual([len(one.asked) for one in (first, second, third)], [1, 1, 0])
        self.assertEqual([user for user, _, _ in policy.asked], ["alice"])

    def test_those_that_remember_forget_for_credentials_of_another_scheme(self) -> None:
        remembering = Remembering()
        self.serve(authenticators=[Authenticator(ALICE), remembering])
        ping = packet(b"Ping")
        for line, count in ((b"", 0), (b"Kept a", 0), (b"Told a", 1), (b"b", 2)):
            said = ping
            if line:
                said = ping.replace(b"\r\n", b"\r\nAuthorization: " + line + b"\r\n", 1)
            self.assert_success(self.ask(said), None)
            self.assertEqual(remembering.forgotten, count)

    def test_challenges_are_sent_strongest_first(self) -> None:
        self.serve(
            authenticators=[
                Authenticator(challenge=b"Weak", strength=1),
                Authenticator(challenge=None, strength=3),
                Authenticator(challenge=b"Strong", strength=2),
            ]
        )
        ack = self.ask(packet(b"Ping"))
        self.assert_refused(ack, "credentials-rejected")
        self.assertEqual(self.challenges(ack), ["Strong", "Weak"])

    def test_the_next_step_is_the_only_challenge(self) -> None:
        step = CredentialsIncomplete("one of two", b"Told abc")
        self.serve(authenticators=[Authenticator(step), Authenticator()])
        self.assertEqual(self.challenges(self.ask(packet(b"Ping"))), ["Told abc"])

    def test_credentials_that_no_authenticator_takes_are_rejected(self) -> None:
        self.serve(authenticators=[ByName()], policy=Policy())
        ack = self.ask(packet(b"Ping", authorization=b"NTLM TlRMTVNTUAAB"))
        self.assert_refused(ack, "credentials-rejected")
        self.assert_success(self.ask(packet(b"Ping")), None)

    def test_two_authorization_headers_are_rejected(self) -> None:
        self.serve(authenticators=[ByName()], policy=Policy())
        ack = self.ask(packet(b"Ping", authorization=[b"Told alice", b"Told bob"]))
        self.assert_refused(ack, "credentials-rejected")

    def test_anonymous_clients_get_what_the_policy_permits(self) -> None:
        self.serve(authenticators=[ByName()], policy=Policy())
        self.assert_success(self.ask(packet(b"Ping")), None)
        self.serve(authenticators=[ByName()], policy=DenyingPolicy())
        self.assert_refused(self.ask(packet(b"Ping")), "credentials-rejected")
        ack = self.ask(told(packet(b"Ping"), "alice"))
        self.assert_refused(ack, "access-denied")
        self.assertEqual(self.challenges(ack), [])

    def test_without_a_policy_everyone_who_is_known_may_do_everything(self) -> None:
        self.serve(authenticators=[ByName()])
        self.assert_refused(self.ask(packet(b"Ping")), "credentials-rejected")
        self.assert_success(self.ask(told(packet(b"Ping"), "alice")), None)

    def test_headers_of_an_authenticator_are_on_the_answer(self) -> None:
        class Persistent(ByName):
            def authenticate(
                self, credentials: Credentials
            ) -> Deferred[Identity | None]:
                credentials.respond_with(b"Persistent-Auth", b"true")
                return super().authenticate(credentials)

        self.serve(authenticators=[Persistent()])
        for data in (told(packet(b"Ping"), "alice"), packet(b"Ping")):
            self.assertEqual(self.ask(data)["Persistent-Auth"], "true")

    def test_another_gate_admits_the_next_packet(self) -> None:
        self.serve(authenticators=[ByName()])
        ping = told(packet(b"Ping"), "alice")
        peer = self.peer()
        self.assert_success(self.exchange(peer, ping), None)
        self.resource.gate = Gate(self.resource.gate.authenticators, DenyingPolicy())
        self.assert_refused(self.exchange(peer, ping), "access-denied")

    def test_another_gate_knows_whether_ids_are_secrets(self) -> None:
        self.serve(authenticators=[ByName()])
        created = told(packet(b"Create-Session"), "alice")
        for credentials in ("create", "every-packet"):
            self.resource.gate = Gate([ByName()], None, credentials)
            # A view of a user is not what decides.
            self.resource.for_user("bob")
            with capturedLogs() as events:
                session = str(self.ask(created)["BITS-Session-Id"]).strip("{}")
            (name,) = [one["session"] for one in events if "session" in one]
            is_secret = credentials == "create"
            self.assertEqual(name, f"{session[:8]}..." if is_secret else session)

    def test_connection_memory_is_that_of_the_connection(self) -> None:
        authenticator = Authenticator(ALICE)
        self.serve(authenticators=[authenticator])
        peer = self.peer()
        for _ in range(2):
            peer.send(packet(b"Ping"))
        self.ask(packet(b"Ping"))
        first, second, other = (one.connection for one in authenticator.asked)
        self.assertIs(first, second)
        self.assertIsNot(first, other)


class RefusedBodyTests(WebCase):
    """A Fragment without valid credentials: its body is stored nowhere."""

    def refuse(self, challenge: bytes) -> None:
        self.serve(authenticators=[Authenticator(challenge=challenge)])

    def test_the_body_is_drained_on_the_same_connection(self) -> None:
        self.refuse(b"Basic")
        peer = self.peer()
        data = fragment(b"{11111111-2222-3333-4444-5555AAAABBBB}", 0, b"hello", 5)
        peer.send(data[:-2])
        self.assert_silent(peer)
        peer.send(data[-2:])
        ack = self.answer(peer)
        self.assertEqual((ack.status, ack["Connection"]), (401, None))
        peer.send(packet(b"Ping"))
        self.assertEqual(self.answer(peer).status, 401)

    def expecting(self) -> tuple[bytes, bytes]:
        data = fragment(b"{11111111-2222-3333-4444-5555AAAABBBB}", 0, b"hello", 5)
        head, _, body = data.partition(b"\r\n\r\n")
        return head + b"\r\nExpect: 100-continue\r\n\r\n", body

    def test_with_negotiate_a_client_that_expects_100_is_told_to_go_on(self) -> None:
        self.refuse(b"Negotiate")
        peer = self.peer()
        head, body = self.expecting()
        peer.send(head)
        self.assertEqual(peer.received(), b"HTTP/1.1 100 Continue\r\n\r\n")
        peer.send(body)
        ack = self.answer(peer)
        self.assertEqual((ack.status, ack["Connection"]), (401, None))

    def test_without_negotiate_it_is_refused_at_once_and_closed(self) -> None:
        self.refuse(b"Basic")
        peer = self.peer()
        head, _ = self.expecting()
        peer.send(head)
        (ack,) = responses(peer.received())
        self.assertEqual((ack.status, ack["Connection"]), (401, "close"))

    def test_client_that_keeps_the_body_back_is_asked_for_credentials(self) -> None:
        self.serve(authenticators=[ByName()])
        withheld = packet(b"Fragment", UNKNOWN_ID, content_range=b"bytes 0-4/5")
        ack = self.exchange(self.peer(), withheld)
        self.assertEqual((ack.status, ack["WWW-Authenticate"]), (401, "Told"))
        ack = self.exchange(self.peer(), told(withheld, "alice"))
        self.assertEqual((ack.status, ack["WWW-Authenticate"]), (400, None))

    def test_without_authenticators_such_a_fragment_is_malformed(self) -> None:
        withheld = packet(b"Fragment", UNKNOWN_ID, content_range=b"bytes 0-4/5")
        self.assertEqual(self.exchange(self.peer(), withheld).status, 400)


class OwnershipTests(WebCase):
    """Sessions of users whom authenticators know."""

    def setUp(self) -> None:
        super().setUp()
        self.serve(authenticators=[ByName()])

    def create(self, name: str) -> bytes:
        ack = self.ask(told(packet(b"Create-Session"), name))
        self.assertEqual(ack.status, 200)
        return (ack["BITS-Session-Id"] or "").encode()

    def test_a_session_does_not_exist_for_anyone_else(self) -> None:
        session_id = self.create("alice")
        for data in (
            fragment(session_id, 0, b"hello", 5),
            packet(b"Close-Session", session_id),
            packet(b"Cancel-Session", session_id),
        ):
            ack = self.ask(told(data, "bob"))
            self.assert_refused(ack, "session-not-found", session_id)
            ack = self.ask(data)
            self.assert_refused(ack, "credentials-rejected", session_id)
        ack = self.ask(told(fragment(session_id, 0, b"hello", 5), "alice"))
        self.assert_success(ack, session_id)

    def test_with_create_the_other_packets_need_no_credentials(self) -> None:
        self.serve(authenticators=[ByName()], session_credentials="create")
        session_id = self.create("alice")
        ack = self.ask(fragment(session_id, 0, b"hello", 5))
        self.assert_success(ack, session_id)
        ack = self.ask(told(packet(b"Close-Session", session_id), "bob"))
        self.assert_refused(ack, "session-not-found", session_id)
        ack = self.ask(packet(b"Close-Session", session_id, authorization=b"Other x"))
        self.assert_refused(ack, "credentials-rejected", session_id)
        ack = self.ask(packet(b"Create-Session"))
        self.assert_refused(ack, "credentials-rejected")
        for _ in range(2):
            # An Ack that was lost is sent again.
            ack = self.ask(packet(b"Close-Session", session_id))
            self.assert_success(ack, session_id)
        for kind in (b"Close-Session", b"Cancel-Session"):
            ack = self.ask(packet(kind, UNKNOWN_ID))
            self.assert_refused(ack, "session-not-found", UNKNOWN_ID)

    def test_with_create_the_log_has_no_ids(self) -> None:
        self.serve(authenticators=[ByName()], session_credentials="create")
        with capturedLogs() as events:
            session_id = self.create("alice")
            self.ask(fragment(session_id, 1, b"hello", 6))
            self.ask(told(packet(b"Cancel-Session", session_id), "bob"))
            self.ask(packet(b"Cancel-Session", session_id))
        lines = [eventAsText(event) for event in events]
        short = session_id.decode()[1:9]
        self.assertEqual(len([one for one in lines if f"{short}..." in one]), 2, lines)
        for one in [*lines, *map(repr, events)]:
            self.assertNotIn(session_id.decode().strip("{}").lower(), one.lower())

    def test_with_create_the_policy_is_asked_about_the_owner(self) -> None:
        policy = Policy()
        self.serve(
            authenticators=[ByName()], policy=policy, session_credentials="create"
        )
        session_id = self.create("alice")
        self.ask(packet(b"Cancel-Session", session_id))
        self.assertEqual([user for user, _, _ in policy.asked], ["alice", "alice"])

    def test_with_create_a_scope_needs_its_credentials_each_time(self) -> None:
        link = Identity("link/x", "link", scope=Scope((), True, Grant(overwrite=False)))
        authenticator = Authenticator(link)
        self.serve(authenticators=[authenticator], session_credentials="create")
        ack = self.ask(packet(b"Create-Session"))
        session_id = (ack["BITS-Session-Id"] or "").encode()
        authenticator.answer = None
        ack = self.ask(packet(b"Cancel-Session", session_id))
        self.assert_refused(ack, "credentials-rejected", session_id)


class GrantTests(WebCase):
    """What a policy, or the credentials themselves, permit."""

    def upload(self) -> Response:
        ack = self.ask(packet(b"Create-Session"))
        session_id = (ack["BITS-Session-Id"] or "").encode()
        ack = self.ask(fragment(session_id, 0, b"hello", 5))
        if ack.status != 200:
            return ack
        return self.ask(packet(b"Close-Session", session_id))

    def test_overwriting_requires_both_the_setting_and_the_grant(self) -> None:
        @implementer(IAccessPolicy)
        class Granting:
            def __init__(self, overwrite: bool) -> None:
                self.overwrite = overwrite

            def check(self, *_: object) -> Deferred[Grant]:
                return succeed(Grant(overwrite=self.overwrite))

        self.serve()
        self.assertEqual(self.upload().status, 200)
        for setting in (False, True):
            for granted in (False, True):
                self.serve(Settings(allow_overwrites=setting), Granting(granted))
                ack = self.ask(packet(b"Create-Session"))
                expected = 200 if setting and granted else 403
                self.assertEqual(ack.status, expected, (setting, granted))

    def test_a_scope_permits_uploads_below_its_path_without_the_policy(self) -> None:
        scope = Scope(("a",), True, Grant(overwrite=False))
        link = Authenticator(Identity("link/x", "link", scope=scope))
        policy = DenyingPolicy()
        self.serve(Settings(allow_downloads=True), policy=policy, authenticators=[link])
        self.assertEqual(self.upload().status, 200)
        self.assertEqual(policy.asked, [])
        for data in (
            packet(b"Create-Session", target=b"/b/c"),
            packet(b"Create-Session", target=b"/a/../b"),
            packet(b"Create-Session", target=b"/a"),
        ):
            self.assert_refused(self.ask(data), "access-denied")
        self.assertEqual(self.ask(request(b"GET", b"/a/b.txt")).status, 403)

    def test_the_maximum_size_of_a_grant_is_that_of_the_file(self) -> None:
        scope = Scope((), True, Grant(max_size=4))
        link = Authenticator(Identity("link/x", "link", scope=scope))
        self.serve(authenticators=[link])
        ack = self.upload()
        self.assertEqual(ack.status, 500)
        self.assertEqual(ack["BITS-Error-Code"], "0x80200020")


class AwayTests(WebCase):
    """A policy that cannot tell now."""

    def told(self, times: int) -> list[tuple[LogLevel, str]]:
        """What the log says of some Pings, apart from the refusal of each."""
        with capturedLogs() as events:
            for _ in range(times):
                self.ask(packet(b"Ping"))
        for event in events:
            self.assertNotIn("log_failure", event)
        return [
            (event["log_level"], formatEvent(event))
            for event in events
            if "refusal" not in event
        ]

    def test_the_operator_is_told_once_a_minute_and_when_it_is_over(self) -> None:
        self.serve(policy=(policy := Policy()))
        policy.answer = BackendError("the directory server is away")
        begins = "/: permissions cannot be checked: the directory server is away"
        self.assertEqual(self.told(3), [(LogLevel.error, begins)])
        self.clock.advance(60)
        again = f"{begins} (2 more failures since the last such line)"
        self.assertEqual(self.told(2), [(LogLevel.error, again)])
        policy.answer = None
        over = "/: permissions can be checked again (failures: 5, in 60 s)"
        self.assertEqual(self.told(2), [(LogLevel.info, over)])

    def test_the_client_tries_again(self) -> None:
        self.serve(policy=(policy := Policy()))
        policy.answer = BackendError("the directory server is away")
        self.assert_refused(self.ask(packet(b"Ping")), "storage-fault")

    def test_a_refusal_is_no_trouble(self) -> None:
        self.serve(policy=DenyingPolicy())
        self.assertEqual(self.told(2), [])


class DownloadTests(WebCase):
    """GET and HEAD, which are no packets."""

    def test_they_are_challenged_like_packets_but_with_no_ack(self) -> None:
        self.serve(Settings(allow_downloads=True), authenticators=[ByName()])
        for method in (b"GET", b"HEAD"):
            answer = self.ask(request(method))
            self.assertEqual(answer.status, 401)
            self.assertEqual(answer["WWW-Authenticate"], "Told")
            self.assertIsNone(answer["BITS-Packet-Type"])
        answer = self.ask(told(request(b"GET"), "alice"))
        self.assertEqual(answer.status, 404)

    def test_wrong_credentials_are_refused_without_looking_for_the_file(self) -> None:
        wrong = Authenticator(CredentialsRejected("the password is wrong"))
        self.serve(Settings(allow_downloads=True), authenticators=[wrong])
        self.assertEqual(self.ask(request(b"GET")).status, 401)
