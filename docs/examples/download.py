"""
Download a file and show the progress: python download.py URL FILE
"""

import sys
from typing import Any

from twisted.internet.task import react

from txbits.client import DownloadFailed, Event, Progress, Waiting, download


def show(event: Event) -> None:
    if isinstance(event, Progress):
        print(f"{event.acknowledged} of {event.total} bytes")
    elif isinstance(event, Waiting):
        print(f"{event.cause}; trying again in {event.seconds:.1f} s")


async def main(reactor: Any, url: str, path: str) -> None:
    try:
        result = await download(url, path, reactor=reactor, on_event=show)
    except DownloadFailed as error:
        sys.exit(f"{error} ({'try again' if error.transient else 'give up'})")
    print(f"{result.received} of {result.length} bytes received")


if __name__ == "__main__":
    react(main, sys.argv[1:])
