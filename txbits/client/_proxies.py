"""
The proxies that the environment names, as curl reads it.

``http_proxy``, ``https_proxy`` and ``all_proxy`` name a proxy for URLs of that scheme,
or of any; ``no_proxy`` lists hosts that are reached without one. Capital letters work
as well, except for ``HTTP_PROXY``: a web server sets that variable for its CGI programs
from a header of the request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from urllib.parse import unquote, urlsplit

from attrs import field, frozen

from txbits.client._url import InvalidURL, parse_proxy
from txbits.client.settings import Credentials

#: The port of a proxy that is named without one.
_PORT = 1080

_PARTS = re.compile(
    r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://)?(?:(?P<user>.*)@)?(?P<place>[^@]*)"
)


@frozen
class FoundProxy:
    """
    A proxy from the environment.

    :ivar url: Its URL, without a user name.
    :ivar credentials: The user name and password that its URL had.
    """

    url: str
    credentials: Credentials | None = field(default=None, repr=False)


def proxy_from(environ: Mapping[str, str], url: str) -> FoundProxy | None:
    """
    Find the proxy for a URL.

    :returns: ``None`` for a direct connection.
    :raises InvalidURL: If the proxy cannot be used; the text names the variable, but no
        password.
    """
    parts = urlsplit(url)
    names = [f"{parts.scheme}_proxy", "all_proxy"]
    names[1:1] = ["HTTPS_PROXY"] if parts.scheme == "https" else []
    names.append("ALL_PROXY")
    name = next((one for one in names if environ.get(one)), None)
    if name is None:
        return None
    if is_direct(
        environ.get("no_proxy") or environ.get("NO_PROXY", ""), parts.hostname or ""
    ):
        return None
    return _read(name, environ[name].strip())


def _read(name: str, text: str) -> FoundProxy:
    found = _PARTS.fullmatch(text.rstrip("/"))
    scheme = found["scheme"] if found else None
    if found is None or (scheme or "http").lower() != "http":
        raise InvalidURL(
            f"{name}: only HTTP proxies (http://HOST:PORT) are supported; --proxy "
            'names another, and --proxy "" none'
        )
    place = found["place"]
    if not re.search(r":[0-9]+$", place):
        place = f"{place}:{_PORT}"
    try:
        parse_proxy(f"http://{place}")
    except InvalidURL as error:
        raise InvalidURL(f"{name}: {error}") from error
    credentials = None
    if found["user"]:
        user, _, password = found["user"].partition(":")
        credentials = Credentials(unquote(user), unquote(password))
    return FoundProxy(f"http://{place}", credentials)


def is_direct(no_proxy: str, host: str) -> bool:
    """
    Whether a host is in a list of hosts that are reached without a proxy.

    :param no_proxy: Names, addresses and networks such as ``10.0.0.0/8``, separated by
        commas or spaces. A name stands for all hosts of that domain too, with or
        without a dot before it; ``*`` alone stands for all.
    :param host: A name, or an address without brackets.
    """
    if no_proxy.strip() == "*":
        return True
    host = host.lower().removesuffix(".")
    entries = re.split(r"[,\s]+", no_proxy.lower())
    try:
        address = ip_address(host)
    except ValueError:
        names = [entry.removeprefix(".").removesuffix(".") for entry in entries]
        return any(one and (host == one or host.endswith(f".{one}")) for one in names)
    for entry in entries:
        try:
            if address in ip_network(entry.strip("[]"), strict=False):
                return True
        except ValueError:
            # A name, which is no address.
            continue
    return False
