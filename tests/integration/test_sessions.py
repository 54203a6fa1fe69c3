"""
``txbits sessions`` and the JSON interface, on the Unix socket of a real server.
"""

import json
import os
import signal
import socket
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.integration.programs import TWISTD, Program
from tests.integration.wire import PROTOCOL, Wire

FIELDS = {
    *("session", "directory", "destination", "owner", "client", "bytes", "total"),
    *("created", "last_progress", "state"),
}


def ask(path, method, target):
    """Send a request to a Unix socket, and read status and JSON; blocks."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(path)
        connection.sendall(b"%b %b HTTP/1.0\r\nHost: x\r\n\r\n" % (method, target))
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), json.loads(body)


def upload(port, path, held, total):
    """Create a session, and send some bytes of its file; blocks."""
    wire = Wire(port)
    _, headers = wire.packet(path, b"Create-Session", BITS_Supported_Protocols=PROTOCOL)
    session = headers[b"bits-session-id"]
    if held:
        last = b"bytes 0-%d/%d" % (held - 1, total)
        wire.packet(
            path,
            b"Fragment",
            b"x" * held,
            BITS_Session_Id=session,
            Content_Range=last,
        )
    wire.close()
    return session.decode().strip("{}")


class SessionsTests(TestCase):
    """One server with two directories."""

    timeout = 60

    def setUp(self):
        self.folder = Path(self.mktemp()).absolute()
        (self.folder / "run").mkdir(parents=True)
        (self.folder / "uploads").mkdir()
        (self.folder / "settings.toml").write_text(
            'listen = ["tcp:0:interface=127.0.0.1"]\n'
            'admin-listen = "unix:run/admin:mode=600"\n'
            '[[directory]]\nmount = "/disk"\nbackend = "disk:uploads"\n'
            '[[directory]]\nmount = "/memory"\nbackend = "memory:"\n'
        )
        # The path of a socket has at most 107 bytes.
        self.socket = os.path.relpath(self.folder / "run" / "admin")

    async def start(self):
        program = Program.start(
            self,
            *(*TWISTD, "-n", "--pidfile=", "txbits", "--config", "settings.toml"),
            cwd=self.folder,
        )
        await program.listening()
        return program

    async def run_sessions(self, *words):
        """Run the command, and return it when it has ended."""
        where = ("--config", "settings.toml")
        command = ("-m", "txbits", "sessions", *words, *where)
        return await Program.start(self, *command, cwd=self.folder).ended()

    async def ask(self, method, target):
        return await deferToThread(ask, self.socket, method, target)

    async def test_an_operator_looks_at_sessions_and_ends_them(self):
        server = await self.start()
        port = server.port
        on_disk = await deferToThread(upload, port, b"/disk/a.bin", 5, 10)
        empty = await deferToThread(upload, port, b"/memory/b.bin", 0, 0)
        listing = await self.run_sessions("list", "--json")
        self.assertEqual((listing.status, listing.stderr), (0, ""))
        found = {one["session"]: one for one in json.loads(listing.stdout)}
        self.assertEqual(set(found), {on_disk, empty})
        one = found[on_disk]
        self.assertLessEqual(FIELDS, set(one))
        self.assertEqual((one["directory"], one["destination"]), ("/disk", "a.bin"))
        self.assertEqual((one["bytes"], one["total"]), (5, 10))
        self.assertEqual((one["client"], one["state"]), ("127.0.0.1", "receiving"))
        self.assertEqual(found[empty]["state"], "created")

        # What is on disk is known after a kill as well, but not who has sent it.
        await server.end(signal.SIGKILL)
        server = await self.start()
        status, said = await self.ask(b"GET", b"/api/sessions")
        self.assertEqual((status, len(said["sessions"])), (200, 1))
        # The store tells this from the time of a file.
        progress = said["sessions"][0].pop("last_progress")
        self.assertLess(abs(progress - one.pop("last_progress")), 30)
        left = {**one, "client": None, "scheme": None, "rate": None}
        self.assertEqual(said["sessions"], [left])

        cancelling = await self.run_sessions("cancel", on_disk, empty)
        self.assertEqual(cancelling.status, 2)
        self.assertEqual(cancelling.stderr, f"txbits: {empty}: no such session\n")
        self.assertEqual(
            cancelling.stdout, f"cancelled {on_disk}: /disk/a.bin, 5 of 10 bytes\n"
        )
        line = f"cancelled by operator uid {os.getuid()} (unix) at -: /disk/a.bin"
        await server.says(line)
        staging = self.folder / "uploads" / ".bits-sessions"
        self.assertEqual(
            [path for path in staging.rglob("*") if on_disk in path.name.upper()], []
        )
        status, said = await self.ask(b"DELETE", b"/api/sessions/" + on_disk.encode())
        self.assertEqual((status, said), (404, {"error": "no such session"}))
        await server.end()
