"""
A show: three nodes on one bucket behind nginx, killed while clients upload.

``python -m tests.integration.show`` starts all of it on 127.0.0.1, tells what happens,
and lists what is in the bucket in the end, and before and after a Cancel.
It needs what the tests need, ``pip install '.[test]'``. Without nginx a balancer of the
tests' own stands in.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
from hashlib import sha256

from twisted.internet.defer import ensureDeferred, maybeDeferred
from twisted.internet.task import react
from twisted.internet.threads import deferToThread

from tests.integration.cluster import (
    Cluster,
    Killer,
    clean_up,
    remains,
    upload_all,
)
from tests.integration.wire import Wire
from tests.seaweedfs import Bucket

PREFIX = "incoming/"


class _Cleanups:
    """What a show needs of a test case: that things are put away in the end."""

    def __init__(self):
        self._calls = []

    def addCleanup(self, call, *arguments):
        self._calls.append((call, arguments))

    async def clean_up(self):
        while self._calls:
            call, arguments = self._calls.pop()
            await maybeDeferred(call, *arguments)


def _verdicts(bucket, files):
    """Each key in the bucket, and what is to be said of it."""
    missing = dict(files)
    left = remains(bucket, PREFIX)
    for key in bucket.everything():
        data = missing.pop("/" + key.removeprefix(PREFIX), None)
        if data is not None:
            right = sha256(bucket.read(key)).digest() == sha256(data).digest()
            yield key, f"{len(data):,} bytes as sent" if right else "WRONG"
        else:
            yield key, "LEFT OVER" if key in left else "record of a close"
    for path in missing:
        yield path, "MISSING"


def _cancel(bucket, port):
    """Cancel an upload of 100 MiB in the middle; whether that left nothing."""
    there = set(bucket.everything())
    data = bytes(100 * 2**20)
    half = len(data) // 2
    wire, other = Wire(port), Wire(port)
    session = wire.create(b"/cancelled")
    wire.fragment(b"/cancelled", session, data, 0, half)
    print("in the middle of an upload of 100 MiB, beside the above:")
    for key in sorted(set(bucket.everything()) - there):
        print(f"  {key}")
    status, _ = other.cancel_session(b"/cancelled", session)
    left = sorted(set(bucket.everything()) - there)
    print(f"at the moment of the Ack of its Cancel-Session, with status {status}:")
    for key in left or ["nothing"]:
        print(f"  {key}")
    wire.close()
    other.close()
    return status == 200 and not left


async def _show(options):
    chance = random.Random(options.seed)
    case = _Cleanups()
    folder = tempfile.mkdtemp(prefix="txbits-cluster-")
    case.addCleanup(shutil.rmtree, folder)
    try:
        bucket = Bucket(case)
        print(f"S3:    {bucket.server.endpoint}, bucket {bucket.name}")
        backend = bucket.description(prefix=PREFIX)
        cluster = await Cluster.start(case, folder, backend)
        ports = ", ".join(str(node.port) for node in cluster.nodes)
        print(f"{cluster.balancer}: {cluster.url('/')}, before nodes on ports {ports}")
        most = 2 * options.mib * 2**20 // options.files
        files = {
            f"/file-{number}": chance.randbytes(chance.randrange(most))
            for number in range(options.files)
        }
        total = sum(map(len, files.values()))
        print(
            f"{len(files)} clients upload {total:,} bytes; the seed is {options.seed}"
        )
        every = max(1, total // (options.kills + 1))
        killer = Killer(cluster.nodes, chance, every, options.kills, print)
        await upload_all(cluster, files, killer, chance, print)
        await clean_up(case, folder, bucket, PREFIX)
        print(f"nodes were killed {killer.kills} times; what is in the bucket now:")
        verdicts = list(_verdicts(bucket, files))
        for key, verdict in verdicts:
            print(f"  {key}: {verdict}")
        is_gone = await deferToThread(_cancel, bucket, cluster.port)
    finally:
        await case.clean_up()
    if any(verdict.isupper() for _, verdict in verdicts) or not is_gone:
        raise SystemExit("this must not be")


def main():
    """Run the show."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.integration.show",
        description="Upload through three nodes that are killed meanwhile.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--files", type=int, default=8, help="how many clients")
    add("--mib", type=int, default=200, help="how much they upload, about")
    add("--kills", type=int, default=10, help="how often to kill a node, at most")
    add("--seed", type=int, default=random.randrange(10**6), help="for another run")
    options = parser.parse_args()
    react(lambda _: ensureDeferred(_show(options)))


if __name__ == "__main__":
    main()
