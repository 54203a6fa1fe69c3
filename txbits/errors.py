"""
What the interfaces of txbits may fail with.

A backend fails with a :class:`BackendError`, a rule of the operator's with a
:class:`PolicyError`, a packet that does not fit its session with a
:class:`SessionError`, and a server application with an :class:`ApplicationError`.
None of them knows a status or an HRESULT: that "no space" is answered with 500 and
0x80070070 is a fact of BITS, and stands in :mod:`txbits.protocol.refusals`.

The text of an error is for the operator's log; it never reaches the wire.
"""

from __future__ import annotations


class BackendError(Exception):
    """
    Storage could not do what was asked, for a reason that may pass.

    A backend raises this class itself for every fault that has no class of its
    own below (an I/O error, a store that does not answer). The client comes
    again later; nothing that was acknowledged is lost.
    """


class NoSuchSession(BackendError):
    """
    There is no such session: never created, cancelled, expired, or closed.

    A backend must not fail with this lightly. It makes a client upload the
    whole file again; a store that cannot be reached is a plain
    :class:`BackendError`.
    """


class NoSuchFile(BackendError):
    """There is no file of that name to be read."""


class DestinationForbidden(BackendError):
    """
    The destination's name is one that this backend never stores under.

    It would lie outside the root, is reserved, or cannot be written down.
    """


class DestinationExists(BackendError):
    """Something stands at the destination, and overwriting is off."""


class DestinationIsDirectory(BackendError):
    """The destination names a directory."""


class ParentMissing(BackendError):
    """
    The destination has no parent directory, and none may be created.

    A file in the place of a parent directory counts as missing, too, whether or not
    directories may be created.
    """


class OutOfSpace(BackendError):
    """The store has no room for the upload."""


class StagedDataLost(BackendError):
    """
    Bytes of the session that had been stored are no longer there.

    Someone or something else took them away. MC-BUP 3.2.5.2.7 has an answer of
    its own for this at Close-Session.
    """


class PolicyError(Exception):
    """The operator's settings do not allow it."""


class AccessDenied(PolicyError):
    """This caller may not upload to this destination."""


class UploadsDisabled(PolicyError):
    """The virtual directory takes no uploads at present."""


class UploadTooLarge(PolicyError):
    """The file's total length is over the configured maximum."""


class FragmentTooLarge(PolicyError):
    """One fragment is longer than the configured maximum; smaller ones are not."""


class SessionLimitReached(PolicyError):
    """
    The caller has as many sessions open as one user may.

    :ivar retry_after: Seconds after which trying again is sensible.
    """

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ServerStopping(PolicyError):
    """
    The server is going down and takes no new packet.

    :ivar retry_after: Seconds after which trying again is sensible.
    """

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class SessionError(Exception):
    """A packet that does not fit the session it names."""


class OutOfStep(SessionError):
    """
    A fragment begins beyond the bytes that are held.

    :ivar offset: The offset of the byte that is wanted next.
    """

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


class TotalLengthChanged(SessionError):
    """A fragment gives another total length than the first one of its session."""


class BodyMismatch(SessionError):
    """A chunked body brought more or fewer bytes than its range promised."""


class BodyIncomplete(SessionError):
    """
    A body ended before its time: its connection was lost, or it was too slow.

    What arrived is kept. There is nobody left to answer.
    """


class Superseded(BodyIncomplete):
    """A newer packet of the same session ended this one, and its connection."""


class ApplicationError(Exception):
    """A server application was told of an upload, and did not take it."""


class ApplicationRefused(ApplicationError):
    """
    The application answered with an error (MC-BUP 3.3).

    :ivar status: Its HTTP status. After 403 it is not asked again.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class ApplicationUnreachable(ApplicationError):
    """No connection to the application could be made, or it speaks no HTTP."""


class ApplicationTimedOut(ApplicationError):
    """The application did not take the upload, or answer, in time."""


class BadAnswer(ApplicationError):
    """The application's answer cannot be used, such as a URL that is too long."""


class InvalidSetting(ValueError):
    """
    A setting or a backend description that cannot be used.

    The text is one line that tells an operator what to do about it.
    """
