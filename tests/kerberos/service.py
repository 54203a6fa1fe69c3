"""
Kerberos in ``twistd txbits``: settings, permissions, and revocation by SIGHUP.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.integration.programs import TWISTD, Program
from tests.integration.test_service import pause
from tests.kerberos import REALM, kdc
from tests.kerberos.support import NEGOTIATE, ServerCase

_SETTINGS = """
listen = ["tcp:0:interface=127.0.0.1"]

[groups]
helpdesk = [%(helpdesk)s]

[[directory]]
mount = "/"
backend = "disk:root"
create-directories = true
authenticate = ["negotiate"]
keytab = "%(keytab)s"
realms = ["%(realm)s"]

[[directory.permission]]
users = ["@helpdesk"]
path = "/"
may = ["upload"]

[[directory.permission]]
users = ["*"]
path = "/{user}"
may = ["upload"]
"""


class ServiceTests(ServerCase):
    """A process with a keytab, and ``curl``."""

    async def setUp(self) -> None:  # type: ignore[override]
        self.cwd = Path(self.mktemp_folder()).absolute()
        (self.cwd / "root").mkdir()
        self.keytab = kdc().keytab()
        self.write("bob", keytab=self.keytab)
        self.program = Program.start(
            self,
            *(*TWISTD, "-n", "txbits", "--config", "txbits.toml"),
            cwd=self.cwd,
        )
        self.port = await self.program.listening()

    def write(self, *helpdesk: str, keytab: str) -> None:
        values = {
            "helpdesk": ", ".join(f'"{name}"' for name in helpdesk),
            "keytab": keytab,
            "realm": REALM,
        }
        (self.cwd / "txbits.toml").write_text(_SETTINGS % values)

    async def hang_up(self, expected: str) -> str:
        before = len(self.program.stdout)
        os.kill(self.program.transport.pid, signal.SIGHUP)
        while expected not in self.program.stdout[before:]:
            self.assertIsNone(self.program.status, self.program.output)
            await pause()
        return str(self.program.stdout[before:])

    async def ping(self, path: str, user: str) -> int:
        response = await self.one("Ping", path, *NEGOTIATE, user=user)
        return int(response.status)

    async def test_users_reach_what_they_may(self) -> None:
        self.assertEqual(await self.ping("/alice/f", "alice"), 200)
        self.assertEqual(await self.ping("/bob/f", "alice"), 403)
        self.assertEqual(await self.ping("/alice/f", "bob"), 200)
        self.assertIn("from alice (negotiate) at 127.0.0.1", self.program.stdout)

    async def test_who_leaves_a_group_loses_the_next_fragment(self) -> None:
        cache = kdc().log_in("bob")
        path = "/alice/f"
        created = await self.one("Create-Session", path, *NEGOTIATE, cache=cache)
        self.assertEqual(created.status, 200)
        session = created["BITS-Session-Id"]

        async def fragment(first: int) -> int:
            response = await self.one(
                "Fragment",
                path,
                *NEGOTIATE,
                cache=cache,
                body=b"01234",
                BITS_Session_Id=session,
                Content_Range=f"bytes {first}-{first + 4}/10",
            )
            return int(response.status)

        self.assertEqual(await fragment(0), 200)
        self.write("carol", keytab=self.keytab)
        await self.hang_up("settings reloaded: changed /")
        self.assertEqual(await fragment(5), 403)
        self.write("bob", keytab=self.keytab)
        await self.hang_up("settings reloaded: changed /")
        self.assertEqual(await fragment(5), 200)

    async def test_a_keytab_that_is_none_changes_nothing(self) -> None:
        broken = self.cwd / "keytab"
        broken.touch(0o600)
        broken.write_bytes(b"not one")
        self.write("bob", keytab=str(broken))
        log = await self.hang_up("reload failed, keeping the old settings: ")
        self.assertIn(f"keytab: {broken} is not a keytab", log)
        self.assertEqual(await self.ping("/alice/f", "bob"), 200)
