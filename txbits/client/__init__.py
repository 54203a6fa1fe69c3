"""
The other end: uploads to a BITS server, ours or another's, and downloads.

:func:`upload` is for those who want a file to arrive; an :class:`UploadJob` can be
paused, resumed and cancelled as well. :func:`download` is the other direction.
``txbits`` is a command line for them (:mod:`txbits.client.cli`). All of it shares the
protocol with the server, and nothing else.
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
