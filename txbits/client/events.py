"""
The events and results of transfers.
"""

from __future__ import annotations

from attrs import frozen


class TransferFailed(Exception):
    """
    A transfer failed; the text is one line that says why.

    :ivar status: The HTTP status of the last answer, if there was one.
    :ivar transient: Whether retrying later can help.
    """

    def __init__(
        self, message: str, *, transient: bool, status: int | None = None
    ) -> None:
        super().__init__(message)
        self.transient = transient
        self.status = status


class DownloadFailed(TransferFailed):
    """A download failed; the text is one line that says why."""


class UploadFailed(TransferFailed):
    """
    An upload failed; the text is one line that says why.

    :ivar hresult: The HRESULT of the last answer, if it had one.
    :ivar resumable: Whether the session is still on the server.
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
    """The upload was cancelled, and the server has deleted its data."""


@frozen
class UploadResult:
    """
    An upload that succeeded.

    :ivar session_id: The session ID, as the server writes it.
    :ivar length: How many bytes the file has.
    :ivar reply_url: The URL of the server application's reply, if there was one. The
        server may delete the reply when the session is closed.
    :ivar is_acknowledged: Whether the server acknowledged the upload. Otherwise its
        answer was lost, and the destination has a file of this length that is not
        older than the upload.
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

    :ivar sent: Bytes of the file handed to the network. The number falls when some
        have to be sent again.
    :ivar acknowledged: Bytes that the server has acknowledged.
    :ivar total: The length of the file.
    """

    sent: int
    acknowledged: int
    total: int


@frozen
class Waiting:
    """
    A temporary failure; the transfer will retry.

    :ivar seconds: The time until the retry.
    :ivar cause: The failure, in words.
    """

    seconds: float
    cause: str


@frozen
class Paused:
    """
    Nothing is sent until the upload is resumed.

    :ivar acknowledged: Bytes that the server has acknowledged.
    """

    acknowledged: int


@frozen
class DownloadResult:
    """
    A download that succeeded.

    :ivar length: How many bytes the file has.
    :ivar received: How many of them were received in this run.
    """

    length: int
    received: int


@frozen
class Unlocked:
    """
    The file system does not support locks, so that another transfer of the same file
    cannot be detected.

    :ivar path: The file that could not be locked.
    """

    path: str


Event = Created | Progress | Waiting | Paused | Unlocked
