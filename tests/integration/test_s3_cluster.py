"""
Three nodes on one bucket, behind nginx: real processes, killed at random.

Where a kill falls is random; the seed is in the message of a failure. The server of S3
is SeaweedFS (see :mod:`tests.seaweedfs`), nginx is Debian's. Where that is missing a
balancer of our own stands in, which one test uses in any case.
"""

import contextlib
import random
from hashlib import sha256
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.integration.cluster import Cluster, Killer, clean_up, remains, upload_all
from tests.integration.programs import Program
from tests.integration.wire import Lost, Wire
from tests.seaweedfs import Bucket

MIB = 2**20
PREFIX = "incoming/"


class ClusterCase(TestCase):
    """Starts nodes on a new bucket."""

    timeout = 180

    def setUp(self):
        self.bucket = Bucket(self)
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)

    async def start(self, *options, nodes=3, **more):
        backend = self.bucket.description(prefix=PREFIX)
        self.cluster = await Cluster.start(
            self, self.folder, backend, nodes=nodes, options=options, **more
        )

    def wire(self, port):
        wire = Wire(port)
        self.addCleanup(wire.close)
        return wire


class KilledNodesTests(ClusterCase):
    """Uploads through a balancer, while its upstreams come and go."""

    async def test_all_files_arrive_and_nothing_remains(self):
        sizes = (
            0,
            1000,
            300_000,
            8 * MIB,
            10 * MIB,
            10 * MIB + 1,
            17_000_000,
            25 * MIB,
        )
        self.assertGreater(await self.upload_and_kill(sizes, most=5), 3)

    async def test_so_it_is_with_a_balancer_of_our_own(self):
        sizes = (0, 1000, 300_000, 17_000_000)
        self.assertGreater(await self.upload_and_kill(sizes, most=2, nginx=None), 0)

    async def upload_and_kill(self, sizes, most, **more):
        """
        Upload files of several sizes, and look what has become of them.

        :param most: How many nodes are killed meanwhile, at most.
        :returns: How many were.
        """
        seed = random.randrange(2**32)
        chance = random.Random(seed)
        await self.start(**more)
        files = {
            f"/files/{number}.bin": chance.randbytes(size)
            for number, size in enumerate(sizes)
        }
        killer = Killer(self.cluster.nodes, chance, every=8 * MIB, most=most)
        sessions = await upload_all(self.cluster, files, killer, chance)

        def look():
            for path, data in files.items():
                found = self.bucket.read(PREFIX + path[1:])
                self.assertIsNotNone(found, f"{path}, seed {seed}")
                self.assertEqual(
                    sha256(found).digest(), sha256(data).digest(), f"{path}, {seed}"
                )
            # Of a session that a client has closed, nothing is left even now.
            left = " ".join(remains(self.bucket, PREFIX)).lower()
            for session in sessions:
                self.assertNotIn(str(session), left, f"seed {seed}")

        await deferToThread(look)
        await clean_up(self, self.folder, self.bucket, PREFIX)
        everything = await deferToThread(self.bucket.everything)
        self.assertEqual(
            [key for key in everything if ".bits-sessions" not in key],
            sorted(PREFIX + path[1:] for path in files),
        )
        return killer.kills

    async def test_the_show_in_the_documentation_runs(self):
        words = (
            "-m",
            "tests.integration.show",
            "--mib",
            12,
            "--files",
            3,
            "--kills",
            1,
        )
        show = Program.start(self, *words, cwd=self.folder)
        await show.ended()
        self.assertEqual(show.status, 0, show.output)
        self.assertIn("killed 1 times", show.stdout)
        self.assertEqual(show.stdout.count("bytes as sent"), 3, show.output)
        self.assertTrue(show.stdout.endswith("with status 200:\n  nothing\n"))


