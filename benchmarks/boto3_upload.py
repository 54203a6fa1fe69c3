"""
Uploads with ``boto3``: the same bytes to the same store, without txbits.

``python -m benchmarks.boto3_upload`` reads its parameters as JSON from standard input.
At the end it writes the duration in seconds, as JSON, to standard output.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

from benchmarks.driver import Payload


class PiecesFile:
    """
    Pieces as a file that is read once, from its beginning to its end.

    :param pieces: The pieces, in order.
    """

    def __init__(self, pieces: Iterator[memoryview]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def read(self, size: int = -1) -> bytes:
        """Read *size* bytes, or all there are."""
        found = []
        while size:
            if not self._rest:
                self._rest = next(self._pieces, memoryview(b""))
                if not self._rest:
                    break
            piece = self._rest if size < 0 else self._rest[:size]
            self._rest = self._rest[len(piece) :]
            size -= len(piece) if size > 0 else 0
            found.append(piece)
        return b"".join(found)


def main() -> None:
    """Run one upload with the parameters from standard input."""
    task: dict[str, Any] = json.load(sys.stdin)
    payload = Payload(task["piece"], Path(task["buffer"]).read_bytes())
    client = boto3.client(
        "s3",
        endpoint_url=task["endpoint"],
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, max_pool_connections=100),
    )
    # One connection for an upload, or boto3's default.
    settings = TransferConfig(use_threads=task["threads"])

    def upload(number: int, length: int = task["length"]) -> None:
        pieces = payload.pieces(number, length)
        client.upload_fileobj(
            PiecesFile(pieces), task["bucket"], f"upload{number}", Config=settings
        )

    upload(task["uploads"], task["piece"])
    with ThreadPoolExecutor(task["uploads"]) as pool:
        start = time.perf_counter()
        list(
            pool.map(upload, range(task["uploads"]), [task["length"]] * task["uploads"])
        )
        seconds = time.perf_counter() - start
    json.dump({"seconds": seconds}, sys.stdout)


if __name__ == "__main__":
    main()
