"""
What the tests of the operator's listener have in common.
"""

from __future__ import annotations

from tests.web import support


def request(method: bytes, target: bytes, **headers) -> bytes:
    """Write a request as somebody at the machine itself sends it."""
    return support.request(method, target, **{"host": b"localhost", **headers})
