"""
The interfaces between txbits and what plugs into it.

They use plain Python types: a session is identified by a :class:`uuid.UUID`, a
destination is a tuple of path segments, bytes are :class:`bytes`. Packets, statuses and
headers of the protocol do not appear here, so a backend can be written from these
docstrings alone. :class:`txbits.testing.BackendContract` tests every sentence below; a
backend that passes it can be trusted with uploads.

A method that returns a Deferred must never raise: its Deferred *fails*, with one of
:mod:`txbits.errors`. Nothing here may block the reactor's thread.

**Destinations** are tuples of segments below the virtual directory, such as
``("logs", "host1", "today.log")``, percent-decoded from UTF-8, and *not* yet
checked: a segment may be ``".."``, may be empty, and may contain a slash or a NUL. A
backend refuses names that it cannot store with
:class:`~txbits.errors.DestinationForbidden`;
:func:`txbits.backends.checked_segments` makes the checks that all backends need.

**Times** are seconds since the epoch, by the wall clock as it is set at the moment:
``time.time()``, or the clock that :func:`txbits.clocks.wall_of` returns for a reactor.
``IReactorTime.seconds()`` is for pauses and time-outs: it ignores changes of the wall
clock.
"""

from __future__ import annotations

from txbits._workers import Worker
from txbits.interfaces._abilities import (
    IAbilities,
    IAddressable,
    IAnswerable,
    IClaim,
    IClaimable,
    ICleaning,
    ICodedFile,
    ICounting,
    IDownloadable,
    IEagerConsumer,
    IEagerWriter,
    IExclusive,
    IOverwriting,
    IPaged,
    IPartitioned,
    IReadable,
    IRedirecting,
    IRefreshable,
    IReplyAddressable,
    IShared,
    ISorted,
    IStoredFile,
    RequestCount,
    SessionDetails,
)
from txbits.interfaces._access import (
    FULL_GRANT,
    Credentials,
    Grant,
    IAccessPolicy,
    IAuthenticator,
    IAuthenticatorParser,
    Identity,
    IKnowing,
    IRelayable,
    IRemembering,
    Scope,
    checked_user_name,
    contains,
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
from txbits.interfaces._reloadable import ICertified, IReloadable
from txbits.interfaces._storage import (
    ANY_OWNER,
    AnyOwner,
    IBackend,
    IReleasable,
    IUploadSession,
    IWriter,
    SessionSummary,
)

__all__ = [
    "ANY_OWNER",
    "FULL_GRANT",
    "Answer",
    "AnyOwner",
    "BackendContext",
    "CompleteUpload",
    "Credentials",
    "Grant",
    "IAbilities",
    "IAccessPolicy",
    "IAddressable",
    "IAnswerable",
    "IAuthenticator",
    "IAuthenticatorParser",
    "IBackend",
    "IBackendParser",
    "ICertified",
    "IClaim",
    "IClaimable",
    "ICleaning",
    "ICodedFile",
    "ICounting",
    "IDownloadable",
    "IEagerConsumer",
    "IEagerWriter",
    "IExclusive",
    "IKnowing",
    "INotifier",
    "IOverwriting",
    "IPaged",
    "IPartitioned",
    "IPublicationObserver",
    "IReadable",
    "IRedirecting",
    "IRefreshable",
    "IRelayable",
    "IReleasable",
    "IReloadable",
    "IRemembering",
    "IReply",
    "IReplyAddressable",
    "IShared",
    "ISorted",
    "IStoredFile",
    "IUploadSession",
    "IWriter",
    "Identity",
    "PublishedUpload",
    "RequestCount",
    "Scope",
    "SessionDetails",
    "SessionSummary",
    "Worker",
    "checked_user_name",
    "contains",
]
