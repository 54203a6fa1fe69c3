"""
The states of a connection: which event leads to which state, and who must act by when.

A connection is *new* until its first byte. The *head* of a request arrives next. A
packet is dispatched on its head: its body is *offered* to the resource, which wants it
(*body*), and holds it back while it is busy (*held*). A request for any other resource
is collected first, head and body (*other*). When all of a request is here, the server
is *serving* it. After the answer the connection is *idle*, or, if the peer has sent its
next request ahead, it is *in line* for its turn, or *blocked* until the peer takes the
answers that it already has.

A body that is refused while the peer still sends it leaves the connection *lingering*:
the answer goes out, and what still arrives is thrown away, because a socket that is
closed with unread data resets the connection, and the peer may never see the answer.
Any connection that the server ends is *closing* until the peer has taken everything.
Some short ways exist: a packet that arrives in one read goes from *idle* to *serving*
at once.

Either the peer has to act, by a deadline, or the server has, without one. In addition
there is one rule for all states: while the transport has more to send than it accepts,
the peer has ``body_timeout`` to take some of that.

This module holds no state and does no work. :class:`StreamingChannel` has the state of
one connection, moves it along :data:`TRANSITIONS`, and sets the deadline of the state
that it enters. The documentation's diagram is drawn from this table.
"""

from __future__ import annotations

from typing import Literal

from attrs import frozen


@frozen(eq=False)
class State:
    """
    A state of a connection.

    :ivar name: Its name, for the documentation.
    :ivar awaits: What has to happen next, for the log.
    :ivar limit: The attribute of :class:`~txbits.web.Limits` that is the time for that;
        ``None`` if there is no deadline, because it is the server that has to act.
    :ivar progress: What earns the peer the same time again: 1 KiB of its body
        ``"received"``, or 1 KiB of the answer ``"taken"``.
    :ivar closes: Whether the server closes a connection that misses this deadline.
        Otherwise it drops it.
    :ivar discards: Whether the server throws away what still arrives.
    """

    name: str
    awaits: str
    limit: str | None = None
    progress: Literal["received", "taken"] | None = None
    closes: bool = False
    discards: bool = False


NEW = State("new", "a request", "header_timeout", "taken", closes=True)
HEAD = State("head", "the rest of a head", "header_timeout")
OFFERED = State("offered", "a resource to read the body")
BODY = State("body", "the rest of a body", "body_timeout", "received")
HELD = State("held", "the resource to accept more")
OTHER = State("other", "the rest of a body", "body_timeout", "received")
SERVING = State("serving", "the answer")
IDLE = State("idle", "the next request", "idle_timeout", "taken", closes=True)
IN_LINE = State("in_line", "its turn")
BLOCKED = State("blocked", "the peer to take answers")
LINGERING = State("lingering", "the peer to close", "close_timeout", discards=True)
CLOSING = State("closing", "the peer to close", "close_timeout", "taken", discards=True)
LOST = State("lost", "nothing", discards=True)

Event = Literal[
    "received",
    "offered",
    "collected",
    "completed",
    "wanted",
    "paused",
    "refused",
    "answered",
    "ahead",
    "full",
    "taken",
    "closed",
    "lost",
]

#: What each event is.
EVENTS: dict[Event, str] = {
    "received": "The first bytes of a request have arrived, but not its whole head.",
    "offered": "The head of a packet has arrived, but not its body.",
    "collected": "The head of a request for another resource has arrived.",
    "completed": "All of a request has arrived.",
    "wanted": "The resource wants the body, or the rest of it is to be thrown away.",
    "paused": "The resource takes no more of the body for now.",
    "refused": "The answer goes out although the peer is still sending the body.",
    "answered": "The answer is written.",
    "ahead": "The answer is written, and the next request has already arrived.",
    "full": "It is the connection's turn, but the peer takes no answers.",
    "taken": "The peer has taken what was sent.",
    "closed": "The server closes the connection.",
    "lost": "The connection is gone.",
}

_REQUEST: dict[Event, State] = {
    "received": HEAD,
    "offered": OFFERED,
    "collected": OTHER,
    "completed": SERVING,
}
_BODY: dict[Event, State] = {"completed": SERVING, "refused": LINGERING}
_END: dict[Event, State] = {"closed": CLOSING, "lost": LOST}

#: The state that each event leads to. An event that is missing here cannot happen.
TRANSITIONS: dict[State, dict[Event, State]] = {
    NEW: {**_REQUEST, **_END},
    IDLE: {**_REQUEST, **_END},
    IN_LINE: {**_REQUEST, "full": BLOCKED, **_END},
    BLOCKED: {"taken": IN_LINE, **_END},
    HEAD: {"offered": OFFERED, "collected": OTHER, "completed": SERVING, **_END},
    OFFERED: {**_BODY, "wanted": BODY, "paused": HELD, **_END},
    BODY: {**_BODY, "wanted": BODY, "paused": HELD, **_END},
    HELD: {**_BODY, "wanted": BODY, **_END},
    OTHER: {**_BODY, **_END},
    SERVING: {"answered": IDLE, "ahead": IN_LINE, **_END},
    # What a request that was given up may still do changes nothing.
    LINGERING: {**dict.fromkeys(EVENTS, LINGERING), **_END},
    CLOSING: {**dict.fromkeys(EVENTS, CLOSING), "lost": LOST},
    LOST: {**dict.fromkeys(EVENTS, LOST)},
}
