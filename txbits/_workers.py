"""
Several processes that serve the same directories, and which of them has a session.

In a store where a session belongs to one process, each worker has slots. A session
stays in the slot in which it was created, and its id contains the number of the slot.
Each slot belongs to one worker: which one depends on how many workers there are.
"""

from __future__ import annotations

from uuid import UUID, uuid4

from attrs import field, frozen, validators

#: How many workers there may be, and how many slots.
MOST_WORKERS = 256

# RFC 9562 5.8: the contents of an id of this version are up to its creator, except for
# the six bits of version and variant. Here the last octet is the slot, and 114 bits are
# random.
_VERSION = 8

# Version and variant of an id as a number.
_KIND = 0xF << 76 | 0b11 << 62
_SLOTTED = _VERSION << 76 | 0b10 << 62


@frozen
class Worker:
    """
    One of the processes that serve the same directories.

    :ivar number: Which one it is, from 0.
    :ivar count: How many there are.
    """

    number: int = field(default=0, validator=validators.ge(0))
    count: int = field(
        default=1, validator=[validators.ge(1), validators.le(MOST_WORKERS)]
    )

    def __attrs_post_init__(self) -> None:
        if self.number >= self.count:
            raise ValueError(f"there is no worker {self.number} of {self.count}")

    def owns(self, slot: int) -> bool:
        """Whether a slot is this worker's."""
        return slot % self.count == self.number

    def owner_of(self, session_id: UUID) -> int:
        """The number of the worker that has a session, if there is such a session."""
        return slot_of(session_id) % self.count


def new_session_id(slot: int) -> UUID:
    """
    Make the id of a new session.

    :param slot: The slot in which it is created. The ids of slot 0 are like those of a
        server without workers.
    """
    if not slot:
        return uuid4()
    octets = bytearray(uuid4().bytes)
    octets[6] = octets[6] & 0x0F | _VERSION << 4
    octets[15] = slot
    return UUID(bytes=bytes(octets))


def slot_of(session_id: UUID) -> int:
    """The slot in which a session was created."""
    number = session_id.int
    return number & 0xFF if number & _KIND == _SLOTTED else 0
