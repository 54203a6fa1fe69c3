"""
What not every store can do: optional interfaces of backends and their sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from zope.interface import Attribute, Interface
from zope.interface.interface import InterfaceClass

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

    Notification by value, and digests of an upload, need it.
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
    An optional ability of an :class:`IUploadSession`: another program can find it.

    Notification by reference needs it.
    """

    def address() -> str:
        """
        Tell where the staged bytes can be read, once the upload is complete.

        :returns: An absolute path of a file, or a URL.
        """


class IExclusive(Interface):
    """
    An optional ability of an :class:`IBackend`: it knows what must be its alone.

    Two virtual directories of a server cannot have backends that dispute a place.
    """

    def disputes(other: IBackend) -> bool:
        """
        Tell whether another backend would meddle with what is this one's, or this one
        with what is the other's. Asked before either is started; it looks at nothing
        but how they were made.

        :param other: A backend of any kind.
        """


class IOverwriting(Interface):
    """
    An optional ability of an :class:`IBackend`: it knows whether it can publish without
    overwriting.

    Some file systems have no way to put a file to its place only if nothing stands
    there. One that is asked to do that all the same, by a directory that does not allow
    overwriting, is not started.
    """

    def why_only_overwriting() -> str | None:
        """
        Tell why files can be published only where overwriting is allowed.

        It is found out by ``IBackend.start``; before that, ``None``.

        :returns: One line that tells an operator what to do; ``None`` if both can be.
        """


class IPaged(Interface):
    """
    An optional ability of an :class:`IBackend`: it lists its sessions a few at a time,
    for stores that may have a great many.

    The Deferreds of :meth:`list_in_pages` and of ``IBackend.clean_up`` are cancelled
    when the server stops.
    """

    def list_in_pages(
        look: Callable[[Sequence[SessionSummary]], Deferred[None]],
    ) -> Deferred[None]:
        """
        List all sessions of the store, like ``IBackend.sessions``.

        Sessions that are made or end meanwhile may be listed, or not.

        :param look: Called with one page after another, each of a few hundred sessions
            at most; the next is read when its Deferred has fired.
        :returns: A Deferred that fires with ``None`` after the last page. It fails with
            :class:`~txbits.errors.BackendError`, or as *look* does, which ends it.
        """


class IShared(Interface):
    """
    An optional ability of an :class:`IBackend`: other processes act in its sessions
    too.

    What this process knows of a session may be behind. All its sessions provide
    :class:`IRefreshable`; ``IBackend.find`` is asked for each packet, and may answer
    from what it knows. The Deferreds of ``IBackend.sessions`` and ``IBackend.clean_up``
    are cancelled when the server stops: the store may be away.
    """


class IRefreshable(Interface):
    """
    An optional ability of an :class:`IUploadSession`: to find out what is new.

    Nothing final is said before: that a fragment is out of step, that an upload is not
    complete, or what is left to release.
    """

    def give_up(*, closed: bool) -> Deferred[bool]:
        """
        Begin the end of the session, if it still is as :meth:`refresh` has found it.

        Asked before a session is released for how it stands: because it is not
        complete, because bytes of it are lost, or because its time is out. From then on
        no process acknowledges anything more of it; ``IBackend.remember_close`` and
        ``release()`` follow, here or, if this process dies, in another one.

        :param closed: Whether that is a success of Close-Session.
        :returns: A Deferred that fires with ``True`` when the end has begun, and with
            ``False`` if another process has moved the session on: then nothing was
            done, and all attributes are as :meth:`refresh` would leave them. It fails
            with :class:`~txbits.errors.NoSuchSession` if the session is gone, or
            closed; or with :class:`~txbits.errors.BackendError`, as when a success is
            asked for and less is found than was acknowledged. The session stands then.
        """

    def refresh() -> Deferred[None]:
        """
        Find out what other processes have changed.

        Not called while a writer is open.

        :returns: A Deferred that fires with ``None`` when all attributes are as the
            store has them. It fails with :class:`~txbits.errors.NoSuchSession` if the
            session is gone, or closed; or with :class:`~txbits.errors.BackendError`.
        """


class IAbilities(Interface):
    """
    An optional ability of an :class:`IBackend`: it tells what its sessions can do.

    A setting that needs what they cannot is refused at start.
    """

    session_abilities: Set[InterfaceClass] = Attribute(
        "The optional interfaces that every session of it provides, as configured."
    )


