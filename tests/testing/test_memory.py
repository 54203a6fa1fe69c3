"""
The tools that join a client and a site in memory: ``Peer`` and ``SiteAgent``.
"""

from __future__ import annotations

from treq.client import HTTPClient
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import IConsumer, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.web.client import ResponseFailed, readBody
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IBodyProducer
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.web.support import PROTOCOL, WebCase, fragment, packet
from txbits.testing.memory import Peer, SiteAgent
from txbits.web import Limits

_URL = b"http://upload.example/a/b.txt"


class PeerTests(WebCase):
    """Raw bytes against a site."""

    limits = Limits(max_connections=3)

    def test_what_the_site_writes_is_taken_once(self) -> None:
        peer = self.peer()
        peer.send(packet(b"Ping"))
        self.assertTrue(peer.received().startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertEqual(peer.received(), b"")

    def test_fresh_peer(self) -> None:
        peer = self.peer()
        for state in (
            peer.closed,
            peer.aborted,
            peer.half_closed,
            peer.refused,
            peer.paused,
        ):
            self.assertFalse(state)

    def test_address_is_seen_by_the_site(self) -> None:
        peer = self.peer("192.0.2.77")
        self.assertEqual(peer._channel.getPeer().host, "192.0.2.77")

    def test_site_may_refuse(self) -> None:
        peers = [self.peer() for _ in range(4)]
        self.assertEqual([one.refused for one in peers], [False] * 3 + [True])
        self.assertTrue(peers[3].closed)
        peers[3].send(packet(b"Ping"))
        self.assertEqual(peers[3].received(), b"")
        peers[3].lose()

    def test_requests_that_are_sent_ahead_need_no_turn_of_the_clock(self) -> None:
        peer = self.peer()
        peer.send(packet(b"Ping") * 3)
        self.assertEqual(peer.received().count(b"HTTP/1.1 200 OK\r\n"), 3)

    def test_sending_may_end_before_receiving_does(self) -> None:
        gate = self.backend.hold("create")
        peer = self.peer()
        peer.send(packet(b"Create-Session"))
        peer.end_sending()
        self.assertFalse(peer.closed)
        gate.open()
        self.assertTrue(peer.received().startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertTrue(peer.closed)
        peer.end_sending()

    def test_a_site_that_knows_no_halves_loses_both(self) -> None:
        peer = Peer(Site(self.resource, reactor=self.clock))
        peer.end_sending()
        self.assertTrue(peer.closed)

    def test_site_may_close(self) -> None:
        peer = self.peer()
        peer.send(packet(b"Ping", connection=b"close"))
        self.assertTrue(peer.closed)
        self.assertFalse(peer.aborted)
        self.assertTrue(peer.received().startswith(b"HTTP/1.1 200 OK\r\n"))
        peer.send(packet(b"Ping"))
        self.assertEqual(peer.received(), b"")

    def test_site_may_abort(self) -> None:
        session_id = self.create()
        peer = self.peer()
        peer.send(fragment(session_id, 0, b"hello", 5)[:-1])
        self.ask(packet(b"Cancel-Session", session_id))
        self.assertTrue(peer.closed)
        self.assertTrue(peer.aborted)

    def test_site_may_pause(self) -> None:
        session_id = self.create()
        gate = self.backend.hold("write")
        peer = self.peer()
        peer.send(fragment(session_id, 0, b"hello", 5)[:-1])
        self.assertTrue(peer.paused)
        gate.open()
        self.assertFalse(peer.paused)

    def test_site_may_close_its_side(self) -> None:
        peer = self.peer()
        peer.send(packet(b"Ping", content_length=b"%d" % 10**9))
        self.assertTrue(peer.half_closed)
        self.assertFalse(peer.closed)

    def test_connection_may_be_lost_once(self) -> None:
        peer = self.peer()
        self.assertEqual(len(self.site.channels), 1)
        peer.lose()
        peer.lose()
        self.assertTrue(peer.closed)
        self.assertFalse(peer.aborted)
        self.assertEqual(len(self.site.channels), 0)

    def test_any_site_will_do(self) -> None:
        peer = Peer(Site(Resource(), reactor=self.clock))
        peer.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertTrue(peer.received().startswith(b"HTTP/1.1 404 "))


@implementer(IBodyProducer)
class _Whole:
    """Writes a body at once, where treq's own would need a reactor."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.length = len(data)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self.data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """All is written."""

    def resumeProducing(self) -> None:
        """All is written."""

    def stopProducing(self) -> None:
        """All is written."""


class SiteAgentTests(WebCase):
    """A real Agent against a site."""

    limits = Limits(max_connections=3)

    def setUp(self) -> None:
        super().setUp()
        self.agent = SiteAgent(self.site, Clock())
        self.client = HTTPClient(self.agent, data_to_body_producer=_Whole)

    def test_it_provides_the_interfaces(self) -> None:
        self.assertTrue(verifyObject(IAgent, self.agent))
        self.assertTrue(verifyObject(IAgentEndpointFactory, self.agent))
        self.assertTrue(
            verifyObject(IStreamClientEndpoint, self.agent.endpointForURI(None))  # type: ignore[arg-type]
        )

    def test_request_is_answered(self) -> None:
        waiting = self.agent.request(
            b"BITS_POST", _URL, Headers({b"BITS-Packet-Type": [b"Ping"]})
        )
        response = self.successResultOf(waiting)
        self.assertEqual(response.code, 200)
        self.assertEqual(response.headers.getRawHeaders("BITS-Packet-Type"), ["Ack"])
        self.assertEqual(self.successResultOf(readBody(response)), b"")

    def test_treq_uploads_a_file(self) -> None:
        def send(headers: dict[str, bytes], data: bytes = b"") -> Headers:
            response = self.successResultOf(
                self.client.request("BITS_POST", _URL, headers=headers, data=data)
            )
            self.agent.flush()
            self.assertEqual(response.code, 200)
            return response.headers

        acked = send(
            {
                "BITS-Packet-Type": b"Create-Session",
                "BITS-Supported-Protocols": PROTOCOL,
            }
        )
        (session_id,) = acked.getRawHeaders(b"BITS-Session-Id") or ()
        data = bytes(range(256)) * 4000
        send(
            {
                "BITS-Packet-Type": b"Fragment",
                "BITS-Session-Id": session_id,
                "Content-Range": b"bytes 0-%d/%d" % (len(data) - 1, len(data)),
            },
            data,
        )
        send({"BITS-Packet-Type": b"Close-Session", "BITS-Session-Id": session_id})
        self.assertEqual(self.memory.files, {("a", "b.txt"): data})

    def test_flush_brings_what_came_late(self) -> None:
        gate = self.backend.hold("create")
        waiting = self.agent.request(
            b"BITS_POST",
            _URL,
            Headers(
                {
                    b"BITS-Packet-Type": [b"Create-Session"],
                    b"BITS-Supported-Protocols": [PROTOCOL],
                }
            ),
        )
        self.assertNoResult(waiting)
        gate.open()
        self.assertNoResult(waiting)
        self.agent.flush()
        self.assertEqual(self.successResultOf(waiting).code, 200)

    def test_refused_connection_fails(self) -> None:
        self.site = self.bits_site(self.resource, Limits(max_connections=1))
        agent = SiteAgent(self.site, Clock())
        self.peer()
        waiting: Deferred[object] = agent.request(b"BITS_POST", _URL)
        self.failureResultOf(waiting, ConnectionRefusedError)

    def test_connections_that_are_gone_are_forgotten(self) -> None:
        for _ in range(10):
            response = self.successResultOf(
                self.agent.request(
                    b"BITS_POST",
                    _URL,
                    Headers(
                        {b"BITS-Packet-Type": [b"Ping"], b"Connection": [b"close"]}
                    ),
                )
            )
            self.assertEqual(response.code, 200)
            self.agent.flush()
        self.assertEqual(self.agent._pumps, [])
        self.assertEqual(self.site.channels, {})

    def test_connection_that_is_dropped_fails_the_request(self) -> None:
        requests = []

        class Silent(Resource):
            isLeaf = True

            def render(self, request):
                requests.append(request)
                return NOT_DONE_YET

        agent = SiteAgent(self.bits_site(Silent()), Clock())
        waiting = agent.request(b"GET", _URL)
        self.assertNoResult(waiting)
        requests[0].channel.abort()
        agent.flush()
        failure = self.failureResultOf(waiting)
        self.assertTrue(failure.check(ResponseFailed, ConnectionLost))
