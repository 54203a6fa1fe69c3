"""
Servers as they are: each answers over HTTP what a list says, and writes down what came.

What IIS leaves out or spells differently is as MC-BUP's examples and captures show.
"""

from __future__ import annotations

import os
from typing import Any

from attrs import define, field
from twisted.internet import reactor as _reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from txbits.client import ConnectionSettings, Event, UploadFailed, Waiting, upload

reactor: Any = _reactor

SESSION = "{7df0354d-249b-430f-820d-3d2a9bef4931}"
DATA = os.urandom(100)
Headers = dict[str, str]

CREATED: tuple[int, Headers] = (
    200,
    {
        "BITS-Packet-Type": "Ack",
        "BITS-Protocol": "{7df0354d-249b-430f-820d-3d2a9bef4931}",
        "BITS-Session-Id": SESSION,
        "Accept-Encoding": "identity",
    },
)


def received(count: int, status: int = 200, **headers: str) -> tuple[int, Headers]:
    """An Ack to a Fragment, without the session's id, as IIS gives it."""
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    position = {"BITS-Received-Content-Range": str(count)}
    return status, {"BITS-Packet-Type": "Ack", **position, **more}


def plain(status: int = 200, **headers: str) -> tuple[int, Headers]:
    """An Ack with nothing in it but what is said."""
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, {"BITS-Packet-Type": "Ack", **more}


@define
class Seen:
    """One request."""

    packet: str
    headers: Any
    body: bytes

    @property
    def content_range(self) -> str:
        value: str = self.headers.getRawHeaders(b"Content-Range")[0].decode("ascii")
        return value


@define(eq=False)
class Script(Resource):
    """Gives one answer after the other."""

    isLeaf = True
    answers: list[tuple[int, Headers]]
    seen: list[Seen] = field(factory=list)
    file: Headers | None = None

    def __attrs_post_init__(self) -> None:
        super().__init__()

    def render(self, request: Any) -> bytes:
        if request.method == b"HEAD" and self.file is not None:
            for name, value in self.file.items():
                request.setHeader(name.encode("ascii"), value.encode("ascii"))
            return b""
        packet = request.getHeader(b"BITS-Packet-Type").decode("ascii")
        body = request.content.read()
        self.seen.append(Seen(packet, request.requestHeaders, body))
        status, headers = self.answers.pop(0)
        request.setResponseCode(status)
        for name, value in headers.items():
            request.setHeader(name.encode("ascii"), value.encode("ascii"))
        return b""

    @property
    def packets(self) -> list[str]:
        return [seen.packet for seen in self.seen]


