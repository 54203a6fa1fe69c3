"""
Signed requests: the base is RFC 9421's, and what the documentation verifies them with
takes these and no others.
"""

from __future__ import annotations

import hmac
import importlib.util
from base64 import b64decode
from hashlib import sha256
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.clocks import SettableClock
from tests.notification.support import NotifierCase, parsed
from txbits.errors import InvalidSetting
from txbits.notification._signature import in_base64, signature_base

SECRET = b"a secret of some length, to be sure"

ROOT = Path(__file__).parents[2]
VERIFIER = ROOT / "docs" / "examples" / "server_application" / "bits_signature.py"


def verifier() -> Any:
    """The module of the documentation's examples."""
    spec = importlib.util.spec_from_file_location("bits_signature", VERIFIER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class BaseTests(NotifierCase):
    """The signature base."""

    def test_it_is_that_of_the_rfc_s_example(self) -> None:
        # RFC 9421 B.2.5.
        secret = b64decode(
            "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtb"
            "mHhIDi6pcl8jsasjlTMtDQ=="
        )
        base = signature_base(
            [
                ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
                ("@authority", "example.com"),
                ("content-type", "application/json"),
            ],
            ';created=1618884473;keyid="test-shared-secret"',
        )
        self.assertEqual(
            in_base64(hmac.digest(secret, base.encode(), "sha256")),
            "pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=",
        )


class DocumentedTests(SynchronousTestCase):
    """The request that ``docs/reference/notification.md`` shows."""

    def test_it_is_genuine(self) -> None:
        page = (ROOT / "docs" / "reference" / "notification.md").read_text()
        shown = page.partition("```http\n")[2].partition("\n```")[0]
        line, headers, body = parsed(shown.replace("\n", "\r\n").encode("ascii"))
        values = {
            name.decode("ascii"): value.decode("ascii")
            for name, value in headers.items()
        }
        method, target, _ = line.decode("ascii").split(" ")
        secret = b"an example and no secret"
        self.assertIn(f"`{secret.decode('ascii')}`", page)
        module = verifier()
        module.verify(secret, method, values["host"], target, values, now=1795564800)
        self.assertEqual(module.digest_of(values), sha256(body).digest())
        self.assertEqual(values["content-length"], str(len(body)))


class VerifiedTests(NotifierCase):
    """What is sent with a secret."""

    url = "http://app.example:8000/notify?x=1"

    def setUp(self) -> None:
        super().setUp()
        self.verifier = verifier()

    def signed(self, by: str = "reference", **settings: Any) -> dict[str, Any]:
        """Send one request; what the verifier is given."""
        settings = {"secret": SECRET, "request_url": "http://h/a?b=c", **settings}
        self.ask(by, **settings).addErrback(lambda _: None)
        line, headers = self.app.head()
        method, target, _ = line.decode("ascii").split(" ")
        names = {name.decode("ascii"): value for name, value in headers.items()}
        return {
            "secret": SECRET,
            "method": method,
            "authority": "app.example:8000",
            "target": target,
            "headers": {name: value.decode("latin-1") for name, value in names.items()},
            "now": self.clock.seconds(),
        }

    def refused(self, request: dict[str, Any]) -> str:  # type: ignore[override]
        """Have one refused; the reason."""
        with self.assertRaises(self.verifier.NotGenuine) as raised:
            self.verifier.verify(**request)
        return str(raised.exception)

    def test_requests_are_genuine(self) -> None:
        for by in ("reference", "value"):
            self.verifier.verify(**self.signed(by))

    def test_they_are_dated_by_the_wall_clock(self) -> None:
        """The verifier has no other that it could compare with."""
        wall = SettableClock(self.clock)
        self.clock.wall = wall  # type: ignore[attr-defined]
        self.verifier.verify(**{**self.signed(), "now": wall()})

    def test_the_digest_is_that_of_the_upload(self) -> None:
        headers = self.signed()["headers"]
        self.assertEqual(
            self.verifier.digest_of(headers),
            sha256(self.session.data).digest(),
        )

    def test_host_and_path_are_signed_as_they_are_sent(self) -> None:
        request = self.signed(url="https://APP.example:443/%7Ea?x=%20")
        self.assertEqual(request["headers"]["host"], "app.example")
        self.assertEqual(request["target"], "/%7Ea?x=%20&b=c")
        self.verifier.verify(**{**request, "authority": "app.example"})

    def test_every_header_that_says_something_is_signed(self) -> None:
        request = self.signed()
        unsigned = {"host", "user-agent", "connection", "accept-encoding"}
        for name in request["headers"].keys() - unsigned:
            changed = {**request["headers"], name: request["headers"][name] + "0"}
            self.refused({**request, "headers": changed})
            without = {**request["headers"]}
            del without[name]
            self.refused({**request, "headers": without})

    def test_another_request_is_not_genuine(self) -> None:
        request = self.signed()
        for change in (
            {"method": "PUT"},
            {"authority": "other.example"},
            {"target": "/other"},
            {"secret": b"another secret"},
        ):
            self.assertIn("wrong signature", self.refused({**request, **change}))

    def test_an_old_request_is_not_genuine(self) -> None:
        request = self.signed()
        self.assertIn(
            "too long ago", self.refused({**request, "now": request["now"] + 301})
        )
        self.verifier.verify(**{**request, "now": request["now"] + 299})

    def test_a_request_that_signs_less_is_not_genuine(self) -> None:
        request = self.signed()
        signed = request["headers"]["signature-input"].replace(' "repr-digest"', "")
        headers = {**request["headers"], "signature-input": signed}
        self.assertIn("repr-digest", self.refused({**request, "headers": headers}))

    def test_each_attempt_is_signed_anew(self) -> None:
        first, second = self.signed(), self.signed(attempt=2)
        self.assertNotEqual(
            first["headers"]["signature"], second["headers"]["signature"]
        )

    def test_without_a_secret_nothing_is_signed(self) -> None:
        headers = self.signed(secret=None)["headers"]
        self.assertNotIn("signature", headers)
        self.assertNotIn("signature-input", headers)

    def test_an_empty_secret_is_refused(self) -> None:
        with self.assertRaises(InvalidSetting):
            self.notifier(secret=b"")

    def test_the_secret_is_not_shown(self) -> None:
        self.assertNotIn("secret of some", repr(self.notifier(secret=SECRET)))
