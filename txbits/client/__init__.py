"""
The other end: uploads to a BITS server, ours or another's.

:func:`upload` is the whole of it; ``txbits upload`` is a command line for it
(:mod:`txbits.client.cli`). It shares the protocol with the server, and nothing else.
"""

from txbits.client._url import InvalidURL
from txbits.client.source import FileSource, ISource, SourceChanged, SourceError
from txbits.client.uploader import (
    Event,
    Progress,
    UploadFailed,
    UploadResult,
    Waiting,
    upload,
)

__all__ = [
    "Event",
    "FileSource",
    "ISource",
    "InvalidURL",
    "Progress",
    "SourceChanged",
    "SourceError",
    "UploadFailed",
    "UploadResult",
    "Waiting",
    "upload",
]
