"""
The record of a session on disk: what its state file holds.
"""

from __future__ import annotations

import json
from typing import Any

from attrs import frozen

from txbits.errors import BackendError

_VERSION = 1


@frozen
class Found:
    """
    A session as it lies on disk.

    :ivar state: The name of its state file.
    :ivar total: Its total length, ``None`` if no writer was ever opened.
    :ivar published: Whether its file stands at the destination.
    """

    destination: tuple[str, ...]
    owner: str | None
    content_name: str | None
    state: str
    total: int | None
    offset: int
    last_progress: float
    published: bool


def encoded(
    destination: tuple[str, ...], owner: str | None, content_name: str | None
) -> bytes:
    """Write a state file."""
    # In ASCII, so that a client's name for the file may be no UTF-8.
    return json.dumps(
        {
            "version": _VERSION,
            "destination": destination,
            "owner": owner,
            "content_name": content_name,
        }
    ).encode()


def decoded(
    record: bytes, directory: str
) -> tuple[tuple[str, ...], str | None, str | None]:
    """
    Read a state file.

    :raises BackendError: If it is not one that this version writes.
    """
    try:
        state: Any = json.loads(record)
        if state["version"] != _VERSION:
            raise ValueError(f"version {state['version']}")
        destination = tuple(state["destination"])
        owner, content_name = state["owner"], state["content_name"]
    except (ValueError, KeyError, TypeError) as error:
        raise BackendError(
            f"the record of the session in {directory} cannot be read: {error!r}"
        ) from error
    if not all(isinstance(segment, str) for segment in destination) or not all(
        isinstance(name, str | None) for name in (owner, content_name)
    ):
        raise BackendError(f"the record of the session in {directory} is wrong")
    return destination, owner, content_name
