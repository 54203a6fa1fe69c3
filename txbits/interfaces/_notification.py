"""
How server applications are asked about uploads, and what they answer.
"""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING
from uuid import UUID

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface
from zope.interface.interface import InterfaceClass

if TYPE_CHECKING:
    from txbits.interfaces._storage import IUploadSession, IWriter


@frozen(kw_only=True)
class Answer:
    """
    The final answer of a server application.

    :ivar status: Its HTTP status: of success, or 403; in both cases it is not asked
        again (MC-BUP 3.3).
    :ivar publishes: Whether the file is to appear at its destination. The default is
        that it is not: the application has taken the upload, and Close-Session discards
        the file.
    :ivar reply_url: An absolute URL to give to the client in place of a stored reply.
    :ivar has_reply: Whether a reply is stored. Notifiers leave it as it is; the session
        that keeps the answer sets it.
    """

    status: int = 200
    publishes: bool = False
    reply_url: str | None = None
    has_reply: bool = False


@frozen(kw_only=True)
class CompleteUpload:
    """
    An upload that a server application is asked about.

    :ivar session: Its session. It provides the interfaces of ``INotifier.needs``
        besides :class:`~txbits.interfaces.IUploadSession`, and perhaps others. Its
        bytes do not change until the application has answered.
    :ivar request_url: The destination URL as the client gave it, with its query.
    :ivar attempt: How often the application has been asked, including this time. If
        more than 1, it may have seen the upload before.
    :ivar sha256: The digest of its bytes.
    """

    session: IUploadSession
    request_url: str
    attempt: int
    sha256: bytes


@frozen(kw_only=True)
class PublishedUpload:
    """
    An upload whose file has appeared at its destination.

    :ivar session_id: The session that brought it.
    :ivar destination: Where the file is, in segments below the directory's URL.
    :ivar owner: The name of the authenticated user; ``None`` if anonymous.
    :ivar content_name: The client's name for the file. Never a path.
    :ivar length: Its length in bytes.
    """

    session_id: UUID
    destination: tuple[str, ...]
    owner: str | None
    content_name: str | None
    length: int


class IPublicationObserver(Interface):
    """
    Is told of each file that is published. It needs no ability of the backend.

    It cannot refuse an upload, and the client does not wait for it. If the process is
    killed right after a file was published, it is not told; where each upload counts,
    use an :class:`INotifier`.
    """

    def published(upload: PublishedUpload) -> Deferred[None] | None:
        """
        React to a file that has appeared. It is called once for each publication.

        :param upload: What was published. The file is at its destination, in whole.
        :returns: ``None``, or a Deferred or coroutine, which is not waited for. An
            exception or failure is logged, and has no other effect.
        """


class IReply(Interface):
    """A place for the reply of a server application."""

    def open() -> Deferred[IWriter]:
        """
        Begin to write the reply. Called at most once; if it is not called, there is no
        reply.

        :returns: A Deferred that fires with the writer, which the caller closes. It
            fails with :class:`~txbits.errors.BackendError`.
        """

    def address() -> str | None:
        """
        Tell where another program may write the reply instead.

        :returns: An absolute path or a URL; ``None`` if the backend does not support
            this.
        """


class INotifier(Interface):
    """
    Asks a server application about complete uploads (MC-BUP 3.3).

    :func:`txbits.notification.notifier` makes one from a plain function. If you only
    want to know when files appear, use :class:`IPublicationObserver`.
    """

    needs: Set[InterfaceClass] = Attribute(
        "The optional interfaces that sessions must provide, such as IReadable."
    )

    def notify(upload: CompleteUpload, reply: IReply) -> Deferred[Answer]:
        """
        Ask the application. Called again after any failure except one of status 403.

        The Deferred may be cancelled, because the session is: it fires when nothing is
        under way any more, and the upload's bytes are no longer read.

        :param upload: What was uploaded.
        :param reply: Where the reply goes.
        :returns: A Deferred that fires with the :class:`Answer`. It fails with
            :class:`~txbits.errors.ApplicationRefused`,
            :class:`~txbits.errors.ApplicationUnreachable`,
            :class:`~txbits.errors.ApplicationTimedOut`,
            :class:`~txbits.errors.BadAnswer`, or
            :class:`~txbits.errors.BackendError` if reading the upload or writing the
            reply failed.
        """
