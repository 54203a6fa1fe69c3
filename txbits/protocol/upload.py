"""
The life of an upload on the client (MC-BUP 3.1.5.1).

An upload first asks for a session (*creating*), then sends the file from the offset
where the server stands, one fragment after the other (*sending*), and when the server
holds the last byte it says so (*closing*). An empty file has no fragment: it is
created and closed.

The server's word on where it stands is obeyed, whether it takes a fragment or finds
it out of step. A fragment that is too large is followed by smaller ones. If the
server no longer knows the session, the upload begins again with a new one, however
far it was. If it is to be cancelled, the client says that until the server has
released everything, or knows of nothing to release (*cancelling*).

What a connection that broke leaves open is settled by sending the same packet again:
a fragment from the client's own offset, of which the server skips what it holds, or
a Close-Session, which may be repeated.

Nothing here does anything. :meth:`Upload.next_packet` tells what to send;
:meth:`Upload.answered` and :meth:`Upload.unanswered` are told what came of it, and
say what to do next.
"""

from __future__ import annotations

from enum import Enum, auto
from http import HTTPStatus
from uuid import UUID

from attrs import define, field, frozen
from attrs.validators import ge

from txbits.protocol._fields import (
    BITS_UPLOAD_PROTOCOL,
    ContentRange,
    LocalProtocolError,
)
from txbits.protocol.packets import (
    Ack,
    CancelSession,
    CloseSession,
    CreateSession,
    Fragment,
    Packet,
)
from txbits.protocol.refusals import CONTEXT_SERVER, HResult

#: How long a fragment is, in bytes, unless the server wants smaller ones.
DEFAULT_FRAGMENT_SIZE = 10 * 1024 * 1024

#: A server that finds a fragment of this many bytes too large takes none.
SMALLEST_FRAGMENT = 1024

#: How often a server may fall back behind what it held before, and still have it
#: count as progress when it catches up. A server that always loses what it was sent
#: could be kept busy for ever otherwise.
TOLERATED_SETBACKS = 3


_PHRASES = {int(status): status.phrase for status in HTTPStatus}
_NAMES = {int(hresult): hresult.name for hresult in HResult}


class Phase(Enum):
    """Where an upload is."""

    CREATING = auto()
    SENDING = auto()
    CLOSING = auto()
    CANCELLING = auto()
    OVER = auto()


@frozen
class Again:
    """
    The next packet can be sent at once.

    :ivar progress: Whether the server holds more than before.
    """

    progress: bool


@frozen
class Later:
    """
    The next packet should be sent after a pause.

    :ivar cause: What is wrong, in words.
    :ivar status: The HTTP status, if there was an answer.
    :ivar hresult: The HRESULT, if the answer had one.
    :ivar retry_after: How many seconds the server wants the pause to be, at least.
    """

    cause: str
    status: int | None = None
    hresult: int | None = None
    retry_after: int | None = None


@frozen
class Refused:
    """
    The upload cannot go on.

    :ivar cause: What is wrong, in words.
    :ivar status: The HTTP status.
    :ivar hresult: The HRESULT, if the answer had one.
    :ivar transient: Whether the same upload might succeed at another time.
    """

    cause: str
    status: int
    hresult: int | None
    transient: bool


@frozen
class Done:
    """
    The file is at its destination.

    :ivar session_id: The session that brought it there.
    :ivar reply_url: Where the server application's reply is, if there is one.
    """

    session_id: UUID
    reply_url: str | None


@frozen
class Cancelled:
    """Nothing of the upload is left on the server."""


Reaction = Again | Later | Refused | Done | Cancelled


def is_transient(status: int) -> bool:
    """Tell whether a packet that got this status may succeed if it is sent again."""
    if 500 <= status < 600:
        return status not in (501, 505)
    return status in (408, 409)


def describe(ack: Ack) -> str:
    """Put an Ack that is no success into words, on one line."""
    who = "the server"
    if ack.context not in (None, CONTEXT_SERVER):
        who = "the server application"
    words = f"{who} answered {ack.status}"
    phrase = _PHRASES.get(ack.status)
    if phrase is not None:
        words = f"{words} {phrase}"
    if not ack.hresult:
        return words
    name = _NAMES.get(ack.hresult)
    code = f"0x{ack.hresult:08X}"
    return f"{words} ({code})" if name is None else f"{words} ({name}, {code})"


