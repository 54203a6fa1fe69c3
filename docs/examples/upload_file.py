"""
Upload a file and show the progress: ``python upload_file.py FILE URL``.
"""

import sys
from typing import Any

from twisted.internet.task import react

from txbits.client import Event, Progress, UploadFailed, Waiting, upload


def show(event: Event) -> None:
    if isinstance(event, Progress):
        print(f"{event.acknowledged} of {event.total} bytes", flush=True)
    elif isinstance(event, Waiting):
        print(f"{event.cause}; trying again in {event.seconds:.1f} s", flush=True)


async def main(reactor: Any, path: str, url: str) -> None:
    try:
        result = await upload(path, url, reactor=reactor, on_event=show, retry_for=3600)
    except UploadFailed as error:
        words = "try again later" if error.transient else "permanent failure"
        raise SystemExit(f"{error}: {words}") from error
    print(f"session {result.session_id} brought {result.length} bytes")


if __name__ == "__main__":
    react(main, sys.argv[1:])
