"""
URLs of server applications, and reply URLs that they give to clients (MC-BUP 3.3).
"""

from __future__ import annotations

import re

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
