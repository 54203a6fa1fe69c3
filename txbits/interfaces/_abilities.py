"""
Optional interfaces of backends and their sessions, for what not every store can do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from uuid import UUID

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from zope.interface import Attribute, Interface
from zope.interface.interface import InterfaceClass

from txbits._workers import Worker
from txbits.interfaces._notification import Answer
from txbits.interfaces._storage import (
    IBackend,
    IReleasable,
    IWriter,
    SessionSummary,
)


class IReadable(Interface):
    """
    An optional ability of an :class:`IUploadSession`: its bytes can be read back.

    Notification by value, and digests of uploads, require it.
    """

    def read_into(consumer: IConsumer, start: int, end: int) -> Deferred[None]:
        """
        Write the bytes from *start* up to, not including, *end* to *consumer*.

        :param consumer: It is given a producer, which it may pause and stop.
        :param start: Offset of the first byte.
        :param end: Offset behind the last byte, at most the session's ``offset``.
        :returns: A Deferred that fires with ``None`` when all was written and the
            producer unregistered. It fails with
            :class:`~txbits.errors.StagedDataLost` or
            :class:`~txbits.errors.BackendError`.
        """


class IAddressable(Interface):
    """
    An optional ability of an :class:`IUploadSession`: other programs can find it.

    Notification by reference requires it.
    """

    def address() -> str:
        """
        Tell where the staged bytes can be read, once the upload is complete.

        :returns: An absolute path of a file, or a URL.
        """


class IExclusive(Interface):
    """
    An optional ability of an :class:`IBackend`: it knows which places it must own
    alone.

    Two virtual directories of a server cannot have backends that dispute a place.
    """

    def disputes(other: IBackend) -> bool:
        """
        Tell whether one of two backends would change what belongs to the other. Called
        before either is started; it only looks at how they are configured.

        :param other: A backend of any kind.
        """


class IOverwriting(Interface):
    """
    An optional ability of an :class:`IBackend`: it knows whether it can publish without
    overwriting.

    Some file systems have no operation that creates a file only if none exists. On
    those, a directory that does not allow overwriting is not started.
    """

    def why_only_overwriting() -> str | None:
        """
        Tell why files can be published only where overwriting is allowed.

        ``IBackend.start`` finds this out; before that, it is ``None``.

        :returns: One line that tells an operator what to do; ``None`` if files can be
            published without overwriting.
        """


class IPaged(Interface):
    """
    An optional ability of an :class:`IBackend`: it lists its sessions a few at a time,
    for stores that may have very many.

    The Deferreds of :meth:`list_in_pages` and of ``IBackend.clean_up`` are cancelled
    when the server stops.
    """

    def list_in_pages(
        look: Callable[[Sequence[SessionSummary]], Deferred[None]],
    ) -> Deferred[None]:
        """
        List all sessions of the store, like ``IBackend.sessions``.

        Sessions that are created or end meanwhile may or may not be listed.

        :param look: Called with one page after another, each of a few hundred sessions
            at most; the next is read when its Deferred has fired.
        :returns: A Deferred that fires with ``None`` after the last page. It fails with
            :class:`~txbits.errors.BackendError`, or as *look* does, which ends it.
        """


@frozen(kw_only=True)
class SessionDetails:
    """
    The details of a session that operators see, as far as a listing has them. The
    attributes are those of :class:`IUploadSession`, except for these:

    :ivar created: When the session was created, in seconds since the epoch; ``None`` if
        it is not recorded.
    :ivar offset: ``None`` if the listing does not say how many bytes are stored.
    :ivar attempts: How often a server application was asked.
    :ivar answer: Its final answer, if there is one.
    """

    session_id: UUID
    destination: tuple[str, ...]
    owner: str | None
    content_name: str | None
    created: float | None
    total: int | None
    offset: int | None
    last_progress: float
    published: bool = False
    releasing: bool = False
    in_doubt: bool = False
    attempts: int = 0
    answer: Answer | None = None


class ISorted(Interface):
    """
    An optional ability of an :class:`IBackend`: it lists its sessions in the order of
    their ids, from any position, so that operators can go from page to page.

    Without it, each page requires a listing of the whole store, and has only what
    :class:`SessionSummary` has.
    """

    def list_after(
        session_id: UUID | None, limit: int
    ) -> Deferred[tuple[Sequence[SessionDetails], UUID | None]]:
        """
        List some sessions, without reading their staged bytes.

        :param session_id: List sessions with greater ids than this; ``None`` to begin
            with the lowest. There need not be such a session.
        :param limit: How many are listed at most.
        :returns: A Deferred that fires with the sessions, in the order of their ids,
            and with the id to continue after, ``None`` if there are no more. The page
            may be shorter than the limit, or even empty. A session that exists from
            the first page until the page in which its id falls is on that page. The
            Deferred fails with :class:`~txbits.errors.BackendError`.
        """

    def details_of(session_id: UUID) -> Deferred[SessionDetails]:
        """
        Look up one session, with the same details as in a list.

        :returns: A Deferred that fires with its details. It fails with
            :class:`~txbits.errors.NoSuchSession` or
            :class:`~txbits.errors.BackendError`.
        """


class IShared(Interface):
    """
    An optional ability of an :class:`IBackend`: other processes act in its sessions
    too.

    What this process knows of a session may be outdated. All its sessions provide
    :class:`IRefreshable`; ``IBackend.find`` is called for each packet, and may return
    what it knows. The Deferreds of ``IBackend.sessions`` and ``IBackend.clean_up``
    are cancelled when the server stops, since the store may not respond.
    """


class IPartitioned(Interface):
    """
    An optional ability of an :class:`IBackend`: several processes use its store, and
    each session belongs to one of them.

    With several workers, a packet that reaches another process than the one that has
    its session is passed on. A backend that is :class:`IShared` does not need this.
    """

    worker: Worker = Attribute(
        "Which of the processes this one is; see BackendContext."
    )

    def new_id() -> UUID:
        """Make the id for a session that this process is about to create."""

    def worker_of(session_id: UUID) -> int:
        """
        Return which process has a session, from the id alone.

        :returns: The number of the process, if there is such a session.
        """


class IRefreshable(Interface):
    """
    An optional ability of an :class:`IUploadSession`: to find out what other processes
    have changed.

    That is done before any final decision: that a fragment is out of step, that an
    upload is not complete, or what is left to release.
    """

    def give_up(*, closed: bool) -> Deferred[bool]:
        """
        Begin the end of the session, if it has not changed since :meth:`refresh`.

        Called before a session is released because of its state: because it is not
        complete, because bytes of it are lost, or because its time is out. From then on
        no process acknowledges anything more of it; ``release()`` follows, here or, if
        this process is killed, in another one.

        :param closed: Whether that is a success of Close-Session.
        :returns: A Deferred that fires with ``True`` when the end has begun, and with
            ``False`` if another process has changed the session: then nothing was
            done, and all attributes are as :meth:`refresh` would leave them. It fails
            with :class:`~txbits.errors.NoSuchSession` if the session is gone, or
            closed; or with :class:`~txbits.errors.BackendError`, for example if
            *closed* is true and the store has fewer bytes than were acknowledged. The
            session is unchanged then.
        """

    def refresh() -> Deferred[None]:
        """
        Find out what other processes have changed.

        Not called while a writer is open.

        :returns: A Deferred that fires with ``None`` when all attributes are as the
            store has them. It fails with :class:`~txbits.errors.NoSuchSession` if the
            session is gone, or closed; or with :class:`~txbits.errors.BackendError`.
        """


class IClaim(Interface):
    """What a session got that may be published; see :class:`IClaimable`."""

    def withdraw() -> Deferred[None]:
        """
        Let other sessions have the claim, since nothing was published.

        If another process has claimed it for the same session since, this does nothing.

        :returns: A Deferred that fires with ``None``. It fails with
            :class:`~txbits.errors.BackendError`; the session may have the claim then.
        """


class IClaimable(Interface):
    """
    An optional ability of an :class:`IBackend`: of all sessions that need the same
    claim, only one is ever published.

    Upload links that are good once require it. A claim outlives processes, as sessions
    do, and the end of the session that has it. ``IBackend.clean_up`` removes claims
    whose time is over.
    """

    def claim(name: str, session_id: UUID, until: float) -> Deferred[IClaim | None]:
        """
        Take a claim for a session, before it is published.

        :param name: Any text. What is stored under it is not shown to anyone.
        :param session_id: The session. It may claim again, also after a restart.
        :param until: When nobody needs the claim any more, in seconds since the epoch.
        :returns: A Deferred that fires with the :class:`IClaim` when a restarted
            process, after a system crash as well, would know that the session has it;
            with ``None`` if another session has it. It fails with
            :class:`~txbits.errors.BackendError`; the session may have it then.
        """

    def is_claimed(name: str) -> Deferred[bool]:
        """
        Tell whether any session has a claim.

        :returns: A Deferred that fires with the answer. It fails with
            :class:`~txbits.errors.BackendError`.
        """


class IAbilities(Interface):
    """
    An optional ability of an :class:`IBackend`: it tells what its sessions can do.

    A setting that requires other abilities is refused at start.
    """

    session_abilities: Set[InterfaceClass] = Attribute(
        "The optional interfaces that each of its sessions provides, as configured."
    )


class IStoredFile(IReleasable):
    """
    A file that was opened to be served, such as a reply or a published file.

    If another file takes its place, it keeps the content that was opened, or reading
    fails. ``release()`` closes it; a reading that is under way fails then.
    """

    length: int = Attribute("Its length in bytes.")
    modified: float = Attribute(
        "When it was last changed. It is constant as long as the file is unchanged."
    )
    etag: str | None = Attribute(
        "An entity tag without its quotes (RFC 9110 8.8.3): different for each content "
        "that the file has ever had, and constant as long as the content is unchanged. "
        "None if there is none yet."
    )
    is_weak: bool = Attribute(
        "Whether the content might change without a change of the tag, as it may right "
        "after another change. A file without this attribute has strong tags."
    )

    def read_into(consumer: IConsumer, start: int, end: int) -> Deferred[None]:
        """
        Write the bytes from *start* up to, not including, *end* to *consumer*.

        Only one call may be under way at a time.

        :param consumer: It is given a push producer, which it may pause and stop.
        :param start: Offset of the first byte.
        :param end: Offset behind the last byte, at most :attr:`length`.
        :returns: A Deferred that fires with ``None`` when all was written and the
            producer unregistered. It fails with
            :class:`~txbits.errors.StagedDataLost` if the bytes are gone or changed,
            or with :class:`~txbits.errors.BackendError`.
        """


class IEagerConsumer(Interface):
    """
    An optional ability of a consumer: it can use bytes without keeping them.

    ``read_into()`` of an :class:`IStoredFile` may be given one. It may then write bytes
    of a buffer that it uses again, and saves a copy.
    """

    def write_some(data: memoryview) -> int:
        """
        Use the first of these bytes now, as far as that is possible at once.

        :param data: May change after the call.
        :returns: How many were used. The others have to be passed to ``write()``, or,
            while the producer is not paused, here again.
        """


class IEagerWriter(IWriter):
    """
    An optional ability of a writer: it can store bytes without keeping them.

    The long pieces of a Fragment then arrive in memory that is used again.
    """

    def store(data: memoryview) -> None:
        """
        As ``write()``, but everything is stored when this returns.

        :param data: May change after the call.
        :raises OutOfSpace: As ``write()`` fails.
        :raises BackendError: As ``write()`` fails.
        """


class ICodedFile(IStoredFile):
    """
    A file that may be stored with a content coding, such as gzip.

    Bytes, length and entity tag are those of the coded form.
    """

    content_encoding: str | None = Attribute(
        "The codings, as in Content-Encoding (RFC 9110 8.4); None if it has none."
    )


class IDownloadable(Interface):
    """
    An optional ability of an :class:`IBackend`: published files can be read.

    Downloads (MC-BUP 2.3, 3.5) require it.
    """

    def open_file(destination: tuple[str, ...]) -> Deferred[IStoredFile]:
        """
        Open the file at a destination.

        It need not have been uploaded; but it must be a plain file inside the root and
        outside the staging area.

        :param destination: Not checked yet.
        :returns: A Deferred that fires with the :class:`IStoredFile`. It fails with
            :class:`~txbits.errors.NoSuchFile`,
            :class:`~txbits.errors.DestinationForbidden`,
            :class:`~txbits.errors.DestinationIsDirectory` or
            :class:`~txbits.errors.BackendError`.
        """


class IRedirecting(Interface):
    """
    An optional ability of an :class:`IBackend`: clients can be redirected to its own
    URLs.
    """

    def location(destination: tuple[str, ...], method: str) -> Deferred[str | None]:
        """
        Tell where a client can fetch a published file directly.

        :param destination: Not checked yet.
        :param method: ``"GET"`` or ``"HEAD"``; the URL may be valid only for that.
        :returns: A Deferred that fires with an absolute URL, or with ``None`` if
            txbits is to serve the file. It fails as ``IDownloadable.open_file`` does.
        """


class IAnswerable(Interface):
    """
    An optional ability of an :class:`IUploadSession`: it keeps the answer and the reply
    of a server application.

    Notification requires it. The session's ``release()`` removes both.
    """

    attempts: int = Attribute(
        "How often an application was asked, also before a restart."
    )
    answer: Answer | None = Attribute(
        "Its final answer; None as long as it is to be asked."
    )

    def begin_attempt() -> Deferred[int]:
        """
        Record that the application is about to be asked.

        The remains of a reply to an earlier attempt are discarded.

        :returns: A Deferred that fires with the number of the attempt, from 1 on, when
            a restarted process would count on from there. It fails with
            :class:`~txbits.errors.BackendError`.
        """

    def open_reply() -> Deferred[IWriter]:
        """
        Begin to write a reply; called at most once in an attempt.

        :returns: A Deferred that fires with the writer; the reply is complete when that
            is closed. It fails with :class:`~txbits.errors.BackendError`.
        """

    def keep_answer(answer: Answer) -> Deferred[None]:
        """
        Record what the application answered; it is not asked again.

        :param answer: The answer. Its ``has_reply`` is ignored: the session itself
            finds out whether a reply is stored.
        :returns: A Deferred that fires with ``None`` when :attr:`answer` is set, and
            would be after the process is killed, with the whole reply if it has one
            (and after a crash of the machine, as far as the backend was configured to
            promise that). It fails with :class:`~txbits.errors.BackendError`.
        """

    def reply() -> Deferred[IStoredFile]:
        """
        Open the reply.

        :returns: A Deferred that fires with the :class:`IStoredFile`. It fails with
            :class:`~txbits.errors.NoSuchFile` if there is no reply, or with
            :class:`~txbits.errors.BackendError`.
        """


@frozen
class RequestCount:
    """
    Requests to a store.

    :ivar requests: How many there were.
    :ivar seconds: How long they took in all, until the head of a response or its end.
    """

    requests: int
    seconds: float


class ICounting(Interface):
    """
    An optional ability of an :class:`IBackend`: it counts the requests that it sends to
    a store, for the metrics.
    """

    def request_counts() -> Mapping[tuple[str, str], RequestCount]:
        """
        Tell how many requests were sent since the start. It may be called at any time.

        :returns: The counts by the kind of request and the status of the response:
            names that do not depend on clients, of which there are few.
        """


class ICleaning(Interface):
    """
    An optional ability of an :class:`IBackend`: it counts what its ``clean_up``
    removes, for the metrics.
    """

    def removed_counts() -> Mapping[str, int]:
        """
        Return how much was removed since the start. It may be called at any time.

        :returns: The counts by kind: ``"close"`` for closes that were forgotten,
            ``"claim"`` for claims, ``"stray"`` for files or objects that belonged to
            no session, ``"upload"`` for abandoned multipart uploads. A kind that a
            backend does not have is missing.
        """


class IReplyAddressable(Interface):
    """
    An optional ability of an :class:`IAnswerable` session: another program can write
    the reply.
    """

    def reply_address() -> str:
        """
        Tell where another program may write a reply.

        :returns: An absolute path of a file, or a URL.
        """

    def has_reply() -> Deferred[bool]:
        """
        Find out whether a reply was written.

        :returns: A Deferred that fires with ``True`` if a plain file exists. It fails
            with :class:`~txbits.errors.BackendError`.
        """
