"""
The life of an upload on the client (MC-BUP 3.1.5.1).

An upload first requests a session (*creating*), then sends the file from the server's
offset on, one fragment after the other (*sending*), and closes the session when the
server has stored the last byte (*closing*). An empty file has no fragment: its session
is created and closed.

Before the upload continues after a pause, and before it switches to a host that the
server named, it checks whether the server responds (*pinging*). It does so on each new
connection, too, if connections are authenticated rather than requests: then only a Ping
is lost to a challenge.

The client follows the server's offset, whether the server accepts a fragment or finds
it out of step, unless that claims bytes that were never sent in the session. A fragment
that is too large is followed by smaller ones. If the server no longer knows the
session, the upload starts over with a new one; so it does, after the old session is
released (*restarting*), if the server finds the first byte out of step. To cancel an
upload, the client sends Cancel-Session until the server has released everything, or has
nothing to release (*cancelling*).

When a connection breaks, the same packet is sent again: a fragment from the client's
own offset, of which the server skips the bytes that it has, or a Close-Session, which
may be repeated. Servers that do not remember closed sessions refuse that, or do not
know the session; then the client looks at the destination to find out whether the file
is there.

A server may name another host at Create-Session. All following packets go there, until
there is no progress for as long as the server said; then they go to the original host.

Nothing here does any I/O. :meth:`Upload.next_packet` returns what to send, and
:attr:`Upload.host` where; call :meth:`Upload.answered` or :meth:`Upload.unanswered`
with the outcome, and they return what to do next.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum, auto
from typing import Any

from attrs import define, evolve, field, frozen
from attrs.validators import ge

from txbits.protocol._fields import (
    BITS_UPLOAD_PROTOCOL,
    ContentRange,
    LocalProtocolError,
    check_host_id,
    check_session_id,
)
from txbits.protocol.fragment_sizes import FragmentSizes
from txbits.protocol.packets import (
    Ack,
    CancelSession,
    ClientPacket,
    CloseSession,
    CreateSession,
    Fragment,
    Ping,
)
from txbits.protocol.reactions import (
    Again,
    Cancelled,
    Done,
    Doubt,
    Later,
    Reaction,
    Refused,
    describe,
    describe_stranger,
    is_transient,
)
from txbits.protocol.refusals import HResult

#: How often the first byte of a session may be out of step before the upload fails. A
#: single time may be due to a lost packet that still takes effect.
_REFUSALS_OF_START = 2


class Phase(Enum):
    """The phases of an upload."""

    CREATING = auto()
    PINGING = auto()
    SENDING = auto()
    RESTARTING = auto()
    CLOSING = auto()
    CANCELLING = auto()
    OVER = auto()


@frozen
class Position:
    """
    The progress of an upload: everything that another run of the client needs to
    continue.

    :ivar session_id: The server's id of its session; ``None`` if there is none.
    :ivar offset: How many bytes the server has said that it has stored.
    :ivar host: The host that the server named, if it is to be used.
    :ivar host_timeout: Seconds without progress after which that host is no longer
        used; ``None`` for never.
    :ivar failing_since: When the lack of progress began, on the upload's clock;
        ``None`` if there is progress.
    :ivar reply_url: Where the server application's reply is, if there is one.
    """

    session_id: str | None = None
    offset: int = 0
    host: str | None = None
    host_timeout: int | None = None
    failing_since: float | None = None
    reply_url: str | None = None


@define
class Upload:
    """
    One upload of one file.

    :ivar total: Length of the file in bytes.
    :ivar sizes: How many bytes the fragments have.
    :ivar content_name: The local name of the file, for the server's operator.
    :ivar pings_connections: Whether a new connection is to be tried with a Ping, since
        it may have to be authenticated.
    :ivar clock: Tells the time, in seconds.
    :ivar phase: Where the upload is.
    """

    total: int = field(validator=ge(0))
    sizes: FragmentSizes = field(factory=FragmentSizes)
    content_name: str | None = None
    pings_connections: bool = False
    clock: Callable[[], float] = time.monotonic
    phase: Phase = field(init=False, default=Phase.CREATING)
    _position: Position = field(init=False, factory=Position)
    _after_ping: Phase = field(init=False, default=Phase.CREATING)
    _sent_at: float = field(init=False, default=0.0)
    _highest: int = field(init=False, default=0)
    _setbacks: int = field(init=False, default=0)
    _sent: int = field(init=False, default=0)
    _was_there: bool = field(init=False, default=False)
    _refusals_of_start: int = field(init=False, default=0)
    _restarted: bool = field(init=False, default=False)
    _perhaps_done: Done | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        if self.pings_connections:
            self.ping()

    @property
    def position(self) -> Position:
        """How far it is."""
        return self._position

    @property
    def session_id(self) -> str | None:
        """The present session, as the server calls it; ``None`` if there is none."""
        return self._position.session_id

    @property
    def offset(self) -> int:
        """How many bytes the server is known to hold."""
        return self._position.offset

    @property
    def host(self) -> str | None:
        """The host that the next packet goes to, ``None`` for that of the URL."""
        since, timeout = self._position.failing_since, self._position.host_timeout
        # MC-BUP 3.1.6.3.
        if (
            since is not None
            and timeout is not None
            and self.clock() - since >= timeout
        ):
            self._move(host=None, host_timeout=None, failing_since=None)
        return self._position.host

    def restore(self, position: Position) -> None:
        """Go on where another run of the client stopped; it pings first."""
        self._position = position
        self._highest = position.offset
        # What the earlier run had sent when it ended was not written down.
        self._sent = self.total
        if position.session_id is not None:
            self._was_there = True
            self.phase = self._phase_of_position()
            # Nor was, whether it had said Close-Session.
            self.ping()

    def ping(self) -> None:
        """Ask whether anyone is there before going on, as after a pause."""
        if self.phase not in (Phase.PINGING, Phase.CANCELLING, Phase.OVER):
            self._may_be_closed()
            self._after_ping, self.phase = self.phase, Phase.PINGING

    def next_packet(self) -> ClientPacket:
        """
        Tell what to send. Asking twice gives the same packet.

        :raises LocalProtocolError: If the upload is over.
        """
        self._sent_at = self.clock()
        if self.phase is Phase.PINGING:
            return Ping()
        if self.phase is Phase.CREATING:
            return CreateSession(content_name=self.content_name)
        if self.phase is Phase.OVER or self.session_id is None:
            raise LocalProtocolError("the upload is over; nothing is left to be said")
        if self.phase is Phase.SENDING:
            self._sent = max(self._sent, self._end)
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
        if self.phase is Phase.SENDING:
            self.sizes.lost()
        return self._unheard(Later(cause))

    def answered_by_stranger(
        self, words: str, status: int, location: str | None
    ) -> Later | Refused:
        """
        The packet got an answer that is none of a BITS server's.

        Where one has answered before, something stands in the way that will be gone
        again, such as the login page of a network.

        :param words: What the answer was.
        :param status: Its status.
        :param location: Where it redirects to, if it does.
        """
        cause = describe_stranger(words, location, was_there=self._was_there)
        if not self._was_there:
            return Refused(cause, status, None, transient=False)
        return self._unheard(Later(cause, status))

    def answered(self, ack: Ack[str]) -> Reaction:
        """The packet got this answer."""
        self._was_there = self._was_there or ack.success
        reaction = self._reaction(ack)
        if isinstance(reaction, Later):
            self._may_be_closed()
            reaction = self._failed(reaction)
        return self._in_doubt(reaction, ack)

    def arrived(self, done: Done) -> Done:
        """The file was found at its destination."""
        self.phase = Phase.OVER
        self._move(session_id=done.session_id, offset=self.total)
        return done

    def _reaction(self, ack: Ack[str]) -> Reaction:
        if self.phase is Phase.CANCELLING:
            return self._answer_to_cancel(ack)
        if self.phase is Phase.RESTARTING:
            return self._answer_to_release(ack)
        if self.phase is Phase.PINGING:
            return self._answer_to_ping(ack)
        if self.phase is Phase.CREATING:
            return self._answer_to_create(ack)
        # MC-BUP 3.1.5.1.7, whatever the status is.
        if not ack.success and ack.hresult == HResult.BG_E_SESSION_NOT_FOUND:
            return self._start_over(ack)
        if self.phase is Phase.SENDING:
            return self._answer_to_fragment(ack)
        return self._answer_to_close(ack)

    def _unheard(self, later: Later) -> Later:
        self._may_be_closed()
        if self.pings_connections:
            self.ping()
        return self._failed(later)

    def _may_be_closed(self) -> None:
        """The last packet may have been a Close-Session that reached the server."""
        if self.phase is Phase.CLOSING and self.session_id is not None:
            self._perhaps_done = Done(self.session_id, self._position.reply_url)

    def _in_doubt(self, reaction: Reaction, ack: Ack[str]) -> Reaction:
        done = self._perhaps_done
        if done is None or self.phase in (Phase.CANCELLING, Phase.OVER):
            return reaction
        if not isinstance(reaction, (Again, Later, Refused)):
            return reaction
        # The reference pages have 403 and 409 for a file that exists.
        is_refused = isinstance(reaction, Refused) and ack.status not in (401, 407)
        if is_refused or (isinstance(reaction, Later) and ack.status == 409):
            return Doubt(done, reaction, may_be_older=False)
        is_gone = ack.hresult == HResult.BG_E_SESSION_NOT_FOUND
        if is_gone and not is_refused:
            return Doubt(done, reaction, may_be_older=True)
        return reaction

    def _failed(self, later: Later) -> Later:
        position = self._position
        # MC-BUP 3.1.5.1.7 starts the timer here, and stops it at a fragment's Ack.
        if position.host is not None and position.failing_since is None:
            self._move(failing_since=self.clock())
        return later

    @property
    def _end(self) -> int:
        return min(self.offset + self.sizes.size, self.total)

    def _move(self, **changes: Any) -> None:
        self._position = evolve(self._position, **changes)

    def _phase_of_position(self) -> Phase:
        return Phase.SENDING if self.offset < self.total else Phase.CLOSING

    def _answer_to_ping(self, ack: Ack[str]) -> Reaction:
        # Only refusals that ask for a password matter: a server that does not support
        # Ping, and there are some, may accept the next packet.
        if not ack.success and (is_transient(ack.status) or ack.status in (401, 407)):
            return self._failure(ack)
        self.phase = self._after_ping
        return Again(progress=False)

    def _answer_to_create(self, ack: Ack[str]) -> Reaction:
        if not ack.success:
            return self._failure(ack)
        if ack.session_id is None:
            return self._nonsense(ack, "the server named no session")
        try:
            check_session_id(ack.session_id)
        except LocalProtocolError as error:
            return self._nonsense(
                ack, f"the server's BITS-Session-Id is invalid: {error}"
            )
        # IIS always names it; servers that do not support no other.
        if ack.protocol not in (None, BITS_UPLOAD_PROTOCOL):
            return self._nonsense(ack, "the server chose a protocol it was not offered")
        self._move(session_id=ack.session_id)
        self._sent = 0
        self.phase = self._phase_of_position()
        if ack.host_id and _is_host(ack.host_id):
            # MC-BUP 3.1.2.3: without a time-out it is used forever.
            self._move(
                host=ack.host_id,
                host_timeout=ack.host_id_fallback_timeout,
                failing_since=None,
            )
            self.ping()
        return Again(progress=False)

    def _answer_to_fragment(self, ack: Ack[str]) -> Reaction:
        length = self._end - self.offset
        if ack.status == 413:
            # Half of it, until the server accepts it.
            shorter = self.sizes.too_large(length)
            return Again(progress=False) if shorter else self._failure(ack)
        if ack.success:
            if ack.reply_url:
                self._move(reply_url=ack.reply_url)
            received = self._end if ack.received is None else ack.received
        elif ack.status == 416 and not self.offset and not ack.received:
            return self._refused_from_start(ack)
        elif ack.status == 416:
            # Without the header, the server has not given its offset. The bytes that it
            # has begin at 0.
            received = 0 if ack.received is None else ack.received
        else:
            return self._failure(ack)
        if received > self.total:
            return self._nonsense(
                ack, f"the server holds {received} bytes of a file of {self.total}"
            )
        # A client that believed this would omit bytes.
        sent = max(self._sent, self._end)
        if received > sent:
            return self._nonsense(
                ack, f"the server holds {received} bytes, and was sent {sent}"
            )
        if received == self._end and ack.success:
            self.sizes.acknowledged(length, self.clock() - self._sent_at)
        return self._stand_at(received, ack)

    def _answer_to_close(self, ack: Ack[str]) -> Reaction:
        if ack.success and self.session_id is not None:
            self.phase = Phase.OVER
            return Done(self.session_id, self._position.reply_url)
        return self._failure_at_end(ack)

    def _answer_to_cancel(self, ack: Ack[str]) -> Reaction:
        if ack.success or ack.hresult == HResult.BG_E_SESSION_NOT_FOUND:
            self.phase = Phase.OVER
            return Cancelled()
        return self._failure_at_end(ack)

    def _stand_at(self, received: int, ack: Ack[str]) -> Reaction:
        before = self.offset
        self._move(offset=received)
        self.phase = self._phase_of_position()
        if received > before:
            self._move(failing_since=None)
            self._refusals_of_start, self._restarted = 0, False
        if received > self._highest:
            self._highest = received
            self._setbacks = 0
            return Again(progress=True)
        if received > before:
            # If it counted, an upload to a server that always loses bytes would never
            # end.
            return Again(progress=False)
        return self._set_back(
            Later(
                f"the server stands at byte {received} after a fragment from {before}",
                ack.status,
                ack.hresult,
                ack.retry_after,
            ),
            at_once=received < before,
        )

    def _refused_from_start(self, ack: Ack[str]) -> Reaction:
        where = "without a BITS-Received-Content-Range"
        if ack.received is not None:
            where = "although it expects that byte"
        cause = f"the server answers 416 to the first byte of the file, {where}"
        self._refusals_of_start += 1
        if self._refusals_of_start < _REFUSALS_OF_START:
            later = Later(cause, ack.status, ack.hresult, ack.retry_after)
            return self._set_back(later, at_once=False)
        if self._restarted:
            # In a new session, to which nothing had been sent.
            return self._nonsense(ack, cause)
        # The server may have stored bytes, but it is unknown how many.
        self._refusals_of_start, self._restarted = 0, True
        self.phase = Phase.RESTARTING
        return Again(progress=False)

    def _answer_to_release(self, ack: Ack[str]) -> Reaction:
        is_gone = ack.success or ack.hresult == HResult.BG_E_SESSION_NOT_FOUND
        if not is_gone and is_transient(ack.status):
            return Later(describe(ack), ack.status, ack.hresult, ack.retry_after)
        # A server that refuses to release it keeps it until it expires.
        self._forget_session()
        return Again(progress=False)

    def _forget_session(self) -> None:
        # Keep the host: the session that it lost may have been its own.
        self._move(session_id=None, offset=0, reply_url=None)
        self.phase = Phase.CREATING

    def _start_over(self, ack: Ack[str]) -> Reaction:
        self._forget_session()
        return self._set_back(
            Later(describe(ack), ack.status, ack.hresult, ack.retry_after),
            at_once=True,
        )

    def _set_back(self, later: Later, *, at_once: bool) -> Reaction:
        # A single failure is no reason to wait. If it happens again and again, retries
        # without a pause would overload the server.
        self._setbacks += 1
        return Again(progress=False) if at_once and self._setbacks == 1 else later

    def _failure(self, ack: Ack[str]) -> Later | Refused:
        # A file that is too large is answered with 500, but stays too large.
        transient = is_transient(ack.status) and ack.hresult != HResult.BG_E_TOO_LARGE
        if transient:
            return Later(describe(ack), ack.status, ack.hresult, ack.retry_after)
        return Refused(describe(ack), ack.status, ack.hresult, transient=False)

    def _failure_at_end(self, ack: Ack[str]) -> Later | Refused:
        # The reference pages on Close-Session and Cancel-Session: sent again after
        # 500 to 599, and not after 100 to 499.
        if 500 <= ack.status < 600:
            return Later(describe(ack), ack.status, ack.hresult, ack.retry_after)
        return Refused(
            describe(ack), ack.status, ack.hresult, transient=is_transient(ack.status)
        )

    def _nonsense(self, ack: Ack[str], cause: str) -> Refused:
        return Refused(cause, ack.status, ack.hresult, transient=False)


def _is_host(text: str) -> bool:
    # An invalid value counts as missing.
    try:
        check_host_id(text)
    except LocalProtocolError:
        return False
    return True
