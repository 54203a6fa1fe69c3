"""
URLs of server applications, reply URLs that they give to clients (MC-BUP 3.3), and
upload links in queries.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

#: The maximum length of a URL, in characters (BITSServerNotificationURL, and
#: BITS-Static-Response-URL).
LONGEST_URL = 2200

#: An absolute URL without a fragment.
ABSOLUTE = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>\[(?P<ipv6>[0-9a-f:.]+)\]|[a-z0-9._~-]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[^?#]*)?(?:\?(?P<query>[^#]*))?",
    re.IGNORECASE,
)


def is_absolute(url: str) -> bool:
    """Tell whether a text is an absolute http or https URL."""
    return ABSOLUTE.fullmatch(url.partition("#")[0]) is not None


def fault_of_reply_url(url: str) -> str | None:
    """
    Check whether an application's reply URL can be given to clients.

    :returns: What is wrong with it; ``None`` if nothing is.
    """
    if len(url) > LONGEST_URL:
        return f"has {len(url):,} characters; the maximum is {LONGEST_URL:,}"
    if not is_absolute(url) or not all("!" <= character <= "~" for character in url):
        return f"{url!a} is not an absolute URL"
    return None


# Upload links

#: The parameter of a query that has an upload link.
LINK_PARAMETER = "txbits-link"

# A client may percent-encode any character of the name.
_NAME = "".join(f"(?:{re.escape(one)}|%{ord(one):02x})" for one in LINK_PARAMETER)
_WITH_LINK = re.compile(
    rf"([?&;]){_NAME}(?=[=&;#\s\"]|$)[^&;#\s\"]*([&;])?", re.IGNORECASE
)


def links_of(query: bytes) -> list[bytes]:
    """
    Find the upload links in a query.

    :param query: The query of a URL, without the question mark.
    :returns: The values of all parameters of that name, percent-decoded.
    """
    name = LINK_PARAMETER.encode()
    pairs = (one.partition(b"=") for one in query.split(b"&"))
    return [
        unquote_to_bytes(value)
        for key, _, value in pairs
        if key == name or (b"%" in key and unquote_to_bytes(key) == name)
    ]


def without_link(text: str) -> str:
    """
    Remove upload links, which are secrets, from what is shown or passed on.

    :param text: A URL, a request target, or a text with one. Whatever resembles a link
        is removed, even if it is not valid.
    """
    if "?" not in text:
        return text
    before = None
    while before != text:
        # Each round removes at least half of the parameters that follow one another.
        before, text = text, _WITH_LINK.sub(_separator, text)
    return text


def _separator(match: re.Match[str]) -> str:
    return match[1] if match[2] else ""
