"""
The URL that a user gives, as it goes onto the wire.
"""

from __future__ import annotations

from twisted.python.url import URL


class InvalidURL(ValueError):
    """A URL that nothing can be uploaded to; the text is one line that says why."""


def to_wire(text: str) -> str:
    """
    Check a URL, and percent-encode what cannot be sent as it is.

    What the user has encoded already stays as it is: ``%2F`` and a ``/`` are not the
    same to every server, and access tokens in a query are often signed.

    :returns: The URL in ASCII.
    :raises InvalidURL: If it is none, or nothing can be uploaded there.
    """
    if any(c in "\t\r\n" or ord(c) < 0x20 or ord(c) == 0x7F for c in text):
        raise InvalidURL(f"{text!r} has control characters in it")
    if "://" not in text or text.split("://")[0].lower() not in ("http", "https"):
        raise InvalidURL(f"{text!r} does not begin with http:// or https://")
    if "#" in text:
        raise InvalidURL(f"{text!r} has a '#' in it; write %23 if it is meant")
    try:
        url = URL.fromText(text)
        url = url.replace(scheme=url.scheme.lower())
        host = url.host
        # An address in brackets is no name, and to_uri() takes everything for a name.
        encoded = (url.replace(host="address") if ":" in host else url).to_uri()
    except ValueError as error:
        raise InvalidURL(f"{text!r} is not a URL: {error}") from error
    if not host:
        raise InvalidURL(f"{text!r} names no host")
    if url.userinfo:
        raise InvalidURL("a user name in the URL is not supported")
    if not 0 < (url.port or 0) < 65536:
        raise InvalidURL(f"{text!r} has a port that does not exist")
    return encoded.replace(host=host).to_text() if ":" in host else encoded.to_text()
