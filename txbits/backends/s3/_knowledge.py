"""
What a node knows of the bytes of a session that other nodes have acknowledged.

Any node may serve any packet of a session. The Ack of a Fragment says how many bytes
are held, and no later Ack may say fewer, unless bytes were lost. The bytes of a small
file are in its record, which is only written on the condition that it has not changed,
so that no node can miss any. This module is about longer files, whose bytes are objects
of their own, *parts* and *tails*. Nodes store these without asking one another, so each
node has to make sure that it knows of all of them:

- The record names one node. Only the node that it names acknowledges bytes. Another one
  first writes its own name there: it *takes over*. That changes the ETag of the record.
- After a node has stored bytes, and before it acknowledges them, it compares the ETag
  of the record with the one that it knows. As long as that stays the same, no other
  node has acknowledged anything.
- A listing of parts and tails takes a while, so a Fragment makes one only if another
  node may have acknowledged bytes.

What the last listing shows of the bytes that were acknowledged is one of these:

*complete*
    All that any node acknowledged, as long as the record does not change. A new session
    begins here: nothing has been acknowledged yet.

*recent*
    All that was acknowledged before it was made. The record named another node then,
    which may have acknowledged more since, and the record does not show that. Those
    Acks crossed the packet that is being served here, so a writer may begin with this
    listing, and takes over when it ends.

*stale*
    The same, but a writer has already begun with it. Or this node has just taken over:
    at that moment, the other one may have been sending its last Ack. The next writer
    has to list again, and then knows all, since the record names this node by now.

*overtaken*
    Another node has changed the record since. Parts and tails are listed before the
    next Ack.

This module has no state and does no work. :mod:`~txbits.backends.s3._staged` stores
the value for each session, and changes it according to :data:`TRANSITIONS`.
"""

from __future__ import annotations

from enum import Enum, auto


class Knowledge(Enum):
    """What the last listing is worth; see above."""

    COMPLETE = auto()
    RECENT = auto()
    STALE = auto()
    OVERTAKEN = auto()

    @property
    def lets_begin(self) -> bool:
        """Whether a writer may begin without listing again."""
        return self in (Knowledge.COMPLETE, Knowledge.RECENT)


class Event(Enum):
    """What changes that."""

    LISTED = auto()
    """Parts and tails were listed, and the record names this node."""

    LISTED_BEHIND = auto()
    """They were listed, and the record names another node, or none."""

    BEGUN = auto()
    """A writer of a long file has begun."""

    TAKEN_OVER = auto()
    """This node has written its name over that of another."""

    RESIGNED = auto()
    """This node has removed the name, so that no node may acknowledge any bytes."""

    CHANGED = auto()
    """Another node has changed the record."""


_ALWAYS = {
    Event.LISTED: Knowledge.COMPLETE,
    Event.LISTED_BEHIND: Knowledge.RECENT,
    Event.CHANGED: Knowledge.OVERTAKEN,
}
_NO_LONGER_NAMED = {Event.TAKEN_OVER: Knowledge.STALE, Event.RESIGNED: Knowledge.STALE}

#: What is known after each event. Every event is possible at any time.
TRANSITIONS: dict[Knowledge, dict[Event, Knowledge]] = {
    Knowledge.COMPLETE: {
        **_ALWAYS,
        **_NO_LONGER_NAMED,
        Event.BEGUN: Knowledge.COMPLETE,
    },
    Knowledge.RECENT: {**_ALWAYS, **_NO_LONGER_NAMED, Event.BEGUN: Knowledge.STALE},
    Knowledge.STALE: {**_ALWAYS, **_NO_LONGER_NAMED, Event.BEGUN: Knowledge.STALE},
    # Only a listing helps.
    Knowledge.OVERTAKEN: {**dict.fromkeys(Event, Knowledge.OVERTAKEN), **_ALWAYS},
}
