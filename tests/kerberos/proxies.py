"""
Proxies between the clients and the server: real nginx, which pools the connections of
all clients, and real HAProxy, which tells the address of each.
"""

from __future__ import annotations

from pathlib import Path

from twisted.internet.threads import deferToThread

from tests.integration.cluster import listens, start_nginx
from tests.integration.programs import Program
from tests.kerberos import found, kdc
from tests.kerberos.support import ANY, NEGOTIATE, ServerCase
from tests.ports import free_ports

_HAPROXY = """\
global
    maxconn 64
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen uploads
    bind 127.0.0.1:{port}
    server txbits 127.0.0.1:{upstream} send-proxy
"""


class PooledCase(ServerCase):
    """Two users, whose requests come on one connection."""

    async def assert_users_do_not_mix(self, said: str = "") -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        (port,) = free_ports(1)
        await start_nginx(
            *(self, folder, "sharing.conf.template", port),
            upstream=self.port,
            said=said,
        )
        caches = {user: kdc().log_in(user) for user in ("alice", "bob")}
        for user, other in (("alice", "bob"), ("bob", "alice"), ("alice", "bob")):
            for path, status in ((user, 200), (other, 403)):
                response = await self.one(
                    *("Ping", f"/{path}/f", *NEGOTIATE),
                    port=port,
                    cache=caches[user],
                )
                self.assertEqual(response.status, status)
                self.assertEqual(response["Persistent-Auth"], "false")
            # Somebody else, on the connection that has just been the user's.
            response = await self.one("Ping", f"/{user}/f", port=port)
            self.assertEqual(response.status, 401)
        self.assertEqual(self.connections, 1)


class TrustedProxyTests(PooledCase):
    """nginx that says nothing of itself, but whose address the server knows."""

    trusted_proxies = ("127.0.0.1",)

    async def test_users_do_not_mix(self) -> None:
        await self.assert_users_do_not_mix()


class UntrustedProxyTests(PooledCase):
    """nginx that the server does not know, but that says where requests come from."""

    async def test_users_do_not_mix(self) -> None:
        await self.assert_users_do_not_mix(
            "proxy_set_header X-Forwarded-For $remote_addr;"
        )

    async def test_client_logs_in_for_each_request(self) -> None:
        """Since it is told that it has to, it does not wait for a 401."""
        words = self.packet("Ping", "/alice/f", *NEGOTIATE, "-H", "Via: 1.1 somewhere")
        responses = await self.curl(*words, "--next", *words, user="alice")
        self.assertEqual([one.status for one in responses], [200, 200])
        self.assertEqual(self.connections, 1)


class HAProxyTests(ServerCase):
    """HAProxy that passes bytes on, after a line with the address of the client."""

    endpoint = "haproxy:tcp:0:interface=127.0.0.1"

    async def test_connection_is_one_clients(self) -> None:
        (port,) = free_ports(1)
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        configuration = folder / "haproxy.cfg"
        configuration.write_text(_HAPROXY.format(port=port, upstream=self.port))
        program = Program.start(
            *(self, "-db", "-f", configuration),
            cwd=folder,
            executable=found("haproxy"),
        )
        while not await deferToThread(listens, port):
            self.assertIsNone(program.status, program.output)
        responses = await self.curl(
            *self.packet("Ping", "/alice/f", *ANY, port=port),
            *("--next", *self.packet("Ping", "/alice/f", port=port)),
            *("--next", *self.packet("Ping", "/bob/f", port=port)),
            user="alice",
        )
        self.assertEqual([one.status for one in responses], [401, 200, 200, 403])
        self.assertEqual(responses[1]["Persistent-Auth"], "true")
        response = await self.one("Ping", "/alice/f", port=port)
        self.assertEqual(response.status, 401)
