"""
Several nodes on one bucket behind a balancer, and somebody who kills them. The balancer
is nginx where that is installed, and ours where not.

The tests use it, and :mod:`tests.integration.show`, which shows it to people.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import string
from contextlib import closing
from pathlib import Path
from uuid import UUID

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredLock, ensureDeferred, succeed
from twisted.internet.threads import deferToThread
from zope.interface import implementer

from tests.clocks import Ahead
from tests.integration.balancer import start_balancer
from tests.integration.programs import TWISTD, Program, at_once
from tests.ports import free_ports
from tests.seaweedfs import ENVIRONMENT
from txbits.backends import backend_from_description
from txbits.client import ISource, upload
from txbits.interfaces import BackendContext

STAGING = ".bits-sessions/"

#: Records of a session are padded to this; what is shorter is that of a close.
_LEAST_OPEN = 1024

#: Where nginx is; it is often outside the search path of a user. ``None`` if nowhere.
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/sbin")


def remains(bucket, prefix=""):
    """
    What there is of sessions: all but published files, and records of closes.

    Closes are all that may stay: less than a KiB each.
    """
    staging = prefix + STAGING
    sizes = {
        each["Key"]: each["Size"]
        for page in bucket.client.get_paginator("list_objects_v2").paginate(
            Bucket=bucket.name, Prefix=staging
        )
        for each in page.get("Contents", ())
    }
    return [
        name
        for name in bucket.everything()
        if "#" in name
        or (name.startswith(staging) and not _is_close(name, sizes.get(name, 0)))
    ]


def _is_close(key, size):
    return key.endswith("/record") and size < _LEAST_OPEN


class Node:
    """
    A ``twistd -n txbits`` on a port that stays the same when it starts again.

    :ivar port: The port.
    """

    def __init__(self, case, folder, port, backend, options=()):
        self.port = port
        self._case = case
        self._folder = folder
        self._backend = backend
        self._options = options
        self._program = None

    async def start(self):
        """Start it; returns when it listens."""
        self._program = Program.start(
            self._case,
            *TWISTD,
            *("-n", "--pidfile=", "txbits"),
            *("--listen", f"tcp:{self.port}:interface=127.0.0.1"),
            *("--backend", self._backend),
            *self._options,
            cwd=self._folder,
            environment=ENVIRONMENT,
        )
        await self._program.listening()

    async def kill(self):
        """Kill it with SIGKILL; returns when it is gone."""
        await self._program.end(signal.SIGKILL)

    @property
    def ended(self):
        """Whether it has ended."""
        return self._program.status is not None

    @property
    def log(self):
        """What the process that runs, or ran last, has written."""
        return self._program.output


class Cluster:
    """
    Nodes behind a balancer.

    :ivar nodes: The nodes, on ports of their own.
    :ivar port: That of the balancer.
    :ivar balancer: What it is.
    """

    def __init__(self, nodes, port, balancer):
        self.nodes = nodes
        self.port = port
        self.balancer = balancer

    @classmethod
    async def start(cls, case, folder, backend, nodes=3, options=(), nginx=NGINX):
        """
        Start one, until the end of the test *case*.

        :param folder: An empty one.
        :param backend: The description that all nodes have.
        :param options: More words for each node's command line.
        :param nginx: The path of nginx; ``None`` for a balancer of ours.
        """
        folder = Path(folder).absolute()
        port, *ports = free_ports(nodes + 1)
        self = cls(
            [Node(case, folder, each, backend, options) for each in ports],
            port,
            "nginx" if nginx else "a balancer of our own",
        )
        await at_once(*(node.start() for node in self.nodes))
        if nginx:
            servers = (
                f"        server 127.0.0.1:{each} max_fails=0;" for each in ports
            )
            await start_nginx(
                case,
                folder,
                "nginx.conf.template",
                port,
                binary=nginx,
                servers="\n".join(servers),
            )
        else:
            start_balancer(case, port, ports)
        return self

    def url(self, path):
        """The URL of a path, at the balancer."""
        return f"http://127.0.0.1:{self.port}{path}"


async def clean_up(case, folder, bucket, prefix=""):
    """
    Have a node of its own clean up; returns when nothing of sessions is in the bucket.

    Where a node was killed between making something and saying so, nobody knows of it,
    and it waits for a time-out. Sessions of this node time out after a second; for
    multipart uploads there is then one for which it is two days later.
    """
    (port,) = free_ports(1)
    backend = bucket.description(prefix=prefix)
    times = ("--session-timeout", "1", "--cleanup-interval", "1")
    node = Node(case, folder, port, backend, times)
    await node.start()
    while any("#" not in one for one in await deferToThread(remains, bucket, prefix)):
        if node.ended:
            raise AssertionError(node.log)
    await node.kill()
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ.update(ENVIRONMENT)
    later = backend_from_description(backend, BackendContext(reactor))
    try:
        await later.start()
        later.staging.clock = Ahead(2 * 86_400.0, later.staging.clock)
        await later.clean_up(0.0)
    finally:
        await later.stop()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    left = await deferToThread(remains, bucket, prefix)
    if left:
        raise AssertionError(f"left over: {left}")


async def start_nginx(case, folder, template, port, *, binary=NGINX, **values):
    """
    Start nginx, until the end of the test *case*; returns when it listens.

    :param folder: For its files.
    :param template: The name of the template of its configuration, in this folder.
    :param values: What the template needs besides the folder and the port.
    """
    configuration = folder / "nginx.conf"
    text = Path(__file__).with_name(template).read_text()
    configuration.write_text(
        string.Template(text).substitute(
            folder=folder,
            port=port,
            # Of root's it would become another user, who cannot write here.
            user="user root;" if os.geteuid() == 0 else "",
            **values,
        )
    )
    words = ("-e", "stderr", "-p", folder, "-c", configuration)
    program = Program.start(case, *words, cwd=folder, executable=binary)
    while not await deferToThread(listens, port):
        if program.status is not None:
            raise AssertionError(f"nginx ended: {program.output}")


def listens(port):
    """Whether something listens on a port; this blocks."""
    with closing(socket.socket()) as connection:
        connection.settimeout(1)
        return connection.connect_ex(("127.0.0.1", port)) == 0


@implementer(ISource)
class WatchedSource:
    """
    Bytes to upload, which tell how many of them leave.

    :param left: Called with the number of bytes that are about to be sent, which wait
        for its Deferred.
    """

    content_name = None

    def __init__(self, data, left):
        self.length = len(data)
        self._data = data
        self._left = left

    def read(self, offset, size):
        data = self._data[offset : offset + size]
        return self._left(size).addCallback(lambda _: data)

    def check(self):
        return succeed(None)

    def forget(self, offset):
        """All of it stays."""


class Killer:
    """
    Kills a node each time that a random number of bytes has left the clients.

    The node killed before starts again at the same moment, so that there is always one
    that works.

    :ivar kills: How many nodes were killed so far.
    :param chance: The source of chance.
    :param every: How many bytes are sent between two kills, on average.
    :param most: How many nodes to kill at most.
    :param tell: Called with a line about each.
    """

    def __init__(self, nodes, chance, every, most, tell=lambda line: None):
        self.kills = 0
        self._nodes = nodes
        self._chance = chance
        self._every = every
        self._most = most
        self._tell = tell
        self._until = self._distance()
        self._down = None
        self._strikes = []
        # One at a time, so that there is always a node that works.
        self._lock = DeferredLock()

    def _distance(self):
        return self._chance.randrange(2 * self._every)

    def sent(self, size):
        """So many bytes more are to be sent; fires when they may be."""
        self._until -= size
        if self._until > 0 or self.kills >= self._most:
            return succeed(None)
        self._until = self._distance()
        self.kills += 1
        begun = Deferred()
        strike = self._lock.run(lambda: ensureDeferred(self._strike(begun)))
        self._strikes.append(strike)
        return begun

    async def _strike(self, begun):
        standing = [node for node in self._nodes if node is not self._down]
        victim = self._chance.choice(standing)
        before, self._down = self._down, victim
        self._tell(f"node on port {victim.port}: killed")
        ended = ensureDeferred(victim.kill())
        begun.callback(None)
        await ended
        if before is not None:
            await before.start()
            self._tell(f"node on port {before.port}: started again")

    async def stop(self):
        """Returns when all nodes work again."""
        for strike in self._strikes:
            await strike
        if self._down is not None:
            await self._down.start()
            self._down = None


async def upload_all(cluster, files, killer, chance, tell=lambda line: None):
    """
    Upload files at the same moment, in fragments of random sizes.

    :param files: Bytes by their paths.
    :returns: The ids of their sessions.
    """

    async def one(path, data):
        result = await upload(
            WatchedSource(data, killer.sent),
            cluster.url(path),
            reactor=reactor,
            fragment_size=chance.randrange(200_000, 6_000_000),
            random=chance.random,
        )
        tell(f"{path}: closed")
        return UUID(result.session_id)

    work = [ensureDeferred(one(path, data)) for path, data in files.items()]
    sessions = [await each for each in work]
    await killer.stop()
    return sessions