class AnyNodeTests(ClusterCase):
    """A client that talks to another node with every packet."""

    async def test_any_node_serves_any_packet(self):
        data = random.randbytes(20 * MIB)
        await self.start()
        ports = [node.port for node in self.cluster.nodes]

        def run():
            path = b"/f"
            one, two, three = map(self.wire, ports)
            session = one.create(path)
            status, headers = two.fragment(path, session, data, 0, 5_000_000)
            self.assertEqual(
                (status, headers[b"bits-received-content-range"]), (200, b"5000000")
            )
            status, headers = three.fragment(path, session, data, 5_000_000, 9_000_000)
            self.assertEqual(headers[b"bits-received-content-range"], b"9000000")
            # What the first node remembers is long out of date.
            status, headers = one.fragment(path, session, data, 12_000_000, len(data))
            self.assertEqual(
                (status, headers[b"bits-received-content-range"]), (416, b"9000000")
            )
            status, headers = one.fragment(path, session, data, 4_000_000, len(data))
            self.assertEqual(headers[b"bits-received-content-range"], b"%d" % len(data))
            self.assertEqual(two.close_session(path, session)[0], 200)
            self.assertEqual(three.close_session(path, session)[0], 200)
            self.assertEqual(self.bucket.read(PREFIX + "f"), data)
            self.assertEqual(remains(self.bucket, PREFIX), [])

        await deferToThread(run)

    async def test_two_nodes_serve_the_same_fragment_at_once(self):
        data = random.randbytes(20 * MIB)
        await self.start(nodes=2)
        first, second = (node.port for node in self.cluster.nodes)

        def run():
            path = b"/f"
            stale, wire = self.wire(first), self.wire(second)
            session = stale.create(path)
            # The first connection stands still, and the client comes back elsewhere.
            stale.fragment(path, session, data, 0, len(data), cut=9_000_000)
            status, headers = wire.fragment(path, session, data, 0, len(data))
            self.assertEqual(
                (status, headers[b"bits-received-content-range"]),
                (200, b"%d" % len(data)),
            )
            # The rest of the old request arrives after all.
            with contextlib.suppress(OSError):
                stale.socket.sendall(stale.rest)
            self.assertEqual(wire.close_session(path, session)[0], 200)
            self.assertEqual(self.bucket.read(PREFIX + "f"), data)

        await deferToThread(run)
        await clean_up(self, self.folder, self.bucket, PREFIX)
        self.assertEqual(await deferToThread(self.bucket.read, PREFIX + "f"), data)


class CancelTests(ClusterCase):
    """Cancel-Session, and what is in the bucket before and after."""

    async def test_cancel_of_100_mib_leaves_nothing_at_the_moment_of_its_ack(self):
        data = random.randbytes(100 * MIB)
        await self.start(nodes=1)
        port = self.cluster.nodes[0].port

        def run():
            path = b"/f"
            wire = self.wire(port)
            session = wire.create(path)
            wire.fragment(path, session, data, 0, 50 * MIB)
            # This one is in the middle of the next fragment.
            wire.fragment(path, session, data, 50 * MIB, len(data), cut=25_000_000)
            before = self.bucket.everything()
            self.assertGreaterEqual(len([name for name in before if "#" in name]), 5)
            status, _ = self.wire(port).cancel_session(path, session)
            after = self.bucket.everything()
            self.assertEqual((status, after), (200, []), before)
            with self.assertRaises(Lost):
                wire.fragment(path, session, data, 50 * MIB, len(data))

        await deferToThread(run)

    async def test_cancel_at_another_node_ends_the_fragment_at_the_first(self):
        data = random.randbytes(60 * MIB)
        await self.start(nodes=2)
        first, second = (node.port for node in self.cluster.nodes)

        def run():
            path = b"/f"
            wire = self.wire(first)
            session = wire.create(path)
            wire.fragment(path, session, data, 0, len(data), cut=30_000_000)
            status, _ = self.wire(second).cancel_session(path, session)
            self.assertEqual(status, 200)
            # The first node notices with the next object that it writes. It hangs up,
            # or takes the rest if that is little, and says that there is no session.
            try:
                wire.socket.sendall(wire.rest)
                status, headers = wire.ack()
            except (Lost, OSError):
                pass
            else:
                self.assertEqual(headers[b"bits-error-code"], b"0x8020001F")
            self.assertEqual(self.bucket.everything(), [])

        await deferToThread(run)
