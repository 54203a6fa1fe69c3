"""
The states of a connection: which event leads to which state, and who must act by when.

A connection is *new* until its first byte arrives. The *head* of a request comes next.
A packet is dispatched when its head is complete: its body is *offered* to the resource.
The *body* is read when the resource asks for it, and is *held* while the resource
accepts no more. Any other request is collected first, head and body (*other*). When a
request is complete, the server is *serving* it. After the answer, the connection is
*idle*. If the peer has already sent its next request, the connection is *in line* for
its turn instead; at its turn, it is *blocked* if the peer has yet to take earlier
answers.

If a body is refused, a short rest of it is read and discarded before the answer. If the
rest is long, the connection is *lingering*: the answer is sent at once, and what still
arrives is discarded. Closing a socket with unread data would reset the connection, and
the peer might never see the answer. A connection that the server closes is *closing*
until the peer has taken everything. There are shortcuts: a packet that arrives in one
read takes the connection directly from *idle* to *serving*.

In each state, either the peer has to act before a deadline, or the server has to act,
without a deadline. One more rule applies in all states, and sets the only deadline of
*blocked*: while the transport's buffer is full, the peer has ``body_timeout`` to take
some of it.

This module has no state and does no work. :class:`StreamingChannel` stores the state of
one connection, changes it according to :data:`TRANSITIONS`, and sets the deadline of
the new state. The diagram in the documentation is generated from this table.
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
    :ivar limit: The attribute of :class:`~txbits.web.Limits` with the time for that;
        ``None`` if the state has no deadline of its own.
    :ivar progress: What extends the deadline: 1 KiB of the body ``"received"``, by the
        same time, or 1 KiB of the answer ``"taken"``, by ``body_timeout``.
    :ivar closes: Whether the server closes a connection that misses this deadline.
        Otherwise, the server drops it at once.
    :ivar discards: Whether the server discards what still arrives.
    """

    name: str
    awaits: str
    limit: str | None = None
    progress: Literal["received", "taken"] | None = None
    closes: bool = False
    discards: bool = False


NEW = State("new", "a request", "header_timeout", "taken", closes=True)
HEAD = State("head", "the rest of the head", "header_timeout")
OFFERED = State("offered", "the resource to read the body")
BODY = State("body", "the rest of the body", "body_timeout", "received")
HELD = State("held", "the resource to accept more")
OTHER = State("other", "the rest of the body", "body_timeout", "received")
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

#: What each event means.
EVENTS: dict[Event, str] = {
    "received": "The first bytes of a request have arrived. Its head is not read yet.",
    "offered": "The head of a packet has arrived, but not its whole body.",
    "collected": "The head of a request that is not a packet has arrived.",
    "completed": "The whole request has arrived.",
    "wanted": "The resource asks for the body, or the rest of it is discarded.",
    "paused": "The resource accepts no more of the body for now.",
    "refused": "The answer is sent although the peer is still sending the body.",
    "answered": "The answer is written.",
    "ahead": "The answer is written, and the next request has already arrived.",
    "full": "It is the connection's turn, but the peer takes no answers now.",
    "taken": "The peer has taken what was sent.",
    "closed": "The server closes the connection.",
    "lost": "The connection is lost.",
}

_REQUEST: dict[Event, State] = {
    "received": HEAD,
    "offered": OFFERED,
    "collected": OTHER,
    "completed": SERVING,
}
_BODY: dict[Event, State] = {"completed": SERVING, "refused": LINGERING}
_END: dict[Event, State] = {"closed": CLOSING, "lost": LOST}

#: The state that each event leads to. An event that is missing cannot happen there.
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
    # Events of a request that was given up change nothing.
    LINGERING: {**dict.fromkeys(EVENTS, LINGERING), **_END},
    CLOSING: {**dict.fromkeys(EVENTS, CLOSING), "lost": LOST},
    LOST: {**dict.fromkeys(EVENTS, LOST)},
}
