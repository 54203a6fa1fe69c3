"""
What the interfaces of txbits may fail with.

Backends raise a :class:`BackendError`, the operator's rules a :class:`PolicyError`,
packets that do not fit their session a :class:`SessionError`, and server applications
an :class:`ApplicationError`. None of them has a status or an HRESULT: that "no space"
is answered with 500 and 0x80070070 is a fact of BITS, see
:mod:`txbits.protocol.refusals`.

The text of an error is for the operator's log; it never reaches the wire.
"""

from __future__ import annotations


class BackendError(Exception):
    """
    The storage failed, for a reason that may be temporary.

    A backend raises this class itself for every fault that has no class of its
    own below (an I/O error, a store that does not answer). The client tries
    again later; nothing that was acknowledged is lost.
    """


class NoSuchSession(BackendError):
    """
    The session does not exist: it was never created, or it was cancelled, has expired,
    or was closed.

    A backend must be sure of this, since it makes a client upload the whole file again.
    If the store cannot be reached, raise a plain :class:`BackendError`.
    """


class NoSuchFile(BackendError):
    """No file of that name can be read."""


class DestinationForbidden(BackendError):
    """
    This backend never stores files under the destination's name.

    The file would be outside the root, or the name is reserved, or not supported.
    """


class DestinationExists(BackendError):
    """The destination exists, and overwriting is off."""


class DestinationIsDirectory(BackendError):
    """The destination is a directory."""


class ParentMissing(BackendError):
    """
    The destination has no parent directory, and none may be created.

    A file in the place of a parent directory counts as missing, too, whether or not
    directories may be created.
    """


class OutOfSpace(BackendError):
    """
    The store has no space for the upload.

    The text says what an operator can do about it, such as to free some space.
    """


class StagedDataLost(BackendError):
    """
    Bytes of the session that had been stored are missing.

    Something else has removed them. MC-BUP 3.2.5.2.7 has a separate answer for this at
    Close-Session.
    """


class PolicyError(Exception):
    """The operator's settings do not allow this."""


class TemporarilyRefused(PolicyError):
    """
    This is not allowed now, but may be later.

    :ivar retry_after: Seconds after which the client may try again.
    """

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class AccessDenied(PolicyError):
    """This caller may not upload to this destination."""


class CredentialsRejected(PolicyError):
    """
    The request has no valid credentials: none at all, wrong ones, or none of a scheme
    that the virtual directory accepts.

    A Windows job ends at this answer. Trouble of the server is
    :class:`CredentialsUncheckable`.

    :ivar challenges: The values of WWW-Authenticate for the answer.
    :ivar scheme: The scheme of the credentials, for the log; ``None`` if no scheme
        takes them.
    """

    challenges: tuple[bytes, ...] = ()
    scheme: str | None = None


class CredentialsIncomplete(CredentialsRejected):
    """
    The credentials are one step of several, and the client has to continue.

    :ivar challenge: The value of WWW-Authenticate for the next step.
    """

    def __init__(self, message: str, challenge: bytes) -> None:
        super().__init__(message)
        self.challenge = challenge


class CredentialsUncheckable(TemporarilyRefused):
    """
    Nobody can tell now whether the credentials are valid: the checker is away or busy,
    or there were too many failures.

    :ivar retry_after: Seconds after which the client may try again.
    :ivar scheme: As of :class:`CredentialsRejected`.
    """

    scheme: str | None = None


class UploadsDisabled(PolicyError):
    """Uploads to the virtual directory are disabled."""


class UploadTooLarge(PolicyError):
    """The file's total length is over the configured maximum."""


class FragmentTooLarge(PolicyError):
    """A fragment is longer than the configured maximum; the client can split it."""


class SessionLimitReached(TemporarilyRefused):
    """
    The caller, or the directory, has reached the limit of open sessions.
    """


class QuotaReached(TemporarilyRefused):
    """
    The caller, or the directory, has reached the quota of staged bytes.
    """


class ServerStopping(TemporarilyRefused):
    """
    The server is stopping, and accepts no new packets.
    """


class WorkerUnavailable(TemporarilyRefused):
    """
    The worker that has the session does not answer: it may be starting again.
    """


class SessionError(Exception):
    """A packet that does not fit the session it names."""


class OutOfStep(SessionError):
    """
    A fragment begins beyond the bytes that are stored.

    :ivar offset: The offset of the next byte that is expected.
    """

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


class TotalLengthChanged(SessionError):
    """A fragment's total length differs from that of earlier ones of its session."""


class BodyMismatch(SessionError):
    """A chunked body has more or fewer bytes than its range."""


class BodyIncomplete(SessionError):
    """
    A body ended early: its connection was lost, or it was too slow.

    The bytes that arrived are kept. There is no connection to answer on.
    """


class Superseded(BodyIncomplete):
    """A newer packet of the same session has ended this one, and its connection."""


class ApplicationError(Exception):
    """A server application was asked about an upload, and did not accept it."""


class ApplicationRefused(ApplicationError):
    """
    The application answered with an error (MC-BUP 3.3).

    :ivar status: Its HTTP status. After 403, it is not asked again.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class ApplicationUnreachable(ApplicationError):
    """The application cannot be connected to, or does not speak HTTP."""


class ApplicationTimedOut(ApplicationError):
    """The application did not read the upload, or did not answer, in time."""


class BadAnswer(ApplicationError):
    """The application's answer cannot be used, such as a URL that is too long."""


class InvalidSetting(ValueError):
    """
    A setting or a backend description is invalid.

    The text is one line that says how to fix it.
    """