class IStoredFile(IReleasable):
    """
    A file that was opened to be served, such as a reply or a published file.

    It goes on showing what was opened, or reading fails, when another file takes its
    place. ``release()`` closes it; a reading that is under way fails then.
    """

    length: int = Attribute("Its length in bytes.")
    modified: float = Attribute(
        "When it was last changed. It stays the same for as long as the file does."
    )
    etag: str | None = Attribute(
        "An entity tag without its quotes (RFC 9110 8.8.3): a different one for each "
        "content that the file has ever had, and the same one for as long as the "
        "content stays. None if there is none yet."
    )
    is_weak: bool = Attribute(
        "Whether the content might change again without a change of the tag, as it may "
        "right after a change. A file without this attribute has strong tags."
    )

    def read_into(consumer: IConsumer, start: int, end: int) -> Deferred[None]:
        """
        Write the bytes from *start* up to, not including, *end* to *consumer*.

        One reading at a time; another may follow.

        :param consumer: It is given a push producer, which it may pause and stop.
        :param start: Offset of the first byte.
        :param end: Offset behind the last byte, at most :attr:`length`.
        :returns: A Deferred that fires with ``None`` when all was written and the
            producer unregistered. It fails with
            :class:`~txbits.errors.StagedDataLost` if the bytes are gone or others,
            or with :class:`~txbits.errors.BackendError`.
        """


class ICodedFile(IStoredFile):
    """
    A file that may be stored in a coded form, such as by gzip.

    Everything about it is of the coded form: bytes, length and entity tag.
    """

    content_encoding: str | None = Attribute(
        "The codings, as in Content-Encoding (RFC 9110 8.4); ``None`` if it has none."
    )


class IDownloadable(Interface):
    """
    An optional ability of an :class:`IBackend`: published files can be read.

    Downloads (MC-BUP 2.3, 3.5) need it.
    """

    def open_file(destination: tuple[str, ...]) -> Deferred[IStoredFile]:
        """
        Open the file that stands at a destination.

        Whatever stands there counts, also what was not uploaded; but nothing of the
        staging area, nothing outside the root, and nothing that is no plain file.

        :param destination: Not checked yet.
        :returns: A Deferred that fires with the :class:`IStoredFile`. It fails with
            :class:`~txbits.errors.NoSuchFile`,
            :class:`~txbits.errors.DestinationForbidden`,
            :class:`~txbits.errors.DestinationIsDirectory` or
            :class:`~txbits.errors.BackendError`.
        """


class IRedirecting(Interface):
    """
    An optional ability of an :class:`IBackend`: clients can be sent to its own URLs.
    """

    def location(destination: tuple[str, ...], method: str) -> Deferred[str | None]:
        """
        Tell where a client can fetch a published file without us.

        :param destination: Not checked yet.
        :param method: ``"GET"`` or ``"HEAD"``; the URL may be good for that only.
        :returns: A Deferred that fires with an absolute URL, or with ``None`` if the
            file is to be served by us. It fails as ``IDownloadable.open_file`` does.
        """


class IAnswerable(Interface):
    """
    An optional ability of an :class:`IUploadSession`: it keeps what a server
    application answered, and the application's reply.

    Notification needs it. All of it goes with the session's ``release()``.
    """

    attempts: int = Attribute(
        "How often an application was asked, before a restart too."
    )
    answer: Answer | None = Attribute(
        "What it answered for good; None as long as it is to be asked."
    )

    def begin_attempt() -> Deferred[int]:
        """
        Record that the application is about to be asked.

        What is left of the reply of an earlier attempt is discarded.

        :returns: A Deferred that fires with the number of the attempt, from 1 on, when
            a restarted process would count on from there. It fails with
            :class:`~txbits.errors.BackendError`.
        """

    def open_reply() -> Deferred[IWriter]:
        """
        Begin to write a reply; once in an attempt.

        :returns: A Deferred that fires with the writer; the reply ends where that is
            closed. It fails with :class:`~txbits.errors.BackendError`, and the writer
            as any does.
        """

    def keep_answer(answer: Answer) -> Deferred[None]:
        """
        Record what the application answered; it is not asked again.

        :param answer: The answer; whether there is a reply is found out here.
        :returns: A Deferred that fires with ``None`` when :attr:`answer` is that, and
            would be after the process is killed, with the whole reply if it has one
            (and after the machine is, as far as the backend was set to promise
            that). It fails with :class:`~txbits.errors.BackendError`.
        """

    def reply() -> Deferred[IStoredFile]:
        """
        Open the reply of an answer that has one.

        :returns: A Deferred that fires with the :class:`IStoredFile`. It fails with
            :class:`~txbits.errors.NoSuchFile` if there is no reply, or with
            :class:`~txbits.errors.BackendError`.
        """


class IReplyAddressable(Interface):
    """
    An optional ability of an :class:`IAnswerable` session: another program can write
    the reply.
    """

    def reply_address() -> str:
        """
        Tell where a reply may be written.

        :returns: An absolute path of a file, or a URL.
        """

    def has_reply() -> Deferred[bool]:
        """
        Look whether somebody has written one.

        :returns: A Deferred that fires with ``True`` if there is a plain file. It fails
            with :class:`~txbits.errors.BackendError`.
        """
