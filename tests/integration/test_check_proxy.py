"""
The kit through nginx, with the settings of the how-to, over TLS and without.

Where nginx is not installed, the balancer of the tests takes its place for the checks
that a proxy could fail.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor

from tests.backends.s3.test_access import certificate
from tests.check.test_backends import KitCase
from tests.integration.balancer import start_balancer
from tests.integration.cluster import NGINX, free_ports, start_nginx
from tests.test_docs import ROOT
from txbits.backends.memory import MemoryBackend
from txbits.check import CHECKS, Outcome, Report, check, select
from txbits.client import ConnectionSettings

reactor: Any = _reactor

_HOWTO = ROOT / "docs" / "howto" / "serve.md"

#: What a proxy fails that drops or collects the bodies of requests.
_BODIES = ("cut-fragment-is-sent-again", "cut-fragment-is-kept")


def documented(listen: str, upstream: int, crt: str, key: str) -> str:
    """The settings of the how-to, with other addresses and files."""
    found = re.search(r"^```nginx\n(.*?)^```", _HOWTO.read_text(), re.DOTALL | re.M)
    assert found is not None
    text = found[1]
    for old, new in (
        ("127.0.0.1:8080", f"127.0.0.1:{upstream}"),
        ("listen 443 ssl", f"listen {listen}"),
        ("/etc/nginx/cert.pem", crt),
        ("/etc/nginx/key.pem", key),
    ):
        assert old in text, old
        text = text.replace(old, new)
    return text


class ProxyTests(KitCase):
    """txbits behind a proxy."""

    async def start_nginx(self, *, is_tls: bool) -> tuple[str, bytes]:
        """Start nginx before a server; returns the URL and the certificate."""
        url = await self.serve(MemoryBackend(reactor))
        upstream = int(url.split(":")[2].partition("/")[0])
        (port,) = free_ports(1)
        if not NGINX:
            start_balancer(self, port, [upstream])
            return f"http://127.0.0.1:{port}/in", b""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        crt, key = certificate(folder / "proxy")
        listen = f"127.0.0.1:{port}{' ssl' if is_tls else ''}"
        server = documented(listen, upstream, crt, key)
        await start_nginx(self, folder, "proxied.conf.template", port, server=server)
        scheme = "https" if is_tls else "http"
        return f"{scheme}://127.0.0.1:{port}/in", Path(crt).read_bytes()

    async def assert_passes(self, *, is_tls: bool) -> None:
        url, authorities = await self.start_nginx(is_tls=is_tls)
        checks = CHECKS if NGINX else select(CHECKS, _BODIES)
        settings = ConnectionSettings(authorities=authorities if NGINX else None)
        report: Report = await check(
            url, reactor=reactor, checks=checks, settings=settings
        )
        failed = {
            each.check.name: each.detail
            for each in report.results
            if each.outcome is Outcome.FAILED
        }
        self.assertEqual(failed, {})
        passed = sum(not each.publishes for each in checks)
        self.assertGreaterEqual(report.count(Outcome.PASSED), passed - 1)
        self.assertEqual(report.left_behind, ())

    async def test_the_kit_passes_through_it(self) -> None:
        await self.assert_passes(is_tls=False)

    async def test_the_kit_passes_through_it_over_tls(self) -> None:
        await self.assert_passes(is_tls=True)
