"""
The metrics of a real server are what has happened: a client does at random what clients
do, while the server is killed, stopped and started again.
"""

import hashlib
import random
import re
import secrets
import shutil
import signal
import time
from pathlib import Path
from tempfile import mkdtemp
from uuid import uuid4

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.integration.programs import TWISTD, Program
from tests.integration.truth import (
    ACTS,
    LONGEST,
    MOST_CONNECTIONS,
    MOUNTS,
    Client,
    application,
)
from txbits.backends.disk._staged import part_name

SETTINGS = """
listen = ["tcp:0:interface=127.0.0.1"]
admin-listen = "unix:{folder}/admin:mode=600"
log-format = "json"
max-connections = {connections}
max-upload-size = {longest}
allow-downloads = true
{more}
[[directory]]
mount = "/open"
backend = "disk:{folder}/open"

[[directory]]
mount = "/closed"
backend = "disk:{folder}/closed"
authenticate = ["bearer"]
token-file = "{folder}/tokens"
[[directory.permission]]
users = ["alice"]
path = "/"
may = ["upload", "download"]

[[directory]]
mount = "/asked"
backend = "disk:{folder}/asked"
notify-url = "{application}"
"""

#: How often something is done for each server.
_ACTS = 200


class TruthTests(TestCase):
    timeout = 120

    def setUp(self):
        # The path of a socket has at most 107 bytes.
        self.folder = Path(mkdtemp(prefix="truth-"))
        self.addCleanup(shutil.rmtree, self.folder)
        for mount in MOUNTS:
            (self.folder / mount[1:]).mkdir()
        self.token = secrets.token_urlsafe(32).encode()
        tokens = self.folder / "tokens"
        tokens.touch(0o600)
        tokens.write_text(f"alice:{hashlib.sha256(self.token).hexdigest()}\n")
        self.settings = self.folder / "txbits.toml"
        self.application = application(self)

    async def start(self, more="", workers=1):
        """Start a server."""
        self.settings.write_text(
            SETTINGS.format(
                folder=self.folder,
                connections=MOST_CONNECTIONS,
                longest=LONGEST,
                application=self.application,
                more=f"workers = {workers}\n{more}",
            )
        )
        self.server = Program.start(
            self,
            *(*TWISTD, "-n", "--pidfile=", "txbits", "--config", self.settings),
            cwd=self.folder,
        )
        port = await self.server.listening()
        pid = self.server.transport.pid
        await deferToThread(self.client.server_started, port, pid, workers)

    async def check(self):
        """What the server has counted must be what has happened."""
        self.assertEqual(await deferToThread(self.client.differences), {}, self.about)
        found, must = self.client.gauges()
        self.assertEqual(found, must, self.about)

    def act(self, count=_ACTS):
        """Do this and that; for a thread."""
        client = self.client
        names = client.chance.choices(list(ACTS), list(ACTS.values()), k=count)
        for name in names:
            getattr(client, name)()
            client.acts[name] += 1

    def begin(self):
        """Have a client."""
        seed = random.randrange(2**32)
        self.about = f"seed {seed}"
        admin = str(self.folder / "admin")
        self.client = Client(random.Random(seed), admin, self.token)
        return self.client

    async def test_counters_are_what_happened(self):
        client = self.begin()
        for number in range(4):
            await self.start()
            if number:
                await deferToThread(client.clear_up)
            await self.check()
            await deferToThread(self.act)
            await self.check()
            await deferToThread(client.kill)
            await self.server.ended()
        # What is open times out, and a killed process has left files.
        await deferToThread(time.sleep, 1.1)
        for mount in MOUNTS:
            staging = self.folder / mount[1:] / ".bits-sessions"
            (staging / part_name(uuid4())).touch()
        await self.start('session-timeout = "1s"\n')
        client.lose_sight()
        client.run_out_of_time()
        for mount in MOUNTS:
            client.expect("cleanup_removed_total", mount, "stray")
        await self.check()
        await self.server.end(signal.SIGTERM)
        await self.start()
        await self.check()
        await deferToThread(self.act)
        await deferToThread(client.reload, self.settings)
        await deferToThread(client.crowd)
        await self.check()
        await deferToThread(client.wire.close)
        await self.server.end(signal.SIGTERM)
        self.assertEqual(set(client.acts), set(ACTS))
        self.assertEqual(client.acts.total(), 5 * _ACTS)

    def workers(self):
        """The numbers and pids of all workers that have accepted connections so far."""
        line = r"worker (\d) accepts connections, pid (\d+)"
        return re.findall(line, self.server.stdout)

    async def test_counters_of_several_workers_are_what_happened(self):
        client = self.begin()
        await self.start(workers=2)
        await self.check()
        for _ in range(2):
            await deferToThread(self.act, _ACTS // 2)
            await self.check()
            before = self.workers()
            pids = [int(pid) for pid in dict(before).values()]
            await deferToThread(client.kill_worker, client.chance.choice(pids))
            while self.workers() == before:
                await deferToThread(time.sleep, 0.02)
            await deferToThread(client.all_run, 2)
            await deferToThread(client.connect)
            await deferToThread(client.clear_up)
            await self.check()
        await deferToThread(client.reload, self.settings)
        await deferToThread(client.crowd)
        await self.check()
        self.assertEqual(client.samples["txbits_workers", "running"], 2)
        await deferToThread(client.wire.close)
        await self.server.end(signal.SIGTERM)
