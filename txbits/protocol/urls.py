"""
URLs of server applications, and those that they hand to clients (MC-BUP 3.3).
"""

from __future__ import annotations

import re

#: The longest URL that is taken, in characters (BITSServerNotificationURL, and
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
    """Tell whether something is the absolute URL of a page: http or https."""
    return ABSOLUTE.fullmatch(url.partition("#")[0]) is not None


def fault_of_reply_url(url: str) -> str | None:
    """
    Look whether an application's reply URL can be handed to clients.

    :returns: What is wrong with it; ``None`` if nothing is.
    """
    if len(url) > LONGEST_URL:
        return f"has {len(url):,} characters; at most {LONGEST_URL:,} are taken"
    if not is_absolute(url) or not all("!" <= character <= "~" for character in url):
        return f"{url!a} is no absolute URL"
    return None