class ForeignServerTests(TestCase):
    """A file of 100 bytes, in fragments of 40."""

    timeout = 60

    def setUp(self) -> None:
        self.path = self.mktemp()
        with open(self.path, "wb") as file:
            file.write(DATA)
        self.events: list[Event] = []

    def listen(self, *answers: tuple[int, Headers]) -> tuple[Script, int]:
        script = Script(list(answers))
        site = Site(script, timeout=None)
        port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return script, port.getHost().port

    async def send(self, port: int, size: int = 40, **settings: Any) -> Any:
        return await upload(
            self.path,
            f"http://127.0.0.1:{port}/in/x",
            reactor=reactor,
            fragment_size=size,
            random=lambda: 0.0,
            on_event=self.events.append,
            **settings,
        )

    async def refuse(self, port: int, **settings: Any) -> UploadFailed:
        try:
            await self.send(port, **settings)
        except UploadFailed as error:
            return error
        raise AssertionError("it was not refused")

    @property
    def waits(self) -> list[float]:
        return [event.seconds for event in self.events if isinstance(event, Waiting)]

    async def test_the_session_is_named_once_and_kept(self) -> None:
        script, port = self.listen(
            CREATED, received(40), received(80), received(100), plain()
        )
        await self.send(port)
        self.assertEqual(
            script.packets,
            ["Create-Session", "Fragment", "Fragment", "Fragment", "Close-Session"],
        )
        for seen in script.seen[1:]:
            sent = seen.headers.getRawHeaders(b"BITS-Session-Id")
            self.assertEqual(sent, [SESSION.encode("ascii")])
        self.assertEqual(b"".join(seen.body for seen in script.seen), DATA)

    async def test_its_id_is_the_servers_own_word(self) -> None:
        for session in (
            "abc-123",
            "7df0354d-249b-430f-820d-3d2a9bef4931",
            "7DF0354D249B430F820D3D2A9BEF4931",
            "Zm9vYmFyYmF6cXV4MTIzNA==",
            "uploads/2026/17",
            "17",
            "s:17; node=b, v=2",
            "x" * 100,
        ):
            status, headers = CREATED
            script, port = self.listen(
                (status, {**headers, "BITS-Session-Id": session}),
                *(received(40), received(80), received(100), plain()),
            )
            result = await self.send(port)
            self.assertEqual(result.session_id, session)
            for seen in script.seen[1:]:
                sent = seen.headers.getRawHeaders(b"BITS-Session-Id")
                self.assertEqual(sent, [session.encode("ascii")])

    async def test_an_id_that_is_too_long_is_named(self) -> None:
        status, headers = CREATED
        _, port = self.listen((status, {**headers, "BITS-Session-Id": "x" * 101}))
        error = await self.refuse(port)
        self.assertIn("has 1 to 100 characters, not 101", str(error))

    async def test_a_login_page_in_the_middle_is_waited_for_to_go_away(self) -> None:
        for portal in (
            (302, {"Location": "http://login.example/"}),
            (200, {"Content-Type": "text/html"}),
            (511, {}),
        ):
            script, port = self.listen(
                CREATED, received(40), portal, portal, received(100), plain()
            )
            await self.send(port, 60)
            self.assertEqual(script.packets.count("Create-Session"), 1)
            self.assertEqual(script.packets.count("Cancel-Session"), 0)

    async def test_a_redirection_at_the_beginning_names_where_to(self) -> None:
        _, port = self.listen((301, {"Location": "https://b.example/in/x"}))
        error = await self.refuse(port)
        self.assertEqual(error.status, 301)
        self.assertIn("a redirect to 'https://b.example/in/x'", str(error))

    async def test_an_offset_header_that_is_misspelt_is_given_up(self) -> None:
        out = (416, {"BITS-Packet-Type": "Ack", "BITS-Recieved-Content-Range": "0"})
        script, port = self.listen(
            *(CREATED, out, out, plain(), CREATED, out, out, plain())
        )
        error = await self.refuse(port)
        self.assertEqual((error.status, error.transient), (416, False))
        self.assertIn("without a BITS-Received-Content-Range", str(error))
        self.assertEqual(script.packets.count("Cancel-Session"), 2)

    async def test_an_offset_that_is_no_number_is_quoted(self) -> None:
        _, port = self.listen(
            CREATED,
            plain(BITS_Received_Content_Range="bytes 0-39/100"),
            plain(),
        )
        error = await self.refuse(port)
        self.assertIn("Content-Range is not a number: 'bytes 0-39/100'", str(error))

    async def test_a_file_that_arrived_before_its_ack_was_lost_is_success(self) -> None:
        now = "Thu, 01 Jan 2026 00:00:01 GMT"
        file = {"Content-Length": "100", "Date": now, "Last-Modified": now}
        gone = plain(500, BITS_Error_Code="0x8020001F")
        for last in (plain(403), gone):
            script, port = self.listen(CREATED, received(100), plain(502), last)
            script.file = file
            result = await self.send(port, 100)
            self.assertFalse(result.is_acknowledged)
            self.assertEqual(script.packets.count("Create-Session"), 1)

    async def test_the_schemes_that_a_401_offers_are_named(self) -> None:
        offered = {"WWW-Authenticate": 'Negotiate, Digest realm="r", nonce="n"'}
        _, port = self.listen((401, offered))
        error = await self.refuse(port)
        self.assertIn(
            "401 Unauthorized; it asks for Negotiate or Digest with MD5",
            str(error),
        )

    async def test_everything_may_be_answered_with_201(self) -> None:
        _, port = self.listen(
            (201, CREATED[1]),
            received(40, 201),
            received(80, 201),
            received(100, 201),
            plain(201),
        )
        await self.send(port)

    async def test_a_reply_url_with_backslashes_is_resolved(self) -> None:
        _, port = self.listen(
            CREATED,
            received(40),
            received(80),
            received(100, BITS_Reply_URL="\\BITS-Sessions\\Replies\\{1-2}\\r.bin"),
            plain(),
        )
        result = await self.send(port)
        self.assertEqual(
            result.reply_url,
            f"http://127.0.0.1:{port}/BITS-Sessions/Replies/%7B1-2%7D/r.bin",
        )

    async def test_an_offset_is_obeyed_in_a_success_and_out_of_step(self) -> None:
        script, port = self.listen(
            CREATED, received(10), received(90, 416), received(100), plain()
        )
        await self.send(port, 80)
        self.assertEqual(
            [seen.content_range for seen in script.seen[1:4]],
            ["bytes 0-79/100", "bytes 10-89/100", "bytes 90-99/100"],
        )

    async def test_either_name_of_the_error_tells_that_a_session_is_gone(self) -> None:
        for name in ("BITS_Error", "BITS_Error_Code"):
            script, port = self.listen(
                CREATED,
                received(40),
                plain(500, **{name: "0x8020001F", "BITS_Error_Context": "0x5"}),
                CREATED,
                received(100),
                plain(),
            )
            await self.send(port, 100)
            self.assertEqual(script.packets.count("Create-Session"), 2)

    async def test_a_server_that_forgets_every_session_is_given_up(self) -> None:
        gone = plain(500, BITS_Error_Code="0x8020001F")
        script, port = self.listen(*[CREATED, gone] * 50)
        error = await self.refuse(port, retry_for=1)
        self.assertTrue(error.transient)
        self.assertLess(len(script.packets), 20)

    async def test_a_server_that_is_busy_says_for_how_long(self) -> None:
        _, port = self.listen(
            plain(503, Retry_After="1"), CREATED, received(100), plain()
        )
        await self.send(port, 100)
        self.assertEqual(self.waits, [1])

    async def test_transient_statuses_are_waited_out(self) -> None:
        for status in (408, 409, 500, 502, 504):
            self.events.clear()
            _, port = self.listen(CREATED, plain(status), received(100), plain())
            await self.send(port, 100)
            self.assertEqual(self.waits, [0.25])

    async def test_close_is_sent_again_after_any_5xx(self) -> None:
        script, port = self.listen(
            CREATED, received(100), plain(500), plain(501), plain()
        )
        await self.send(port, 100)
        self.assertEqual(script.packets.count("Close-Session"), 3)

    async def test_final_statuses_end_it_and_release_the_session(self) -> None:
        for status in (400, 403, 404, 405, 411, 501, 505):
            script, port = self.listen(CREATED, plain(status), plain())
            error = await self.refuse(port)
            self.assertEqual((error.status, error.transient), (status, False))
            self.assertEqual(script.packets[-1], "Cancel-Session")
            self.assertEqual(self.waits, [])

    async def test_an_answer_that_does_not_come_is_not_waited_for_for_ever(
        self,
    ) -> None:
        quiet = reactor.listenTCP(
            0, Factory.forProtocol(Protocol), interface="127.0.0.1"
        )
        self.addCleanup(quiet.stopListening)
        settings = ConnectionSettings(request_timeout=0.2, response_timeout=0.2)
        error = await self.refuse(quiet.getHost().port, retry_for=0, settings=settings)
        self.assertTrue(error.transient)
        self.assertIn("sent nothing for 0.2 seconds", str(error))

    async def test_a_host_that_is_named_gets_the_rest(self) -> None:
        there, other = self.listen(
            plain(), received(40), received(80), received(100), plain()
        )
        status, headers = CREATED
        named = {**headers, "BITS-Host-Id": f"localhost:{other}"}
        here, port = self.listen((status, named))
        await self.send(port)
        self.assertEqual(here.packets, ["Create-Session"])
        self.assertEqual(there.packets[:2], ["Ping", "Fragment"])
        self.assertEqual(
            there.seen[1].headers.getRawHeaders(b"Host"), [b"localhost:%d" % other]
        )

    async def test_a_host_that_is_gone_is_left_after_its_time_out(self) -> None:
        gone = reactor.listenTCP(0, Site(Resource()), interface="127.0.0.1")
        other = gone.getHost().port
        await gone.stopListening()
        status, headers = CREATED
        named = {
            **headers,
            "BITS-Host-Id": f"127.0.0.1:{other}",
            "BITS-Host-Id-Fallback-Timeout": "1",
        }
        here, port = self.listen((status, named), plain(), received(100), plain())
        await self.send(port, 100)
        self.assertEqual(
            here.packets, ["Create-Session", "Ping", "Fragment", "Close-Session"]
        )
        self.assertNotEqual(self.waits, [])
