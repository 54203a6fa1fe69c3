"""
Backends, their sessions, and the writers of sessions.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from uuid import UUID

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface


class IReleasable(Interface):
    """
    The owner of a resource of a session.

    The Ack of Cancel-Session and of Close-Session is written after everything of
    the session is released (MC-BUP 2.2.9, 2.2.11), when the Deferreds of all these
    releases have fired.
    """

    def release() -> Deferred[None]:
        """
        Release the resource.

        It may be called again, while an earlier call is under way or after one: if the
        resource is already gone, that is success. After a failure, the next call
        continues where the failed one stopped.

        :returns: A Deferred that fires with ``None`` when the resource is *gone*, not
            when its removal has merely begun. It fails with
            :class:`~txbits.errors.BackendError` if something is left.
        """


class IWriter(Interface):
    """
    Appends to the bytes of a session.

    A session has at most one open writer. It has one caller, which waits for each
    Deferred before the next call.
    """

    def write(data: bytes) -> Deferred[None]:
        """
        Append *data* to everything written before.

        :param data: One or more bytes. The backend may keep a reference, but must not
            change them.
        :returns: A Deferred that fires with ``None`` when more may be written. A slow
            store slows the client down by firing it later. It fails with
            :class:`~txbits.errors.OutOfSpace` or
            :class:`~txbits.errors.BackendError`; the writer must still be closed
            then, and the bytes that were stored in order are kept.
        """

    def close() -> Deferred[None]:
        """
        End writing: store all bytes, and leave no handle open.

        It may be called again, which does nothing. A request body that was cut short is
        not a failure here: the backend just gets fewer bytes.

        :returns: A Deferred that fires with ``None`` when the session's ``offset``
            covers all that was written, and those bytes would be found again after
            the process is killed (and after the machine is, as far as the
            backend was set to promise that): an Ack may follow. It fails with
            :class:`~txbits.errors.BackendError` or
            :class:`~txbits.errors.OutOfSpace` if they would not; ``offset`` is then
            the number of bytes that are really stored.
        """


class IUploadSession(IReleasable):
    """
    One upload under way: its staged bytes and its record.

    Nothing of it is visible at the destination before :meth:`publish`.
    ``release()`` discards it: an open writer is closed, the staged bytes and the
    record are gone when its Deferred fires, and ``IBackend.find`` no longer finds
    the session. A release is remembered: if it fails, or the process is killed
    meanwhile, and the session is found again, it has :attr:`releasing` set, or, if it
    was published, :attr:`published`.
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
        "How many bytes are stored, always a prefix of the file: the offset of the "
        "next byte that is expected. It includes what an open writer has stored so far."
    )
    last_progress: float = Attribute(
        "When bytes were last stored; the time of creation before that."
    )
    published: bool = Attribute(
        "Whether publish() has succeeded, now or before a restart: the file is at "
        "its destination, and only release() is left to do."
    )
    releasing: bool = Attribute(
        "Whether release() has been called, now or before a restart: only release() "
        "is left to do."
    )

    in_doubt: bool = Attribute(
        "Whether bytes that were acknowledged may be missing unnoticed: the session "
        "was found after a crash that the store does not promise to survive."
    )

    def open_writer(total: int) -> Deferred[IWriter]:
        """
        Begin to append at :attr:`offset`.

        The first call records *total* durably; later calls pass the same value. A store
        that would need a separate request for that may record it with the first bytes,
        or when the writer is closed.

        :param total: The length in bytes that the whole file will have; 0 for an
            empty file, which is complete from then on.
        :returns: A Deferred that fires with the :class:`IWriter`. It fails with
            :class:`~txbits.errors.OutOfSpace` if a file of that length cannot fit,
            :class:`~txbits.errors.StagedDataLost` if bytes that were stored are
            gone, or :class:`~txbits.errors.BackendError`.
        """

    def publish(*, overwrite: bool, create_directories: bool) -> Deferred[None]:
        """
        Make the complete file appear at its destination, atomically.

        A reader of the destination sees what was there before, or the whole
        new file, never a part. After success, calling it again is success and
        changes nothing, also after a restart. After a failure the session is
        unchanged, so that publishing can be tried again.

        :param overwrite: Whether an existing file may be replaced. If not, not even one
            that appears at the last moment is.
        :param create_directories: Whether missing parent directories are created.
        :returns: A Deferred that fires with ``None`` when the file is there, as
            durably as the backend was configured to promise. It fails with
            :class:`~txbits.errors.DestinationExists`,
            :class:`~txbits.errors.DestinationIsDirectory`,
            :class:`~txbits.errors.DestinationForbidden`,
            :class:`~txbits.errors.ParentMissing` (also if a parent is a file),
            :class:`~txbits.errors.OutOfSpace`,
            :class:`~txbits.errors.StagedDataLost` or
            :class:`~txbits.errors.BackendError`.
        """

    def release(*, remember: bool = False) -> Deferred[None]:
        """
        Remove everything of the session; see :class:`IReleasable`. A file that is
        published stays.

        :param remember: Whether Close-Session succeeds. Then a small record of that
            stays, for ``IBackend.recalls_close``: a client whose Ack was lost sends
            Close-Session again, and would upload everything again if the answer were
            that its session is unknown. The record takes less than 1 KiB, and outlives
            the process if sessions do. It is stored before the session can no longer be
            found, so that at any moment, there is one or the other; if it cannot be
            stored, nothing is lost. Of calls that are under way at the same time, all
            remember it or none does.
        :returns: A Deferred that fires with ``None`` when only the record and the
            published file are left. It fails with
            :class:`~txbits.errors.BackendError`; the next call continues then.
        """


