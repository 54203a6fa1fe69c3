"""
A server as systemd starts it: with its sockets, and a socket to tell how it is.
"""

import os
import signal
import socket
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.integration.programs import TWISTD, Program

#: What systemd does before it executes a service.
ACTIVATE = """
import os, socket, sys
uploads = socket.create_server(("127.0.0.1", 0))
admin = socket.socket(socket.AF_UNIX)
admin.bind("admin")
os.chmod("admin", 0o640)
admin.listen()
for number, listening in enumerate((uploads, admin), 30):
    os.dup2(listening.fileno(), number)
for number in (0, 1):
    os.dup2(30 + number, 3 + number)
os.environ.update(
    LISTEN_PID=str(os.getpid()), LISTEN_FDS="2", LISTEN_FDNAMES="uploads:admin"
)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def get(family, address, path):
    """Send a request as an HTTP client does, and read the answer; blocks."""
    with socket.socket(family) as connection:
        connection.settimeout(30)
        connection.connect(address)
        connection.sendall(b"GET %b HTTP/1.0\r\nHost: x\r\n\r\n" % path)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer


class SupervisedTests(TestCase):
    """One server, from its start to its end."""

    timeout = 60

    def setUp(self):
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.socket.close)
        self.socket.settimeout(30)
        name = f"txbits-test-{os.getpid()}-{id(self)}"
        self.socket.bind(f"\0{name}")
        (self.folder / "settings.toml").write_text(
            'listen = ["systemd:domain=INET:index=0"]\n'
            'admin-listen = "systemd:domain=UNIX:index=1"\n'
            'health-path = "/health"\n'
            '[[directory]]\nmount = "/"\nbackend = "memory:"\n'
        )
        self.program = Program.start(
            self,
            *("-c", ACTIVATE, *TWISTD, "-n", "--pidfile=", "txbits"),
            *("--config", "settings.toml"),
            cwd=self.folder,
            environment={"NOTIFY_SOCKET": f"@{name}", "WATCHDOG_USEC": "300000"},
        )

    async def told(self, line):
        """Wait until the server tells a line, and return all that came with it."""

        def receive():
            while True:
                lines = self.socket.recv(4096).decode().split("\n")
                if line in lines:
                    return lines

        return await deferToThread(receive)

    async def test_from_start_to_end(self):
        lines = await self.told("READY=1")
        self.assertIn("STATUS=0 sessions open, 0 connections", lines)
        port = await self.program.listening()
        uploads = await deferToThread(
            get, socket.AF_INET, ("127.0.0.1", port), b"/health"
        )
        self.assertIn(b" 200 OK\r\n", uploads)
        # The path of a socket has at most 107 bytes.
        admin = os.path.relpath(self.folder / "admin")
        self.assertEqual((self.folder / "admin").stat().st_mode & 0o777, 0o640)
        metrics = await deferToThread(get, socket.AF_UNIX, admin, b"/metrics")
        self.assertIn(b"\ntxbits_connections_made_total 1.0\n", metrics)
        await self.told("WATCHDOG=1")
        await self.told("WATCHDOG=1")
        os.kill(self.program.transport.pid, signal.SIGHUP)
        lines = await self.told("RELOADING=1")
        self.assertTrue(any(one.startswith("MONOTONIC_USEC=") for one in lines), lines)
        await self.told("READY=1")
        ended = self.program.end()
        await self.told("STOPPING=1")
        await ended
        # As twistd ends after a signal, when everything has stopped.
        self.assertEqual(self.program.status, -signal.SIGTERM)
        # Systemd makes these sockets, and listens while there is no server.
        self.assertTrue((self.folder / "admin").exists())
