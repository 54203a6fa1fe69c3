"""
The operator's listener of a server with several workers: whichever of them is reached
answers for all, also while one is away.
"""

import json
import os
import re
import signal
import socket
from uuid import UUID

import bcrypt
from twisted.internet.threads import deferToThread

from tests.integration.programs import Program
from tests.integration.test_service import pause
from tests.integration.test_supervised import get
from tests.integration.test_workers import WorkersCase
from tests.integration.wire import Wire
from txbits._workers import slot_of

_TOKEN = re.compile(rb'name="token" value="([^"]+)"')


def post(path, target, fields):
    """Send a form, and return the head of the answer; blocks."""
    form = "&".join(f"{name}={value}" for name, value in fields.items()).encode()
    head = (
        b"POST %b HTTP/1.0\r\nHost: x\r\nContent-Length: %d\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\n\r\n"
    )
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(path)
        connection.sendall(head % (target, len(form)) + form)
        return connection.recv(65536)


def first_event(path):
    """Wait for the first server-sent event, and return what has come; blocks."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(path)
        connection.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        said = b""
        # The part that comes last.
        while (
            b'id="server"' not in said
            or b"</section>" not in said.split(b'id="server"')[1]
        ):
            piece = connection.recv(65536)
            assert piece, said
            said += piece
    return said


class OperatorTests(WorkersCase):
    """One service with two workers."""

    def setUp(self):
        super().setUp()
        # The path of a socket has at most 107 bytes.
        self.socket = os.path.relpath(self.cwd / "admin")
        # What a worker needs at its start, but not later.
        hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
        self.users = self.cwd / "users"
        self.users.write_text(f"alice:{hashed}\n")
        self.users.chmod(0o600)
        (self.cwd / "more").mkdir()

    async def get(self, target):
        answer = await deferToThread(get, socket.AF_UNIX, self.socket, target)
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body

    async def listed(self):
        """The sessions that any worker lists, and what it says besides."""
        status, body = await self.get(b"/api/sessions")
        self.assertEqual(status, 200)
        said = json.loads(body)
        return {one["session"] for one in said["sessions"]}, said["faults"]

    async def of_both_workers(self, port):
        """Create two sessions of each worker, and return their ids by worker."""
        found = {0: [], 1: []}
        number = 0
        while min(map(len, found.values())) < 2:
            number += 1
            wire = await deferToThread(Wire, port)
            made = await deferToThread(wire.create, b"/%d" % number)
            wire.close()
            session = UUID(made.decode())
            found[slot_of(session)].append(str(session).upper())
        return found

    async def test_any_worker_answers_for_the_whole_service(self):
        self.write(
            'mount = "/"\n[[directory]]\nmount = "/more"\nbackend = "disk:more"\n'
            'authenticate = ["basic"]\npassword-file = "users"\n'
            '[[directory.permission]]\nusers = ["alice"]\npath = "/"\nmay = ["upload"]',
            top='admin-listen = "unix:admin:mode=600"',
        )
        program = self.serve()
        port = await program.listening()
        sessions = await self.of_both_workers(port)
        everything = {*sessions[0], *sessions[1]}
        for _ in range(8):
            self.assertEqual(await self.listed(), (everything, []))
            self.assertEqual(await self.get(b"/health/ready"), (200, b"ready\n"))
        _, page = await self.get(b"/")
        for name in (b">worker 0<", b">worker 1<", *map(str.encode, everything)):
            self.assertIn(name, page)
        event = await deferToThread(first_event, self.socket)
        for name in (b">worker 0<", b">worker 1<"):
            self.assertIn(name, event)
        # The command, with a session of each.
        one, other = sessions[0].pop(), sessions[1].pop()
        command = ("-m", "txbits", "sessions", "cancel", one, other)
        where = ("--config", "txbits.toml")
        done = await Program.start(self, *command, *where, cwd=self.cwd).ended()
        self.assertEqual((done.status, done.stderr), (0, ""))
        everything -= {one, other}

        # A worker is away, and cannot return.
        _, details = await self.get(b"/sessions/" + sessions[0][0].encode())
        (token,) = _TOKEN.findall(details)
        self.users.rename(self.cwd / "away")
        pid = self.pids(program.stdout)[0]
        os.kill(pid, signal.SIGKILL)
        await program.says(f"worker 0, pid {pid}, was killed")
        self.assertEqual(
            await self.get(b"/health/ready"), (503, b"worker 0 is not running\n")
        )
        self.assertEqual(
            await self.listed(), ({*sessions[1]}, ["worker 0: is not running"])
        )
        status, _ = await self.get(b"/api/sessions/" + sessions[0][0].encode())
        self.assertEqual(status, 503)
        _, page = await self.get(b"/")
        self.assertIn(b"worker 0 is not running", page)
        self.assertIn(sessions[1][0].encode(), page)

        # When it is back, it takes the forms that were made before.
        (self.cwd / "away").rename(self.users)
        while (await self.get(b"/health/ready"))[0] != 200:
            await pause()
        pid = self.pids(program.stdout)[1]
        os.kill(pid, signal.SIGSTOP)
        try:
            answer = await deferToThread(
                post,
                self.socket,
                b"/sessions/%b/cancel" % sessions[0][0].encode(),
                {"token": token.decode()},
            )
        finally:
            os.kill(pid, signal.SIGCONT)
        self.assertIn(b" 303 ", answer.splitlines()[0])
        everything.remove(sessions[0][0])
        self.assertEqual(await self.listed(), (everything, []))
        await program.end(signal.SIGTERM)
        self.assertNotIn("Traceback", program.output)