class AnyOwner(Enum):
    """The type of :data:`ANY_OWNER`."""

    ANY_OWNER = "any owner"


#: Stands for whoever owns a session.
ANY_OWNER = AnyOwner.ANY_OWNER


@frozen
class SessionSummary:
    """
    What clean-up and quotas need to know of a session, as a listing has it.

    :ivar session_id: The session's id.
    :ivar owner: The authenticated user who created it, or ``None``.
    :ivar last_progress: When bytes were last stored, or it was created.
    :ivar releasing: Whether it is published, or its release has begun: only release()
        is left to do.
    :ivar published: Whether it is published, and its release has not begun: where files
        appear before their sessions end, it stays. If the store cannot tell, this is
        ``False``, and each round of the clean-up looks at the session itself.
    :ivar size: The total length of the file, in bytes; 0 if it is not known yet.
    """

    session_id: UUID
    owner: str | None
    last_progress: float
    releasing: bool = False
    published: bool = False
    size: int = 0


class IBackend(Interface):
    """
    A place where uploads are staged, and published.

    A backend deals with storage, not with HTTP. Calls about one session do not overlap,
    with these exceptions: :meth:`create` and :meth:`find` of different sessions, and
    :meth:`sessions`, may overlap with anything; replies may be opened and read during
    anything but the release of their session.
    """

    def start() -> Deferred[None]:
        """
        Start; called once, before anything else and before the server listens.

        The Deferred is cancelled if the server stops before it has fired: the backend
        then ends what it has begun, and the Deferred fails.

        :returns: A Deferred that fires with ``None``. It fails with
            :class:`~txbits.errors.BackendError`, whose text is one line that tells
            an operator what to do, if the backend cannot work as configured.
        """

    def stop() -> Deferred[None]:
        """
        Release everything that is not a session: threads, locks, connections.

        Sessions stay, if the store outlives the process. Called once, last.

        :returns: A Deferred that fires with ``None`` when everything is released.
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
        Create a session for a new upload.

        Nothing becomes visible at the destination. If it is already known that
        publishing would fail later, this fails.

        :param session_id: A new random id.
        :param destination: Where the file will go.
        :param owner: The authenticated user; ``None`` if anonymous.
        :param content_name: The client's name for the file, at most 260 characters.
        :param overwrite: Whether the destination may exist.
        :param create_directories: Whether parent directories may be missing. They are
            created when publishing.
        :returns: A Deferred that fires with the :class:`IUploadSession` when a
            restarted process would find it. It fails with
            :class:`~txbits.errors.DestinationForbidden`,
            :class:`~txbits.errors.DestinationIsDirectory`,
            :class:`~txbits.errors.DestinationExists`,
            :class:`~txbits.errors.ParentMissing` (also if a parent is a file),
            :class:`~txbits.errors.OutOfSpace` or
            :class:`~txbits.errors.BackendError`.
        """

    def find(session_id: UUID) -> Deferred[IUploadSession]:
        """
        Look up a session, also one from before a restart.

        :returns: A Deferred that fires with the :class:`IUploadSession`, its
            ``offset`` measured from the bytes that are stored. It fails with
            :class:`~txbits.errors.NoSuchSession`, or with
            :class:`~txbits.errors.BackendError` if that is uncertain.
        """

    def sessions() -> Deferred[Sequence[SessionSummary]]:
        """
        List all sessions of the store, for clean-up and quotas.

        :returns: A Deferred that fires with a :class:`SessionSummary` for each session
            that :meth:`find` would find. It fails with
            :class:`~txbits.errors.BackendError`.
        """

    def recalls_close(
        session_id: UUID, destination: tuple[str, ...], owner: str | AnyOwner | None
    ) -> Deferred[bool]:
        """
        Tell whether a session with exactly this id, destination and owner was closed:
        whether ``IUploadSession.release`` remembers it.

        If it was, this also finishes what a process that was killed has left of that
        release.

        :param owner: :data:`ANY_OWNER` if any owner is right, for a client that only
            knows the session's id, which is a secret then. A backend that does not
            keep the owner and the destination apart may ignore both.
        :returns: A Deferred that fires with ``True`` if so and :meth:`clean_up` has
            not forgotten it since. It fails with
            :class:`~txbits.errors.BackendError`.
        """

    def clean_up(closed_before: float) -> Deferred[None]:
        """
        Forget old closes, and remove what belongs to no session: the remains of a
        process that was killed while it created or released one.

        Sessions that :meth:`find` would find are not touched.

        :param closed_before: Closes remembered before this time are forgotten.
        :returns: A Deferred that fires with ``None``. It fails with
            :class:`~txbits.errors.BackendError`.
        """
