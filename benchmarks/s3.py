"""
Part (d): the speed and cost of uploads through txbits into a bucket.

All runs use one SeaweedFS server, started as in the tests. For comparison, ``boto3``
uploads the same bytes to it without a server in between.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from attrs import frozen

from benchmarks.conditions import warm_page_cache
from benchmarks.driver import (
    BITSUpload,
    LoadFailed,
    Packets,
    Payload,
    close_all,
    drive,
    small_uploads,
    transfer,
)
from benchmarks.report import Goal, goals, middle, table
from benchmarks.servers import CHECKOUT, running, txbits
from tests.seaweedfs import ENVIRONMENT, Bucket

MIB = 1024 * 1024
GIB = 1024 * MIB

#: The sides; for those of boto3, whether it uses threads.
SIDES = {"txbits": None, "boto3": False, "boto3-threads": True}

_MOST_MEMORY = {1: 64.0, 8: 256.0}


@frozen
class Result:
    """
    One run.

    :ivar seconds: From the first request until all objects are in the bucket.
    :ivar cpu: The CPU seconds of txbits.
    :ivar memory: The peak of its resident memory, in bytes over what it had at rest.
    """

    seconds: float
    cpu: float = 0.0
    memory: int = 0


class _Case(ExitStack):
    """What a bucket needs of a test: that it is removed in the end."""

    addCleanup = ExitStack.callback


def measure(
    sides: Sequence[str],
    directory: Path,
    *,
    template: str,
    options: list[str],
    connections: Sequence[int],
    repetitions: int,
    total: int,
    fragment: int,
) -> None:
    """
    Run all sides in turn, as often as asked, and print what came out.

    :param directory: Where the folders of the runs are made, and that of the store.
    :param template: The command that starts txbits.
    :param options: What else to append to it.
    :param connections: The numbers of uploads to run side by side.
    :param total: Bytes over all uploads.
    :param fragment: Bytes of a Fragment.
    """
    os.environ.update(ENVIRONMENT)
    os.environ["TMPDIR"] = str(directory)
    payload = Payload(fragment)
    buffer = directory / "payload"
    buffer.write_bytes(payload.buffer)
    results: dict[tuple[int, str], list[Result]] = {}
    for repetition in range(repetitions):
        for count in connections:
            for side in sides:
                warm_page_cache(directory, total + total // 2)
                gc.collect()
                with _Case() as case:
                    bucket = Bucket(case)
                    threads = SIDES[side]
                    if threads is None:
                        folder = directory / f"s3-{repetition}-{count}"
                        result = _through_txbits(
                            *(folder, bucket, template, options),
                            *(payload, count, total // count),
                        )
                    else:
                        result = _with_boto3(
                            bucket, buffer, threads, fragment, count, total // count
                        )
                    if not repetition:
                        _verify(bucket, payload, count, total // count)
                results.setdefault((count, side), []).append(result)
    for count in connections:
        _tell(count, {side: results[count, side] for side in sides}, total)
    if "txbits" in sides:
        with _Case() as case:
            _count_requests(directory / "s3-requests", Bucket(case), template, options)


def _through_txbits(
    directory: Path,
    bucket: Bucket,
    template: str,
    options: list[str],
    payload: Payload,
    uploads: int,
    length: int,
) -> Result:
    side = txbits(template, options, bucket.description())
    with running(side, directory) as server:
        port = server.run.port
        server.settle()
        idle = server.resident_bytes()
        # The first write to a new bucket is slow. boto3 also makes one.
        piece = len(next(payload.pieces(0, length)))
        transfer([BITSUpload(port, uploads, payload, piece)], lambda: None)
        sessions = [
            BITSUpload(port, number, payload, length) for number in range(uploads)
        ]
        marks: list[tuple[float, float]] = []
        transfer(
            sessions,
            lambda: marks.append((time.perf_counter(), server.cpu_seconds())),
        )
        start, _, closed = marks
        return Result(
            closed[0] - start[0], closed[1] - start[1], server.peak_bytes() - idle
        )


def _with_boto3(
    bucket: Bucket,
    buffer: Path,
    threads: bool,
    piece: int,
    uploads: int,
    length: int,
) -> Result:
    task = {
        "endpoint": bucket.server.endpoint,
        "bucket": bucket.name,
        "buffer": str(buffer),
        "piece": piece,
        "threads": threads,
        "uploads": uploads,
        "length": length,
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.boto3_upload"],
        cwd=CHECKOUT,
        input=json.dumps(task).encode(),
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        raise LoadFailed("boto3 failed; see its error above")
    return Result(json.loads(done.stdout)["seconds"])


def _verify(bucket: Bucket, payload: Payload, uploads: int, length: int) -> None:
    """Compare the objects in the bucket with the sent bytes."""
    for number in range(uploads):
        name = f"upload{number}"
        answer = bucket.client.get_object(Bucket=bucket.name, Key=name)
        for piece in payload.pieces(number, length):
            if answer["Body"].read(len(piece)) != piece:
                raise LoadFailed(f"{name} is not what was sent")
        if answer["Body"].read(1):
            raise LoadFailed(f"{name} is too long")


def _count_requests(
    directory: Path, bucket: Bucket, template: str, options: list[str]
) -> None:
    """
    Count the requests to S3 of a session of 1 KiB, beside those of the start: how many
    more twenty take than ten, which both leave it the time for its first clean-up.
    """
    command = [sys.executable, "-m", "tests.fault_proxy", str(bucket.server.port)]
    counts = []
    for sessions in (10, 20):
        with subprocess.Popen(
            command,
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as proxy:
            assert proxy.stdout is not None and proxy.stdin is not None
            backend = bucket.description(endpoint=proxy.stdout.readline().strip())
            side = txbits(template, options, backend)
            with running(side, directory / str(sessions)) as server:
                port = server.run.port
                names = iter([b"small%d-%d" % (sessions, n) for n in range(sessions)])
                script = small_uploads(
                    Packets.for_port(port), names, os.urandom(1024), []
                )
                close_all(drive(port, [script], concurrency=1, deadline=60))
            proxy.stdin.close()
            counts.append(json.loads(proxy.stdout.readline()))
    few, more = counts
    each = {name: (more[name] - few.get(name, 0)) / 10 for name in more}
    rows = [[name, f"{number:g}"] for name, number in each.items() if number]
    table("(d) requests to S3 for a session of 1 KiB", ["operation", "number"], rows)
    goals(
        "(d) goals, small uploads",
        [Goal("requests a session of 1 KiB", sum(each.values()), "at most", 5)],
    )


def _tell(count: int, results: dict[str, list[Result]], total: int) -> None:
    mib, gib = total / MIB, total / GIB
    rates = {
        side: [mib / run.seconds for run in runs] for side, runs in results.items()
    }
    rows = []
    for side, runs in results.items():
        ours = SIDES[side] is None
        rows.append(
            [
                side,
                middle(rates[side], 0),
                middle([run.seconds for run in runs]),
                middle([run.cpu / gib for run in runs]) if ours else "-",
                middle([run.memory / MIB for run in runs], 0) if ours else "-",
            ]
        )
    table(
        f"(d) {count} x {mib / count:.0f} MiB into S3: median (lowest-highest)",
        ["side", "MiB/s", "wall s", "server CPU s/GiB", "peak MiB over idle"],
        rows,
    )
    reached = []
    if "txbits" in results:
        for other in results:
            if other != "txbits":
                goal = 0.8 if (other, count) == ("boto3", 1) else None
                ratio = median(rates["txbits"]) / median(rates[other])
                reached.append(Goal(f"MiB/s, txbits / {other}", ratio, limit=goal))
        peak = max(run.memory for run in results["txbits"]) / MIB
        reached.append(
            Goal("highest peak MiB over idle", peak, "at most", _MOST_MEMORY.get(count))
        )
    goals(f"(d) goals for {count}", reached)
