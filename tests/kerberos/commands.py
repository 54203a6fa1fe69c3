"""
``txbits upload`` and the other commands log in with Kerberos, in processes.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineReceiver

from tests.integration.programs import Program
from tests.integration.test_service import pause
from tests.kerberos import kdc
from tests.kerberos.support import ServerCase
from txbits.sessions import Settings

DATA = random.Random(9).randbytes(3_000_000)


class CommandCase(ServerCase):
    """A folder to work in, and a user with a ticket."""

    settings = Settings(allow_downloads=True)

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.cwd = Path(self.mktemp_folder()).absolute()
        self.cache = kdc().log_in("alice")
        self.file = self.cwd / "data.bin"
        self.file.write_bytes(DATA)

    def url(self, path: str = "alice/f", host: str = "localhost") -> str:
        return f"http://{host}:{self.port}/{path}"

    async def txbits(self, command: str, *words: object, status: int = 0) -> str:
        """Run a command with Negotiate; what it has written."""
        environment = {
            "KRB5CCNAME": self.cache,
            "XDG_STATE_HOME": str(self.cwd / "state"),
            "HOME": str(self.cwd),
        }
        program = Program.start(
            self,
            *("-m", "txbits", command, "--negotiate", *words),
            cwd=self.cwd,
            environment=environment,
        )
        await program.ended()
        self.assertEqual(program.status, status, program.output)
        return str(program.output)

    async def refused(self, *words: object, status: int = 2) -> str:
        """What a Ping is refused with, which is one line."""
        output = await self.txbits("ping", *(words or [self.url()]), status=status)
        (line,) = output.splitlines()
        return line


class TransferTests(CommandCase):
    """What works."""

    async def test_upload_and_download_on_one_connection_each(self) -> None:
        await self.txbits("upload", "-v", self.file, self.url())
        self.assertEqual(self.memory.files[("alice", "f")], DATA)
        self.assertEqual(self.connections, 1)
        copy = self.cwd / "copy"
        await self.txbits("download", self.url(), copy)
        self.assertEqual(copy.read_bytes(), DATA)
        self.assertEqual(self.connections, 2)

    async def test_several_files_at_once_use_several_connections(self) -> None:
        for number in range(6):
            (self.cwd / f"{number}.txt").write_text(str(number))
        names = [f"{number}.txt" for number in range(6)]
        await self.txbits("upload", "-j", "3", *names, self.url("alice/"))
        for number in range(6):
            content = self.memory.files[("alice", f"{number}.txt")]
            self.assertEqual(content, str(number).encode())
        self.assertEqual(self.connections, 3)

    async def test_a_new_connection_is_a_new_login(self) -> None:
        site_connected = self.site.connected

        def break_first(channel):
            site_connected(channel)
            if self.connections > 1:
                return
            received, count = channel.dataReceived, 0

            def receive(data):
                nonlocal count
                count += len(data)
                received(data)
                if count > len(DATA) // 2:
                    channel.transport.abortConnection()

            channel.dataReceived = receive

        self.site.connected = break_first
        await self.txbits("upload", self.file, self.url())
        self.assertEqual(self.memory.files[("alice", "f")], DATA)
        self.assertEqual(self.connections, 2)

    async def test_behind_a_proxy_each_request_is_a_login(self) -> None:
        via = ("--header", "Via: 1.1 somewhere")
        await self.txbits("upload", *via, self.file, self.url())
        self.assertEqual(self.memory.files[("alice", "f")], DATA)

    async def test_cancel(self) -> None:
        session = "{7DF0354D-249B-430F-820D-3D2A9BEF4931}"
        output = await self.txbits("cancel", self.url(), session)
        self.assertIn("cancelled session", output)

    async def test_check(self) -> None:
        output = await self.txbits("check", self.url("alice/"), "--timeout", "60")
        self.assertIn("0 failed", output)


class RefusalTests(CommandCase):
    """What does not work is said in one line that tells what to do."""

    async def test_no_ticket(self) -> None:
        self.cache = f"{self.cwd}/none"
        line = await self.refused()
        self.assertIn("no Kerberos ticket for HTTP@localhost", line)
        self.assertTrue(line.endswith("; run kinit"), line)

    async def test_scheme_that_is_not_offered_is_no_way_out(self) -> None:
        self.cache = "/nonexistent"
        (self.cwd / "token").write_text("abc")
        (self.cwd / "token").chmod(0o600)
        line = await self.refused("--token-file", "token", self.url())
        self.assertIn("run kinit", line)

    async def test_ticket_that_has_expired(self) -> None:
        self.cache = kdc().log_in("alice", "1s")
        ended = os.stat(self.cache).st_mtime + 2
        while os.stat(self.cwd).st_mtime < ended:
            await pause()
            os.utime(self.cwd)
        line = await self.refused()
        self.assertIn("Ticket expired; run kinit again", line)

    async def test_name_that_the_kdc_does_not_know(self) -> None:
        line = await self.refused(self.url(host="127.0.0.1"))
        self.assertIn("HTTP@127.0.0.1", line)
        self.assertIn("needs the host name of the server's service principal", line)

    async def test_kdc_that_is_away(self) -> None:
        kdc().stop()
        self.addCleanup(kdc().start)
        line = await self.refused(status=3)
        self.assertIn("Cannot contact any KDC", line)

    async def test_user_whom_the_server_refuses(self) -> None:
        self.authenticator._realms = frozenset({"SALES.TEST"})
        line = await self.refused()
        self.assertIn("Negotiate (the Kerberos ticket was refused)", line)

    async def test_server_without_the_key_is_refused(self) -> None:
        class Impostor(LineReceiver):
            asked = False

            def lineReceived(self, line):
                if line:
                    return
                if self.asked:
                    head = [b"HTTP/1.1 200 OK", b"BITS-Packet-Type: Ack"]
                else:
                    head = [b"HTTP/1.1 401 No", b"WWW-Authenticate: Negotiate"]
                self.asked = True
                for each in (*head, b"Content-Length: 0", b""):
                    self.sendLine(each)

        endpoint = serverFromString(reactor, "tcp:0:interface=127.0.0.1")
        listening = await endpoint.listen(Factory.forProtocol(Impostor))
        self.addCleanup(listening.stopListening)
        self.port = listening.getHost().port
        line = await self.refused()
        self.assertIn("has not proved that it is HTTP@localhost", line)
        output = await self.txbits(
            "upload", "--retry-for", "0", self.file, self.url(), status=2
        )
        self.assertIn("has not proved", output)
        output = await self.txbits("check", self.url("alice/"), status=2)
        self.assertIn("has not proved", output)

    async def test_without_the_option_there_is_advice(self) -> None:
        program = Program.start(
            self, *("-m", "txbits", "ping", self.url()), cwd=self.cwd
        )
        await program.ended()
        self.assertEqual(program.status, 2)
        self.assertIn(
            "it asks for Negotiate; --negotiate sends a Kerberos ticket", program.stderr
        )
