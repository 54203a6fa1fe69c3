"""
Pause, resume and cancel an upload with commands on standard input. After a restart, the
program resumes the upload: ``python upload_job.py FILE URL JOURNAL``.
"""

import sys
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.stdio import StandardIO
from twisted.internet.task import react
from twisted.protocols.basic import LineReceiver

from txbits.client import (
    ConnectionSettings,
    Event,
    FileSource,
    Paused,
    UploadCancelled,
    UploadJob,
    open_journal,
)


class Words(LineReceiver):
    delimiter = b"\n"

    def __init__(self, job: UploadJob) -> None:
        self.job = job

    def lineReceived(self, line: bytes) -> None:
        if line == b"pause":
            self.job.pause()
        elif line == b"resume":
            self.job.resume()
        elif line == b"cancel":
            self.job.cancel()


def show(event: Event) -> None:
    if isinstance(event, Paused):
        print(f"paused at {event.acknowledged}", flush=True)


async def main(reactor: Any, path: str, url: str, journal_path: str) -> None:
    source = FileSource.open(path)
    journal = await open_journal(reactor, source, url, journal_path)
    job = UploadJob(
        source,
        url,
        reactor=reactor,
        journal=journal,
        settings=ConnectionSettings(limit_rate=1_000_000),
        on_event=show,
    )
    result = job.start()
    StandardIO(Words(job), reactor=reactor)
    # Ctrl-C keeps the session on the server, and the journal here.
    reactor.addSystemEventTrigger("before", "shutdown", result.cancel)
    print("started", flush=True)
    try:
        print(f"{(await result).length} bytes arrived")
    except UploadCancelled:
        print("cancelled")
    except CancelledError:
        print("interrupted; the same command resumes")
    finally:
        journal.close()
        source.close()


if __name__ == "__main__":
    react(main, sys.argv[1:])
