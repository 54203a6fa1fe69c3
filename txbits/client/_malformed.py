"""
What is wrong with an answer that is not valid HTTP, in words.

Twisted reports it with the exceptions of the functions that failed, which contain the
value, but rarely the name of its header.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from txbits.protocol.codec import quoted

#: How a TLS alert begins: its type, and the major version.
_TLS = b"\x15\x03"

_BYTES = re.compile(r"b('[^']*'|\"[^\"]*\")")


def describe_malformed(reasons: Iterable[BaseException]) -> str | None:
    """
    Describe an invalid answer on one line.

    :param reasons: The causes of an error, innermost first.
    :returns: The description, or ``None`` if the error has another reason.
    """
    for reason in reasons:
        # Its parser's own: what is wrong, and with which bytes.
        if len(reason.args) == 2 and isinstance(reason.args[1], bytes):
            if reason.args[1].startswith(_TLS):
                return "this port speaks TLS; use https://"
            shown = _shown(reason.args[1])
            if reason.args[1].startswith(b"HTTP/") and b" " not in reason.args[1]:
                return f"the answer has an invalid HTTP version: {shown}"
            return f"the answer is not HTTP; it begins with {shown}"
        if isinstance(reason, KeyError) and isinstance(reason.args[0], bytes):
            shown = _shown(reason.args[0])
            return f"the answer has an unexpected Transfer-Encoding: {shown}"
        if isinstance(reason, ValueError):
            return _of_value(str(reason))
    return None


def _of_value(words: str) -> str:
    match = _BYTES.search(words)
    if match is None:
        return "the answer has an invalid header line"
    shown = quoted(match[1][1:-1])
    if "conflicting" in words or "," in match[1]:
        return f"the answer has several Content-Length values: {shown}"
    return f"the answer has an invalid Content-Length: {shown}"


def _shown(value: bytes) -> str:
    return quoted(value.decode("latin-1"))
