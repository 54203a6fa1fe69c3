"""
Keytabs: the file format of MIT Kerberos, which all others write as well.

The library says nothing about a keytab until the first client comes, and little then.
So it is read here when the server starts. Keys are skipped.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from attrs import frozen

from txbits.access._files import read_secret_file
from txbits.errors import InvalidSetting

#: A keytab of thousands of keys is shorter, in bytes.
_LONGEST = 1024 * 1024

# The format, and its version: numbers are big-endian since the second.
_MAGIC = b"\x05\x02"

#: So many principals are named in a message.
_MOST_NAMED = 3


@frozen
class KeytabEntry:
    """
    What a keytab tells about one key.

    :ivar components: The parts of the principal's name, such as ``HTTP`` and the host.
    :ivar realm: The realm of the principal.
    :ivar version: The version of the key.
    """

    components: tuple[str, ...]
    realm: str
    version: int

    def __str__(self) -> str:
        return f"{'/'.join(self.components)}@{self.realm}"


class _Malformed(Exception):
    """This is not a keytab."""


@frozen
class _Reader:
    """Reads numbers and texts, one after the other."""

    data: bytes
    position: list[int]

    def number(self, form: str) -> int:
        size = struct.calcsize(form)
        (value,) = struct.unpack(form, self.take(size))
        return int(value)

    def take(self, size: int) -> bytes:
        start = self.position[0]
        taken = self.data[start : start + size]
        if size < 0 or len(taken) != size:
            raise _Malformed
        self.position[0] += size
        return taken

    def text(self) -> str:
        return self.take(self.number(">H")).decode("utf-8", "replace")

    @property
    def rest(self) -> int:
        return len(self.data) - self.position[0]


def check_keytab(path: str, service: str = "HTTP") -> tuple[KeytabEntry, ...]:
    """
    Check that a keytab can be read, and has a key of a service. This blocks.

    :param service: The service that clients log in to.
    :returns: The keys of this service, never none.
    :raises InvalidSetting: If it cannot be used. The text is one line.
    """
    wanted = f"the keys of {service}/HOST, from ktpass, msktutil or kadmin"
    content = read_secret_file(path, wanted, _LONGEST)
    try:
        entries = tuple(_entries(content))
    except _Malformed:
        raise InvalidSetting(
            f"{path} is not a keytab; it must contain {wanted}"
        ) from None
    found = tuple(
        one
        for one in entries
        if len(one.components) == 2 and one.components[0] == service
    )
    if not found:
        raise InvalidSetting(
            f"{path} has no key of {service}/HOST, {_instead(entries)}; export it with "
            "ktpass, msktutil or kadmin"
        )
    return found


def _entries(content: bytes) -> Iterator[KeytabEntry]:
    if not content.startswith(_MAGIC):
        raise _Malformed
    reader = _Reader(content, [len(_MAGIC)])
    while reader.rest:
        size = reader.number(">i")
        if size == 0:
            # The rest is unused.
            return
        record = reader.take(abs(size))
        # A deleted key leaves a hole.
        if size > 0:
            yield _entry(_Reader(record, [0]))


def _entry(record: _Reader) -> KeytabEntry:
    number = record.number(">H")
    realm = record.text()
    components = tuple(record.text() for _ in range(number))
    record.take(8)  # the type of the name, and a time
    version = record.number(">B")
    record.take(2)  # the type of the key
    record.take(record.number(">H"))
    # Versions over 255 follow the key.
    if record.rest >= 4:
        version = record.number(">I") or version
    return KeytabEntry(components, realm, version)


def _instead(entries: Iterable[KeytabEntry]) -> str:
    named = list(dict.fromkeys(ascii(str(one))[1:-1] for one in entries))
    if not named:
        return "nor any other"
    more = ", ..." if len(named) > _MOST_NAMED else ""
    return f"only of {', '.join(named[:_MOST_NAMED])}{more}"
