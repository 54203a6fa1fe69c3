"""
The client: uploads to any BITS server, and downloads.

:func:`upload` uploads a file. An :class:`UploadJob` can also be paused, resumed and
cancelled. :func:`download` downloads a file. The command line is ``txbits``
(:mod:`txbits.client.cli`). The client shares only the protocol with the server.
"""

from txbits.client._journals import open_journal
from txbits.client._url import InvalidURL
from txbits.client.downloader import download
from txbits.client.events import (
    Created,
    DownloadFailed,
    DownloadResult,
    Event,
    Paused,
    Progress,
    TransferFailed,
    Unlocked,
    UploadCancelled,
    UploadFailed,
    UploadResult,
    Waiting,
)
from txbits.client.job import UploadJob, upload
from txbits.client.journal import Journal, JournalBusy, JournalError
from txbits.client.settings import ConnectionSettings, Credentials, InvalidSettings
from txbits.client.source import FileSource, ISource, SourceChanged, SourceError

__all__ = [
    "ConnectionSettings",
    "Created",
    "Credentials",
    "DownloadFailed",
    "DownloadResult",
    "Event",
    "FileSource",
    "ISource",
    "InvalidSettings",
    "InvalidURL",
    "Journal",
    "JournalBusy",
    "JournalError",
    "Paused",
    "Progress",
    "SourceChanged",
    "SourceError",
    "TransferFailed",
    "Unlocked",
    "UploadCancelled",
    "UploadFailed",
    "UploadJob",
    "UploadResult",
    "Waiting",
    "download",
    "open_journal",
    "upload",
]
