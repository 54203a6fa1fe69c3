"""
What becomes of an upload: while it lasts, and in the end.
"""

from __future__ import annotations

from attrs import frozen


class TransferFailed(Exception):
    """
    A file has not reached its destination; the text is one line that says why.

    :ivar status: The HTTP status of the last answer, if there was one.
    :ivar transient: Whether trying again at another time can help.
    """

    def __init__(
        self, message: str, *, transient: bool, status: int | None = None
    ) -> None:
        super().__init__(message)
        self.transient = transient
        self.status = status


class DownloadFailed(TransferFailed):
    """The server has not given the file; the text is one line that says why."""


class UploadFailed(TransferFailed):
    """
    The server has not taken the file; the text is one line that says why.

    :ivar hresult: The HRESULT of the last answer, if it had one.
    :ivar resumable: Whether the server still holds what it has received.
    """

    def __init__(
        self,
        message: str,
        *,
        transient: bool,
        status: int | None = None,
        hresult: int | None = None,
        resumable: bool | None = None,
    ) -> None:
        super().__init__(message, transient=transient, status=status)
        self.hresult = hresult
        self.resumable = transient if resumable is None else resumable


class UploadCancelled(Exception):
    """The upload was cancelled, and nothing of it is left on the server."""


@frozen
class UploadResult:
    """
    An upload that succeeded.

    :ivar session_id: The session that it was, as the server calls it.
    :ivar length: How many bytes the file has.
    :ivar reply_url: Where the server application's reply was until the session was
        closed, if there was one. One that the application itself keeps may still be
        there.
    :ivar is_acknowledged: Whether the server has said so. Otherwise its answer was
        lost, and a look at the destination showed a file of this length, no older than
        the upload.
    """

    session_id: str
    length: int
    reply_url: str | None
    is_acknowledged: bool = True


@frozen
class Created:
    """
    The server has made a session.

    :ivar session_id: Its id, as the server writes it.
    """

    session_id: str


@frozen
class Progress:
    """
    Bytes moved.

    :ivar sent: How many bytes of the file were handed to the network. That number may
        fall, when some have to be sent again.
    :ivar acknowledged: How many the server has said that it holds.
    :ivar total: How many there are.
    """

    sent: int
    acknowledged: int
    total: int


@frozen
class Waiting:
    """
    Something failed that may pass, and will be tried again.

    :ivar seconds: After how long.
    :ivar cause: What failed, in words.
    """

    seconds: float
    cause: str


@frozen
class Paused:
    """
    Nothing is sent until the upload is resumed.

    :ivar acknowledged: How many bytes the server has said that it holds.
    """

    acknowledged: int


@frozen
class DownloadResult:
    """
    A download that succeeded.

    :ivar length: How many bytes the file has.
    :ivar received: How many of them came now; the others were there from an earlier
        run.
    """

    length: int
    received: int


@frozen
class Unlocked:
    """
    The file system has no locks: nothing keeps two transfers of the same file apart.

    :ivar path: What could not be locked.
    """

    path: str


Event = Created | Progress | Waiting | Paused | Unlocked
