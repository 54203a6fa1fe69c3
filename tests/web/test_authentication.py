"""
Authentication from outside of the directory, and permission from its policy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred
from twisted.web.guard import BasicCredentialFactory, HTTPAuthSessionWrapper
from twisted.web.resource import IResource
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.web.support import (
    DESTINATION,
    UNKNOWN_ID,
    Policy,
    WebCase,
    fragment,
    packet,
    responses,
)
from txbits.errors import AccessDenied
from txbits.interfaces import IAccessPolicy
from txbits.testing.memory import Peer
from txbits.web import BITSResource
from txbits.web._streaming import DRAIN_LIMIT


@implementer(IRealm)
class _Realm:
    """Shows every user the same directory."""

    def __init__(self, resource: BITSResource) -> None:
        self.resource = resource

    def requestAvatar(
        self, name: Any, mind: object, *interfaces: Any
    ) -> tuple[Any, IResource, Callable[[], None]]:
        view = self.resource.for_user(name.decode("utf-8"))
        return IResource, view, lambda: None


@implementer(ICredentialsChecker)
class _Checker:
    """Takes its time: answers when told."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self) -> None:
        self.waiting: list[tuple[bytes, Deferred[bytes]]] = []

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes]:
        answer: Deferred[bytes] = Deferred()
        self.waiting.append((credentials.username, answer))
        return answer

    def permit(self) -> None:
        """Let everyone in who waits."""
        waiting, self.waiting = self.waiting, []
        for name, answer in waiting:
            answer.callback(name)

    def deny(self) -> None:
        """Let no one in who waits."""
        waiting, self.waiting = self.waiting, []
        for _, answer in waiting:
            answer.errback(UnauthorizedLogin())


_ALICE = b"Basic YWxpY2U6c2VjcmV0"
_BOB = b"Basic Ym9iOnNlY3JldA=="


class AuthenticationTests(WebCase):
    """``HTTPAuthSessionWrapper`` around a directory, and sessions that have owners."""

    def setUp(self) -> None:
        super().setUp()
        self.checker = _Checker()
        self.site = self.bits_site(
            HTTPAuthSessionWrapper(
                Portal(_Realm(self.resource), [self.checker]),
                [BasicCredentialFactory(b"uploads")],
            )
        )

    def as_user(self, data: bytes, authorization: bytes = _ALICE) -> Any:
        """Send a packet with credentials that are right."""
        peer = self.peer()
        peer.send(
            data.replace(b"\r\n", b"\r\nAuthorization: " + authorization + b"\r\n", 1)
        )
        self.assert_silent(peer)
        self.checker.permit()
        return self.answer(peer)

    def create_as(self, authorization: bytes) -> bytes:
        """Create a session with credentials."""
        ack = self.as_user(packet(b"Create-Session"), authorization)
        self.assertEqual(ack.status, 200)
        return (ack["BITS-Session-Id"] or "").encode()

    def test_without_credentials_the_answer_is_401_and_nothing_is_stored(self) -> None:
        session_id = self.create_as(_ALICE)
        peer = self.peer()
        data = fragment(session_id, 0, b"hello", 5)
        peer.send(data[:-1])
        peer.send(data[-1:])
        answer = self.answer(peer)
        self.assertEqual(answer.status, 401)
        self.assertIsNone(answer["Connection"])
        self.assertIn("uploads", answer["WWW-Authenticate"] or "")
        # The body was drained: the connection serves the next request.
        answer = self.exchange(peer, packet(b"Ping"))
        self.assertEqual(answer.status, 401)
        (session,) = self.memory._sessions.values()
        self.assertEqual(session.offset, 0)

    def test_wrong_credentials_are_401_and_the_body_is_drained(self) -> None:
        session_id = self.create_as(_ALICE)
        peer = self.peer()
        data = fragment(session_id, 0, b"hello", 5, authorization=_ALICE)
        peer.send(data)
        self.assert_silent(peer)
        self.checker.deny()
        self.assertEqual(self.answer(peer).status, 401)
        (session,) = self.memory._sessions.values()
        self.assertEqual(session.offset, 0)
        self.assertEqual(self.exchange(peer, packet(b"Ping")).status, 401)

    def test_expect_is_answered_when_the_credentials_are_right(self) -> None:
        session_id = self.create_as(_ALICE)
        data = fragment(
            session_id, 0, b"hello", 5, authorization=_ALICE, expect=b"100-continue"
        )
        permitted, denied = self.peer(), self.peer()
        permitted.send(data[:-5])
        self.assert_silent(permitted)
        self.checker.permit()
        self.assertEqual(self.answer(permitted).status, 100)
        permitted.send(b"hello")
        self.assert_success(self.answer(permitted), session_id)
        denied.send(data[:-5])
        self.checker.deny()
        answer = self.answer(denied)
        self.assertEqual(answer.status, 401)
        self.assertEqual(answer["Connection"], "close")
        self.assertTrue(denied.half_closed)

    def test_body_beyond_the_bound_is_answered_with_401_and_close(self) -> None:
        """A client would use the connection again, were it not told."""
        peer = self.peer()
        length = b"%d" % (DRAIN_LIMIT + 1)
        data = fragment(UNKNOWN_ID, 0, b"", 5, content_length=length)
        answer = self.exchange(peer, data)
        self.assertEqual(answer.status, 401)
        self.assertEqual(answer["Connection"], "close")
        self.assertTrue(peer.half_closed)

    def test_body_waits_for_the_credentials_to_be_checked(self) -> None:
        session_id = self.create_as(_ALICE)
        peer = self.peer()
        data = fragment(session_id, 0, b"x" * 10_000, 10_000, authorization=_ALICE)
        peer.send(data[:-5000])
        self.assertTrue(peer.paused)
        self.checker.permit()
        self.assertFalse(peer.paused)
        self.assert_success(self.exchange(peer, data[-5000:]), session_id)

    def test_connection_is_lost_while_credentials_are_checked(self) -> None:
        session_id = self.create_as(_ALICE)
        peer = self.peer()
        peer.send(fragment(session_id, 0, b"hello", 5, authorization=_ALICE)[:-1])
        peer.lose()
        self.checker.permit()
        self.assertEqual(peer.received(), b"")

    def test_answers_of_who_authenticates_are_dated_as_well(self) -> None:
        """RFC 9110 6.6.1: "MUST generate a Date header field" in all of 4xx."""
        for data in (packet(b"Ping"), fragment(UNKNOWN_ID, 0, b"hello", 5)):
            answer = self.ask(data)
            self.assertEqual(answer.status, 401)
            self.assertIsNotNone(answer["Date"])

    def test_ping_negotiates(self) -> None:
        self.assertEqual(self.ask(packet(b"Ping")).status, 401)
        self.assert_success(self.as_user(packet(b"Ping")), None)

    def test_sessions_belong_to_users(self) -> None:
        alices = self.create_as(_ALICE)
        for data in (
            fragment(alices, 0, b"hello", 5),
            packet(b"Close-Session", alices),
            packet(b"Cancel-Session", alices),
        ):
            ack = self.as_user(data, _BOB)
            self.assert_refused(ack, "session-not-found", alices)
        ack = self.as_user(fragment(alices, 0, b"hello", 5))
        self.assert_success(ack, alices)
        self.assert_success(self.as_user(packet(b"Close-Session", alices)), alices)
        # The memory of a close is its owner's as well.
        ack = self.as_user(packet(b"Close-Session", alices), _BOB)
        self.assert_refused(ack, "session-not-found", alices)
        self.assert_success(self.as_user(packet(b"Close-Session", alices)), alices)