@define
class Upload:
    """
    One upload of one file.

    :ivar total: Length of the file in bytes.
    :ivar fragment_size: How many bytes the next fragment has at most.
    :ivar content_name: The local name of the file, for the server's operator.
    :ivar session_id: The present session, ``None`` before there is one.
    :ivar offset: How many bytes the server is known to hold.
    :ivar phase: Where the upload is.
    """

    total: int = field(validator=ge(0))
    fragment_size: int = field(default=DEFAULT_FRAGMENT_SIZE, validator=ge(1))
    content_name: str | None = None
    session_id: UUID | None = field(init=False, default=None)
    offset: int = field(init=False, default=0)
    phase: Phase = field(init=False, default=Phase.CREATING)
    _highest: int = field(init=False, default=0)
    _setbacks: int = field(init=False, default=0)
    _reply_url: str | None = field(init=False, default=None)

    def next_packet(self) -> Packet:
        """
        Tell what to send. Asking twice gives the same packet.

        :raises LocalProtocolError: If the upload is over.
        """
        if self.phase is Phase.CREATING:
            return CreateSession(content_name=self.content_name)
        if self.phase is Phase.OVER or self.session_id is None:
            raise LocalProtocolError("the upload is over; nothing is left to be said")
        if self.phase is Phase.SENDING:
            content_range = ContentRange(self.offset, self._end - 1, self.total)
            return Fragment(self.session_id, content_range, content_range.length)
        if self.phase is Phase.CLOSING:
            return CloseSession(self.session_id)
        return CancelSession(self.session_id)

    def cancel(self) -> Again | Cancelled:
        """
        Upload nothing more, and have the server release what it holds.

        An answer to a packet that was sent before is not to be reported any more.
        """
        if self.session_id is None:
            self.phase = Phase.OVER
            return Cancelled()
        self.phase = Phase.CANCELLING
        return Again(progress=False)

    def unanswered(self, cause: str) -> Later:
        """
        The packet got no answer: it or its Ack was lost on the way.

        :param cause: What happened, in words.
        """
        return Later(cause)

    def answered(self, ack: Ack) -> Reaction:
        """The packet got this answer."""
        if self.phase is Phase.CANCELLING:
            return self._answer_to_cancel(ack)
        if self.phase is Phase.CREATING:
            return self._answer_to_create(ack)
        # MC-BUP 3.1.5.1.7, whatever the status is.
        if not ack.success and ack.hresult == HResult.BG_E_SESSION_NOT_FOUND:
            return self._start_over(ack)
        if self.phase is Phase.SENDING:
            return self._answer_to_fragment(ack)
        return self._answer_to_close(ack)

    @property
    def _end(self) -> int:
        return min(self.offset + self.fragment_size, self.total)

    def _answer_to_create(self, ack: Ack) -> Reaction:
        if not ack.success:
            return self._failure(ack)
        if ack.session_id is None:
            return self._nonsense(ack, "the server named no session")
        # IIS always names it; the servers that do not speak no other.
        if ack.protocol not in (None, BITS_UPLOAD_PROTOCOL):
            return self._nonsense(ack, "the server chose a protocol it was not offered")
        self.session_id = ack.session_id
        self.phase = Phase.SENDING if self.total else Phase.CLOSING
        return Again(progress=False)

    def _answer_to_fragment(self, ack: Ack) -> Reaction:
        if ack.status == 413:
            return self._shrink(ack)
        if ack.success:
            self._reply_url = ack.reply_url or self._reply_url
            received = self._end if ack.received is None else ack.received
        elif ack.status == 416:
            # Without the header the server has not said where it stands; whatever it
            # holds begins at 0.
            received = 0 if ack.received is None else ack.received
        else:
            return self._failure(ack)
        if received > self.total:
            return self._nonsense(
                ack, f"the server holds {received} bytes of a file of {self.total}"
            )
        return self._stand_at(received, ack)

    def _answer_to_close(self, ack: Ack) -> Reaction:
        if ack.success and self.session_id is not None:
            self.phase = Phase.OVER
            return Done(self.session_id, self._reply_url)
        return self._failure_at_end(ack)

    def _answer_to_cancel(self, ack: Ack) -> Reaction:
        if ack.success or ack.hresult == HResult.BG_E_SESSION_NOT_FOUND:
            self.phase = Phase.OVER
            return Cancelled()
        return self._failure_at_end(ack)

    def _stand_at(self, received: int, ack: Ack) -> Reaction:
        before, self.offset = self.offset, received
        if received == self.total:
            self.phase = Phase.CLOSING
        if received > self._highest:
            self._highest = received
            self._setbacks = 0
            return Again(progress=True)
        if received > before:
            return Again(progress=self._setbacks <= TOLERATED_SETBACKS)
        return self._set_back(
            Later(
                f"the server stands at byte {received} after a fragment from {before}",
                ack.status,
                ack.hresult,
                ack.retry_after,
            ),
            at_once=received < before,
        )

    def _start_over(self, ack: Ack) -> Reaction:
        self.session_id = None
        self.offset = 0
        self.phase = Phase.CREATING
        self._reply_url = None
        return self._set_back(
            Later(describe(ack), ack.status, ack.hresult, ack.retry_after),
            at_once=True,
        )

    def _set_back(self, later: Later, *, at_once: bool) -> Reaction:
        # Once is an incident, and there is no reason to wait. Again and again is a
        # server that would be hammered.
        self._setbacks += 1
        return Again(progress=False) if at_once and self._setbacks == 1 else later

    def _shrink(self, ack: Ack) -> Reaction:
        length = self._end - self.offset
        if length <= SMALLEST_FRAGMENT:
            return self._failure(ack)
        self.fragment_size = max(SMALLEST_FRAGMENT, length // 2)
        return Again(progress=False)

    def _failure(self, ack: Ack) -> Later | Refused:
        # A file that is too large is answered with 500, but stays too large.
        transient = is_transient(ack.status) and ack.hresult != HResult.BG_E_TOO_LARGE
        if transient:
            return Later(describe(ack), ack.status, ack.hresult, ack.retry_after)
        return Refused(describe(ack), ack.status, ack.hresult, transient=False)

    def _failure_at_end(self, ack: Ack) -> Later | Refused:
        # The reference pages on Close-Session and Cancel-Session: sent again after
        # 500 to 599, and not after 100 to 499.
        if 500 <= ack.status < 600:
            return Later(describe(ack), ack.status, ack.hresult, ack.retry_after)
        return Refused(
            describe(ack), ack.status, ack.hresult, transient=is_transient(ack.status)
        )

    def _nonsense(self, ack: Ack, cause: str) -> Refused:
        return Refused(cause, ack.status, ack.hresult, transient=False)
