"""
A packet that arrives whole, in one read, is not decoded as others are: it means the
same.

Each example sends one packet, with another behind it, twice: in one piece, and cut
within its first line, so that ``twisted.web`` reads it line by line. Each goes to a
session of its own.
"""

from __future__ import annotations

from itertools import count
from typing import Any

from hypothesis import example, given, settings
from hypothesis.strategies import fixed_dictionaries, sampled_from
from twisted.internet.defer import Deferred

from tests.web.support import Response, StreamingCase, fragment, packet, responses
from txbits.web._streaming.bodies import WholeBody

_BODY = b"hello"

_HEADERS = {
    "content_length": sampled_from(
        [None, b"5", b"0", b"05", b"4", b"6", b"x", b"", b"9" * 2000, [b"5", b"5"]]
    ),
    "transfer_encoding": sampled_from([None, None, None, b"identity", b"chunked"]),
    "content_range": sampled_from(
        [b"bytes 0-4/5", b"bytes 0-4/10", b"bytes 3-7/10", b"bytes */0", b"?", None]
    ),
    "expect": sampled_from([None, None, None, b"100-continue", b"miracles"]),
    "connection": sampled_from([None, b"Keep-Alive", b"close", b"a, b"]),
    "cookie": sampled_from([None, b"a=b"]),
    "content_name": sampled_from([None, b"name.txt", b"x" * 4097]),
    "content_encoding": sampled_from([None, None, b"identity", b"gzip"]),
}

_REQUESTS = fixed_dictionaries(
    {
        "kind": sampled_from(
            [b"Fragment"] * 4
            + [b"Create-Session", b"Close-Session", b"Cancel-Session", b"Ping", b"?"]
        ),
        "version": sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0"]),
        "body": sampled_from([_BODY, _BODY, b""]),
        **_HEADERS,
    }
)


class WholeTests(StreamingCase):
    """In one piece, or line by line."""

    def outcome(self, sent: dict[str, Any], cut: int) -> Any:
        """What comes of a packet in a session of its own, sent in two pieces."""
        target = b"/%d" % next(self.names)
        session_id = self.create_holding(b"hel", 5, target)
        peer = self.peer()
        data = packet(session_id=session_id, target=target, **sent)
        data += packet(b"Ping")
        if cut:
            peer.send(data[:cut])
        peer.send(data[cut:])
        answers = []
        for answer in responses(peer.received()):
            headers = {
                name: [
                    value.replace(session_id.decode(), "SESSION") for value in values
                ]
                for name, values in answer.headers.items()
            }
            if sent["kind"] == b"Create-Session":
                headers.pop("bits-session-id", None)
            answers.append(Response(answer.status, headers, answer.body))
        ends = (peer.closed, peer.half_closed, peer.aborted, peer.paused)
        stored = self.memory.files.get((target[1:].decode(),))
        left = [one for one in self.memory._sessions.values() if one.total == 5]
        held = [one.offset for one in left if one.destination == (target[1:].decode(),)]
        peer.lose()
        return answers, ends, stored, held

    def setUp(self) -> None:
        super().setUp()
        self.names = count()

    @settings(max_examples=300)
    @given(_REQUESTS)
    @example(
        {
            "kind": b"Fragment",
            "version": b"HTTP/1.1",
            "body": _BODY,
            **dict.fromkeys(_HEADERS),
            "content_length": b"5",
            "content_range": b"bytes 0-4/5",
        }
    )
    def test_whole_means_the_same_as_line_by_line(self, sent: dict[str, Any]) -> None:
        self.assertEqual(self.outcome(sent, 0), self.outcome(sent, 5))

    def test_whole_body_is_written_at_once(self) -> None:
        session_id = self.create()
        gate = self.backend.hold("write")
        peer = self.peer()
        peer.send(fragment(session_id, 0, _BODY, 10))
        self.assert_silent(peer)
        self.assertEqual(gate.waiting, 1)
        gate.open()
        self.assert_success(self.answer(peer), session_id)
        self.assertEqual(self.held(), _BODY)


class _Channel:
    """A connection that can only be dropped."""

    aborted = False

    def abort(self) -> None:
        self.aborted = True


class WholeBodyTests(StreamingCase):
    """The body by itself."""

    def setUp(self) -> None:
        self.channel = _Channel()
        self.body = WholeBody(self.channel, _BODY)  # type: ignore[arg-type]
        self.consumed: list[bytes] = []

    def consume(self, data: bytes) -> Deferred[None]:
        self.consumed.append(data)
        self.consuming: Deferred[None] = Deferred()
        return self.consuming

    def test_it_is_received_when_it_is_consumed(self) -> None:
        outcome = self.body.receive(self.consume)
        self.assertEqual(self.consumed, [_BODY])
        self.assertNoResult(outcome)
        self.consuming.callback(None)
        self.assertIs(self.successResultOf(outcome), True)

    def test_it_fails_as_its_consumer_does(self) -> None:
        outcome = self.body.receive(self.consume)
        self.consuming.errback(ValueError("no"))
        self.failureResultOf(outcome, ValueError)

    def test_it_is_whole_though_its_connection_is_lost(self) -> None:
        self.body.lost()
        outcome = self.body.receive(self.consume)
        self.consuming.callback(None)
        self.assertIs(self.successResultOf(outcome), True)

    def test_nobody_will_answer_one_that_is_stopped_before(self) -> None:
        self.body.stop()
        self.assertTrue(self.channel.aborted)

    def test_one_that_is_being_consumed_is_answered(self) -> None:
        self.body.receive(self.consume)
        self.body.stop()
        self.assertFalse(self.channel.aborted)

    def test_one_whose_connection_is_lost_is_not_dropped_again(self) -> None:
        self.body.lost()
        self.body.stop()
        self.assertFalse(self.channel.aborted)
