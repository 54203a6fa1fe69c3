"""
What a server application is sent, to the byte.
"""

from __future__ import annotations

from zope.interface.verify import verifyObject

from tests.notification.support import DATA, NotifierCase, parsed
from txbits.errors import InvalidSetting
from txbits.interfaces import IAddressable, INotifier, IReadable

ID = b"{C85B4E0A-9EB9-4114-BFA4-8A43B4710091}"
DIGEST = b"sha-256=:XKxPmA/tw9Px+ZtL40csmzDVZSPmMtFRI37JMJBIvak=:"


class ReferenceTests(NotifierCase):
    """By reference."""

    def test_it_is_this(self) -> None:
        self.ask(request_url="http://upload.example/logs/today.log?user=1")
        self.assertEqual(
            parsed(self.app.request()),
            (
                b"POST /notify?user=1 HTTP/1.1",
                {
                    b"host": b"app.example",
                    b"connection": b"close",
                    b"user-agent": b"txbits",
                    b"accept-encoding": b"identity",
                    b"content-length": b"0",
                    b"bits-original-request-url": (
                        b"http://upload.example/logs/today.log?user=1"
                    ),
                    b"bits-session-id": ID,
                    b"bits-notification-attempt": b"1",
                    b"bits-request-datafile-name": (
                        b"/srv/.bits-sessions/%b/data" % ID
                    ),
                    b"bits-response-datafile-name": (
                        b"/srv/.bits-sessions/{C85B4E0A}/reply"
                    ),
                    b"repr-digest": DIGEST,
                },
                b"",
            ),
        )

    def test_without_a_place_for_a_reply_none_is_named(self) -> None:
        self.place.where = None
        self.ask()
        self.assertNotIn(b"bits-response-datafile-name", self.app.head()[1])

    def test_names_and_urls_are_ascii(self) -> None:
        self.session.place = "/srv/ü 1%"
        self.ask(request_url="http://h/ä\r\nX: y")
        headers = self.app.head()[1]
        self.assertEqual(headers[b"bits-request-datafile-name"], b"/srv/%C3%BC 1%25")
        self.assertEqual(
            headers[b"bits-original-request-url"], b"http://h/%C3%A4%0D%0AX:%20y"
        )

    def test_the_upload_is_not_read(self) -> None:
        self.ask()
        self.assertIsNone(self.session.reading)


class ValueTests(NotifierCase):
    """By value."""

    def test_it_is_this(self) -> None:
        self.ask("value", attempt=3)
        self.assertEqual(
            parsed(self.app.request()),
            (
                b"POST /notify HTTP/1.1",
                {
                    b"host": b"app.example",
                    b"connection": b"close",
                    b"user-agent": b"txbits",
                    b"accept-encoding": b"identity",
                    b"content-length": b"19",
                    b"content-type": b"application/octet-stream",
                    b"bits-original-request-url": (
                        b"http://upload.example/logs/today.log"
                    ),
                    b"bits-session-id": ID,
                    b"bits-notification-attempt": b"3",
                    b"repr-digest": DIGEST,
                },
                DATA,
            ),
        )

    def test_an_empty_upload_is_an_empty_body(self) -> None:
        self.session.data = b""
        asking = self.ask("value")
        _, headers, body = parsed(self.app.request())
        self.assertEqual((headers[b"content-length"], body), (b"0", b""))
        self.app.answer(b"HTTP/1.1 204 No Content")
        self.assertEqual(self.successResultOf(asking).status, 204)


class WhereTests(NotifierCase):
    """Where it is sent."""

    def test_each_request_has_a_connection_of_its_own(self) -> None:
        for _ in range(2):
            asking = self.ask()
            self.app.answer(b"HTTP/1.1 200 OK", b"Content-Length: 0")
            self.successResultOf(asking)
        self.assertEqual(len(self.app.connections), 2)
        self.assertTrue(all(one.value() for _, one in self.app.connections))

    def test_cookies_are_not_kept(self) -> None:
        asking = self.ask()
        self.app.answer(
            b"HTTP/1.1 200 OK", b"Content-Length: 0", b"Set-Cookie: a=b; Path=/"
        )
        self.successResultOf(asking)
        self.ask()
        self.assertNotIn(b"cookie", self.app.head()[1])

    def test_redirects_are_not_followed(self) -> None:
        asking = self.ask()
        self.app.answer(
            b"HTTP/1.1 307 Temporary Redirect",
            b"Location: http://evil.example/",
            b"Content-Length: 0",
        )
        self.failureResultOf(asking)
        self.assertEqual(self.app.uris, [b"http://app.example/notify"])

    def test_a_relative_url_is_on_the_public_url(self) -> None:
        self.ask(
            url="notify",
            public_url="https://uploads.example",
            request_url="http://evil.example/logs/a",
        )
        self.assertEqual(self.app.uris, [b"https://uploads.example/logs/notify"])
        self.assertEqual(self.app.head()[1][b"host"], b"uploads.example")

    def test_an_address_of_ipv6_is_one(self) -> None:
        self.ask(url="http://[::1]:8000/x")
        self.assertEqual(self.app.head()[1][b"host"], b"[::1]:8000")
        self.assertEqual(self.app.uris, [b"http://[::1]:8000/x"])


class SettingTests(NotifierCase):
    """How a notifier is made."""

    def test_it_is_a_notifier(self) -> None:
        for by in ("reference", "value"):
            verifyObject(INotifier, self.notifier(by))

    def test_it_needs_what_it_uses(self) -> None:
        self.assertEqual(self.notifier("reference").needs, {IAddressable})
        self.assertEqual(self.notifier("value").needs, {IReadable})

    def test_what_cannot_be_used_is_refused(self) -> None:
        for settings in (
            {"by": "post"},
            {"url": "notify"},
            {"send_timeout": 0},
            {"response_timeout": -1},
            {"reply_timeout": 0.0},
        ):
            with self.assertRaises(InvalidSetting):
                self.notifier(**settings)