class PolicyTests(WebCase):
    """``IAccessPolicy``: asked for every packet, before its body."""

    def setUp(self) -> None:
        super().setUp()
        self.told = Policy()
        self.serve(policy=self.told)

    def test_fake_provides_the_interface(self) -> None:
        self.assertTrue(verifyObject(IAccessPolicy, self.told))

    def test_policy_is_asked_for_every_packet(self) -> None:
        session_id = self.create()
        for data in (
            packet(b"PING"),
            fragment(session_id, 0, b"hello", 5),
            packet(b"close-session", session_id),
            packet(b"Cancel-Session", session_id),
        ):
            self.ask(data)
        kinds = [
            "Create-Session",
            "Ping",
            "Fragment",
            "Close-Session",
            "Cancel-Session",
        ]
        self.assertEqual(self.told.asked, [(None, DESTINATION, kind) for kind in kinds])

    def test_policy_is_told_the_user(self) -> None:
        self.site = self.bits_site(self.resource.for_user("alice"))
        self.ask(packet(b"Ping"))
        self.assertEqual(self.told.asked, [("alice", DESTINATION, "Ping")])

    def test_policy_may_take_its_time_to_refuse(self) -> None:
        self.told.answer = Deferred()
        peer = self.peer()
        peer.send(fragment(UNKNOWN_ID, 0, b"hello", 5))
        self.assert_silent(peer)
        self.told.answer.errback(AccessDenied("not you"))
        self.assert_refused(self.answer(peer), "access-denied", UNKNOWN_ID)
        self.assert_success_of_next_ping(peer)

    def test_policy_that_fails_is_unforeseen(self) -> None:
        self.told.answer = ZeroDivisionError("secret")
        peer = self.peer()
        peer.send(fragment(UNKNOWN_ID, 0, b"hello", 5))
        written = peer.received()
        self.assertNotIn(b"secret", written)
        (ack,) = responses(written)
        self.assert_refused(ack, "internal-error", UNKNOWN_ID)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assert_success_of_next_ping(peer)

    def test_policy_that_raises_is_unforeseen(self) -> None:
        self.told.check = _raise  # type: ignore[method-assign]
        self.assert_refused(self.ask(packet(b"Ping")), "internal-error")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def assert_success_of_next_ping(self, peer: Peer) -> None:
        """The connection serves the next request."""
        self.told.answer = None
        self.assert_success(self.exchange(peer, packet(b"Ping")), None)


def _raise(*args: object, **kwargs: object) -> Any:
    raise ZeroDivisionError("secret")
