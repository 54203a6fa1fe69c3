"""
What a backend is: sessions, their writers, and what is released of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface


class IReleasable(Interface):
    """
    Something that holds a resource of a session, and owns it alone.

    The Ack of Cancel-Session and of Close-Session is written after everything of
    the session is released (MC-BUP 2.2.9, 2.2.11); the Deferreds of these
    releases are the chain at whose end it is written.
    """

    def release() -> Deferred[None]:
        """
        Let go of the resource.

        It may be called again, while an earlier call is under way or after one:
        that what is to go is gone already is success. After a failure, the next
        call goes on where the failed one stopped.

        :returns: A Deferred that fires with ``None`` when the thing is *gone*, not
            when its going has merely begun. It fails with
            :class:`~txbits.errors.BackendError` if something is left.
        """


class IWriter(Interface):
    """
    Appends to the bytes that a session holds.

    A session has at most one writer open. It is used by one caller, who waits for
    each Deferred before the next call.
    """

    def write(data: bytes) -> Deferred[None]:
        """
        Append *data* behind everything written before.

        :param data: One or more bytes. The backend may keep a reference, never
            change them.
        :returns: A Deferred that fires with ``None`` when more may be written. Not
            firing it yet is how a slow store holds the client back. It fails with
            :class:`~txbits.errors.OutOfSpace` or
            :class:`~txbits.errors.BackendError`; the writer must still be closed
            then, and whatever was stored in order is kept.
        """

    def close() -> Deferred[None]:
        """
        End writing: all that was written is stored, and no handle stays open.

        It may be called again; a writer that is closed is closed. A body that was
        cut short is no failure here, the backend just sees fewer bytes.

        :returns: A Deferred that fires with ``None`` when the session's ``offset``
            covers all that was written, and those bytes would be found again after
            the process is killed (and after the machine is, as far as the
            backend was set to promise that): an Ack may follow. It fails with
            :class:`~txbits.errors.BackendError` or
            :class:`~txbits.errors.OutOfSpace` if they would not; ``offset`` then says
            how many bytes there really are.
        """


class IUploadSession(IReleasable):
    """
    One upload in the making: its staged bytes and its record.

    Nothing of it is visible at the destination before :meth:`publish`.
    ``release()`` discards it: an open writer is closed, the staged bytes and the
    record are gone when its Deferred fires, and ``IBackend.find`` no longer finds
    the session. Releasing is remembered: if it fails, or the process dies on the way,
    the session is found again, if at all, with :attr:`releasing` set, or, if it was
    published, as that.
    """

    session_id: UUID = Attribute("The session's id.")
    destination: tuple[str, ...] = Attribute("The destination, as given at creation.")
    owner: str | None = Attribute(
        "The name of the authenticated user who created it; None if anonymous."
    )
    content_name: str | None = Attribute(
        "The client's name for the file, for operators to read. Never a path."
    )
    total: int | None = Attribute(
        "The file's length in bytes; None until a writer has been opened once."
    )
    offset: int = Attribute(
        "How many bytes are held, always a prefix of the file: the offset of the "
        "next byte that is wanted. It counts what an open writer has stored so far."
    )
    last_progress: float = Attribute(
        "When bytes were last stored; the time of creation before that."
    )
    published: bool = Attribute(
        "Whether publish() has succeeded, now or before a restart: the file stands "
        "at its destination, and only release() is left to do."
    )
    releasing: bool = Attribute(
        "Whether release() has been called, now or before a restart: the session is "
        "as good as gone, and only release() is left to do."
    )

    in_doubt: bool = Attribute(
        "Whether bytes that were acknowledged may be missing without a trace: the "
        "session was found after a crash that the store does not promise to survive."
    )

    def open_writer(total: int) -> Deferred[IWriter]:
        """
        Begin to append at :attr:`offset`.

        The first call records *total*, durably; later calls give the same. A store for
        which that is a request of its own may record it with the first bytes, or when
        the writer is closed.

        :param total: The length in bytes that the whole file will have; 0 for an
            empty file, which is complete from then on.
        :returns: A Deferred that fires with the :class:`IWriter`. It fails with
            :class:`~txbits.errors.OutOfSpace` if a file of that length cannot fit,
            :class:`~txbits.errors.StagedDataLost` if bytes that were held are
            gone, or :class:`~txbits.errors.BackendError`.
        """

    def publish(*, overwrite: bool, create_directories: bool) -> Deferred[None]:
        """
        Make the complete file appear at its destination, whole and at once.

        A reader of the destination sees what was there before, or the whole
        new file, never a part. After success, calling it again is success and
        changes nothing, also after a restart. After a failure the session stands
        as it was, so that publishing can be tried again.

        :param overwrite: Whether a file that stands there may be replaced. If not,
            not even one that appears at the last moment is.
        :param create_directories: Whether missing parent directories are made.
        :returns: A Deferred that fires with ``None`` when the file stands there, as
            durably as the backend was set to promise. It fails with
            :class:`~txbits.errors.DestinationExists`,
            :class:`~txbits.errors.DestinationIsDirectory`,
            :class:`~txbits.errors.DestinationForbidden`,
            :class:`~txbits.errors.ParentMissing`,
            :class:`~txbits.errors.OutOfSpace`,
            :class:`~txbits.errors.StagedDataLost` or
            :class:`~txbits.errors.BackendError`.
        """


@frozen
class SessionSummary:
    """
    What clean-up and quotas need to know of a session that may be anywhere.

    :ivar session_id: The session's id.
    :ivar owner: The authenticated user who created it, or ``None``.
    :ivar last_progress: When bytes were last stored, or it was created.
    :ivar releasing: Whether it is published, or its release has begun: all that is left
        to do is to release it.
    :ivar published: Whether it is published, and its release has not begun: where files
        appear before their sessions end, it stays. A store that cannot tell says
        ``False``, and such a session is looked at in each round of the clean-up.
    """

    session_id: UUID
    owner: str | None
    last_progress: float
    releasing: bool = False
    published: bool = False


class IBackend(Interface):
    """
    A place where uploads are staged, and published.

    A backend knows storage and nothing of HTTP. It is asked about a session only by
    one caller at a time, except that :meth:`create` and :meth:`find` of different
    sessions, and :meth:`sessions`, may overlap with anything; and that replies may be
    opened, and read, beside anything else but the release of their session.
    """

    def start() -> Deferred[None]:
        """
        Get ready; called once, before anything else and before anything listens.

        The Deferred is cancelled when the server is to stop before it has fired: what
        has been begun is then ended, and it fails.

        :returns: A Deferred that fires with ``None``. It fails with
            :class:`~txbits.errors.BackendError`, whose text is one line that tells
            an operator what to do, if this backend cannot work as configured.
        """

    def stop() -> Deferred[None]:
        """
        Let go of everything that is not a session: threads, locks, connections.

        Sessions stay, if the store outlives the process. Called once, last.

        :returns: A Deferred that fires with ``None`` when all is gone.
        """

    def create(
        session_id: UUID,
        destination: tuple[str, ...],
        *,
        owner: str | None,
        content_name: str | None,
        overwrite: bool,
        create_directories: bool,
    ) -> Deferred[IUploadSession]:
        """
        Make the staging state of a new upload.

        Nothing becomes visible at the destination. What would make
        publishing fail later and can be known now is refused now.

        :param session_id: A new random id.
        :param destination: Where the file will go.
        :param owner: The authenticated user; ``None`` if anonymous.
        :param content_name: The client's name for the file, at most 260 characters.
        :param overwrite: Whether a file that stands at the destination is all right.
        :param create_directories: Whether missing parent directories are all right.
            They are made when publishing.
        :returns: A Deferred that fires with the :class:`IUploadSession` when a
            restarted process would find it. It fails with
            :class:`~txbits.errors.DestinationForbidden`,
            :class:`~txbits.errors.DestinationIsDirectory`,
            :class:`~txbits.errors.DestinationExists`,
            :class:`~txbits.errors.ParentMissing`,
            :class:`~txbits.errors.OutOfSpace` or
            :class:`~txbits.errors.BackendError`.
        """

    def find(session_id: UUID) -> Deferred[IUploadSession]:
        """
        Look a session up that this process may not know yet, as after a restart.

        :returns: A Deferred that fires with the :class:`IUploadSession`, its
            ``offset`` measured from the bytes that are there. It fails with
            :class:`~txbits.errors.NoSuchSession`, or with
            :class:`~txbits.errors.BackendError` where that is not certain.
        """

    def sessions() -> Deferred[Sequence[SessionSummary]]:
        """
        List all sessions of the store, for clean-up and quotas.

        :returns: A Deferred that fires with a :class:`SessionSummary` for each session
            that :meth:`find` would find. It fails with
            :class:`~txbits.errors.BackendError`.
        """

    def remember_close(
        session_id: UUID, destination: tuple[str, ...], owner: str | None
    ) -> Deferred[None]:
        """
        Keep a small record that this session was closed with success.

        A client whose Ack was lost sends Close-Session again, and would upload
        everything again if it were then told that its session is unknown. The record
        takes less than 1 KiB, and outlives the process if sessions do.

        :returns: A Deferred that fires with ``None`` when the record is stored. It
            fails with :class:`~txbits.errors.BackendError`.
        """

    def recalls_close(
        session_id: UUID, destination: tuple[str, ...], owner: str | None
    ) -> Deferred[bool]:
        """
        Tell whether :meth:`remember_close` was called with just these arguments.

        :returns: A Deferred that fires with ``True`` if so and :meth:`clean_up` has
            not forgotten it since. It fails with
            :class:`~txbits.errors.BackendError`.
        """

    def clean_up(closed_before: float) -> Deferred[None]:
        """
        Forget old closes, and remove what belongs to no session.

        That is what a process that was killed left half made or half
        released. Sessions that are found are not touched.

        :param closed_before: Closes remembered before this time are forgotten.
        :returns: A Deferred that fires with ``None``. It fails with
            :class:`~txbits.errors.BackendError`.
        """
