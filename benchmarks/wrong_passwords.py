"""
Clients with wrong passwords: ``python -m benchmarks.wrong_passwords PORT COUNT PAUSE
NAMES``. The first NAMES of them claim the name of a user.

Each has its own address and claims a name of its own. It sends a Ping with a password
that is wrong, and another one after a pause, until standard input is closed. Then the
statuses of all answers are printed in JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from base64 import b64encode
from collections import Counter


async def _client(
    port: int, number: int, pause: float, statuses: Counter[str], names: int
) -> None:
    source = f"127.1.{number // 250}.{1 + number % 250}"
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, local_addr=(source, 0)
    )
    # Some of the names exist.
    name = f"user{number}" if number < names else f"nobody{number}"
    tries = 0
    while True:
        pair = b64encode(f"{name}:wrong{tries}".encode()).decode()
        tries += 1
        writer.write(
            f"BITS_POST /wrong HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            f"BITS-Packet-Type: Ping\r\nAuthorization: Basic {pair}\r\n"
            "Content-Length: 0\r\n\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        statuses[head.split(b" ", 2)[1].decode()] += 1
        await asyncio.sleep(pause)


async def _main(port: int, count: int, pause: float, names: int) -> None:
    statuses: Counter[str] = Counter()
    clients = [
        asyncio.create_task(_client(port, number, pause, statuses, names))
        for number in range(count)
    ]
    end = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    done, _ = await asyncio.wait([end, *clients], return_when="FIRST_COMPLETED")
    for client in clients:
        client.cancel()
    print(json.dumps(statuses), flush=True)
    for one in done:
        one.result()


if __name__ == "__main__":
    asyncio.run(
        _main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
    )
