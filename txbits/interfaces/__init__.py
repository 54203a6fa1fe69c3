"""
The walls between txbits and what is plugged into it.

Everything here speaks plain Python: a session is known by a :class:`uuid.UUID`,
a destination is a tuple of path segments, bytes are :class:`bytes`. No packet, no
status and no header of the protocol crosses these interfaces, so a backend
can be written from these docstrings alone. :class:`txbits.testing.BackendContract`
turns every sentence below into a test; a backend that passes it can be trusted
with uploads.

Every method that returns a Deferred may also raise nothing: it *fails*, with
one of :mod:`txbits.errors`. Nothing here may block the reactor's thread.

**Destinations** are tuples of segments below the virtual directory, such as
``("logs", "host1", "today.log")``, percent-decoded from UTF-8, and *not* yet
checked: a segment may be ``".."``, may be empty, and may hold a slash or a NUL. A
backend refuses what it cannot store with
:class:`~txbits.errors.DestinationForbidden`;
:func:`txbits.backends.checked_segments` does the part of it that is the same
everywhere.

**Times** are seconds since the epoch, by the wall clock as it is set at the moment:
``time.time()``, or what :func:`txbits.clocks.wall_of` finds for a reactor.
``IReactorTime.seconds()`` is for pauses and time-outs: it does not follow a clock that
is set.
"""

from __future__ import annotations

from txbits.interfaces._abilities import (
    IAbilities,
    IAddressable,
    IAnswerable,
    ICodedFile,
    IDownloadable,
    IExclusive,
    IOverwriting,
    IPaged,
    IReadable,
    IRedirecting,
    IRefreshable,
    IReplyAddressable,
    IShared,
    IStoredFile,
)
from txbits.interfaces._notification import (
    Answer,
    CompleteUpload,
    INotifier,
    IPublicationObserver,
    IReply,
    PublishedUpload,
)
from txbits.interfaces._plugin import (
    BackendContext,
    IBackendParser,
)
from txbits.interfaces._policy import (
    IAccessPolicy,
)
from txbits.interfaces._storage import (
    IBackend,
    IReleasable,
    IUploadSession,
    IWriter,
    SessionSummary,
)

__all__ = [
    "Answer",
    "BackendContext",
    "CompleteUpload",
    "IAbilities",
    "IAccessPolicy",
    "IAddressable",
    "IAnswerable",
    "IBackend",
    "IBackendParser",
    "ICodedFile",
    "IDownloadable",
    "IExclusive",
    "INotifier",
    "IOverwriting",
    "IPaged",
    "IPublicationObserver",
    "IReadable",
    "IRedirecting",
    "IRefreshable",
    "IReleasable",
    "IReply",
    "IReplyAddressable",
    "IShared",
    "IStoredFile",
    "IUploadSession",
    "IWriter",
    "PublishedUpload",
    "SessionSummary",
]
