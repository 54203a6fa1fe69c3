"""
Run the benchmarks: ``python -m benchmarks``, from the checkout.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from benchmarks import (
    authentication,
    client,
    downloads,
    goals,
    hops,
    operating,
    small,
    throughput,
)
from benchmarks.conditions import spread_folders, touch_memory
from benchmarks.driver import LoadFailed
from benchmarks.servers import (
    DEFAULT_COMMAND,
    ServerFailed,
    Side,
    bare_loop,
    buffered,
    has_option,
    nginx,
    nginx_binary,
    two_workers,
    txbits,
)

_PARTS = {
    "throughput": [
        "txbits",
        "txbits-never",
        "nginx",
        "txbits-tls",
        "nginx-tls",
        "bare",
        "buffered",
    ],
    "sessions": ["txbits", "buffered", "txbits-never", "txbits-2", "txbits-2-never"],
    "memory": ["txbits"],
    "s3": ["txbits", "boto3", "boto3-threads"],
    "downloads": ["txbits", "nginx", "nginx-sendfile", "txbits-tls", "nginx-tls"],
    "client": ["txbits", "nginx"],
    "relay": ["direct", "relayed"],
    "authentication": ["txbits"],
    "operating": ["txbits"],
    "hops": [],
}
#: What runs only if it is named.
_NAMED = ("goals",)
_ALSO = {
    "throughput": ["bare-threads"],
    "sessions": ["buffered-kill", "buffered-crash"],
    "memory": ["buffered"],
    "s3": [],
    "downloads": [],
    "client": [],
    "relay": [],
    "authentication": [],
    "operating": [],
    "hops": [],
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure txbits over loopback, beside simpler servers.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add(
        "parts", nargs="*", help=f"some of {', '.join(_PARTS)} (default: all), or goals"
    )
    add("--sides", help="servers, separated by commas (default: as in README)")
    add("--repetitions", type=int, default=3, help="runs of each side")
    add("--dir", type=Path, help="folder for the files of the runs (default: temp)")
    add("--keep", action="store_true", help="keep these files, with the logs")
    add("--quick", action="store_true", help="a smoke test; ignore its figures")
    add("--server", default=DEFAULT_COMMAND, help="the command that starts txbits")
    add(
        "--server-option",
        action="append",
        default=[],
        help="another argument of that command; can be repeated",
    )
    add("--total", type=int, default=1024, help="MiB of a run, except small uploads")
    add("--files", type=int, default=1000, help="small files of a run of clients")
    add("--fragment", type=int, default=10, help="MiB of a Fragment or PUT")
    add("--connections", default="1,8", help="connections, except small uploads")
    add("--sessions", type=int, default=6000, help="uploads of a sessions run")
    add("--clients", type=int, default=32, help="connections of a sessions run")
    add("--open", default="1000,5000", help="numbers of open sessions")
    add("--latencies", type=int, default=1000, help="uploads of a latency round")
    add("--tries", type=int, default=100, help="wrong passwords that are timed")
    add("--passing", type=int, default=10_000, help="short sessions of a memory run")
    options = parser.parse_args()
    options.parts = options.parts or list(_PARTS)
    if unknown := set(options.parts) - set(_PARTS) - set(_NAMED):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    known = {side for part in _PARTS for side in _PARTS[part] + _ALSO[part]}
    options.sides = options.sides.split(",") if options.sides else None
    if unknown := set(options.sides or []) - known:
        parser.error(f"no such side: {', '.join(sorted(unknown))}")
    options.connections = _numbers(parser, options.connections)
    options.open = _numbers(parser, options.open)
    if options.quick:
        options.repetitions = 1
        options.total, options.fragment = 64, 4
        options.sessions, options.clients = 300, 8
        options.files = 50
        options.tries = 4
        options.open, options.latencies, options.passing = [50, 100], 100, 500
    return options


def _numbers(parser: argparse.ArgumentParser, text: str) -> list[int]:
    try:
        return sorted(int(word) for word in text.split(","))
    except ValueError:
        parser.error(f"not numbers separated by commas: {text}")


def _sides(options: argparse.Namespace) -> dict[str, Side]:
    """All servers that can be run here."""
    template, more = options.server, options.server_option
    never = [*more, "--fsync", "never"]
    sides = [
        txbits(template, more),
        txbits(template, never, name="txbits-never"),
        bare_loop(),
        bare_loop("bare-threads", "--threads"),
        buffered(),
        buffered("kill"),
        buffered("crash"),
        txbits(template, more, is_secure=True),
        two_workers("direct", "bits"),
        two_workers("relayed", "relayed"),
    ]
    if has_option(template, "--workers"):
        two = ["--workers", "2"]
        sides += [
            txbits(template, [*more, *two], name="txbits-2"),
            txbits(template, [*never, *two], name="txbits-2-never"),
        ]
    binary = nginx_binary()
    if binary:
        sides.insert(1, nginx(binary))
        sides.append(nginx(binary, "nginx-sendfile", "sendfile on;"))
        sides.append(nginx(binary, "nginx-tls", is_secure=True))
    else:
        print("nginx is not installed and left out: apt-get install nginx")
    return {side.name: side for side in sides}


def _chosen(
    part: str, options: argparse.Namespace, sides: dict[str, Side]
) -> list[Side]:
    names = _PARTS[part]
    if options.sides:
        names = [name for name in names + _ALSO[part] if name in options.sides]
    return [sides[name] for name in names if name in sides]


def _run(options: argparse.Namespace, directory: Path) -> None:
    sides = _sides(options)
    # Garbage collection in the driver must not interrupt a measurement.
    gc.disable()
    for part in options.parts:
        if part == "hops":
            hops.show()
            continue
        if part == "goals":
            goals.measure(
                sides,
                directory,
                template=options.server,
                options=options.server_option,
                is_quick=options.quick,
            )
            continue
        if part == "s3":
            _run_s3(options, directory)
            continue
        if part == "operating":
            operating.measure(
                directory,
                template=options.server,
                options=options.server_option,
                connections=options.clients,
                repetitions=options.repetitions,
                sessions=options.passing,
            )
            continue
        if part == "authentication":
            authentication.measure(
                directory,
                sessions=options.sessions,
                connections=options.clients,
                latencies=options.latencies,
                tries=options.tries,
                repetitions=options.repetitions,
            )
            continue
        chosen = _chosen(part, options, sides)
        if not chosen:
            continue
        if part == "client":
            client.measure(
                {side.name: side for side in chosen},
                directory,
                repetitions=options.repetitions,
                total=options.total * throughput.MIB,
                files=options.files,
            )
        elif part in ("throughput", "relay"):
            throughput.measure(
                chosen,
                directory,
                connections=options.connections,
                repetitions=options.repetitions,
                sizes=throughput.Sizes(
                    options.total * throughput.MIB, options.fragment * throughput.MIB
                ),
                part="a" if part == "throughput" else "h",
            )
        elif part == "downloads":
            downloads.measure(
                [
                    txbits(
                        options.server,
                        [*options.server_option, "--allow-downloads"],
                        is_secure=side.is_secure,
                    )
                    if side.protocol == "bits"
                    else side
                    for side in chosen
                ],
                directory,
                connections=options.connections,
                repetitions=options.repetitions,
                total=options.total * throughput.MIB,
            )
        elif part == "sessions":
            small.measure_sessions(
                chosen,
                directory,
                connections=options.clients,
                sessions=options.sessions,
                repetitions=options.repetitions,
            )
        else:
            small.raise_open_files(options.open[-1] + 1000)
            for side in chosen:
                small.measure_memory(
                    side,
                    directory,
                    open_sessions=options.open,
                    latency_sessions=options.latencies,
                    rounds=options.repetitions,
                    passing_sessions=options.passing,
                )


def _run_s3(options: argparse.Namespace, directory: Path) -> None:
    if missing := [name for name in ("boto3", "hypothesis") if not find_spec(name)]:
        print(f"s3 is left out, without {missing[0]}: pip install '.[benchmarks]'")
        return
    # This needs packages that the other parts do not need.
    from benchmarks import s3

    names = [name for name in s3.SIDES if name in (options.sides or s3.SIDES)]
    if names:
        s3.measure(
            names,
            directory,
            template=options.server,
            options=options.server_option,
            connections=options.connections,
            repetitions=options.repetitions,
            total=options.total * throughput.MIB,
            fragment=options.fragment * throughput.MIB,
        )


def main() -> int:
    """Run what the command line asks for; 1 if a server failed."""
    options = _options()
    # Stop the servers and remove the folders in this case as well.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    start = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="txbits-benchmarks-", dir=options.dir))
    print(
        f"{platform.platform()}, {os.cpu_count()} CPUs, "
        f"Python {platform.python_version()}; files in {directory}",
        flush=True,
    )
    spread_folders(directory)
    if not options.quick:
        print(f"wrote to {touch_memory() >> 20} MiB of free memory", flush=True)
    try:
        _run(options, directory.resolve())
    except (LoadFailed, ServerFailed) as fault:
        print(f"stopped: {fault}", file=sys.stderr)
        return 1
    finally:
        if not options.keep:
            shutil.rmtree(directory, ignore_errors=True)
    print(f"done in {time.monotonic() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
