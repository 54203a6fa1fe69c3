"""
Which requests the operator's listener takes besides those for pages, and what
protects those that change something.

A browser that shows an operator a page of another site may be made to send requests
here, with the operator's credentials. So

* a request is refused if the browser says that another site caused it
  (``Sec-Fetch-Site``), unless it follows a link to read a page: the other site cannot
  see answers, but could take all streams, or have sessions listed again and again; and
* a request that changes something is either a form with a token that only our own pages
  have, or a DELETE: a page of another site cannot send one without asking first (CORS),
  which is not permitted here.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qsl, unquote

from attrs import define, field, frozen
from twisted.web.server import Request

from txbits.admin.pages import READING, Page
from txbits.admin.tokens import FormTokens
from txbits.sessions import Caller
from txbits.web._streaming import headers_of

#: What a browser says of requests that no other site has caused.
_OURS = (b"same-origin", b"none")

_FORM = b"application/x-www-form-urlencoded"

# At the end of a Host header.
_PORT = re.compile(rb":[0-9]*$")

#: The field of a form that has its token.
TOKEN = "token"  # noqa: S105 - its name

#: More fields are no form of ours.
_MOST_FIELDS = 50


@define(eq=False)
class Visit:
    """
    A request, and who sends it.

    :ivar request: The request.
    :ivar caller: The operator. Where nobody has to log in, the user of a Unix socket's
        peer, as ``uid 1000``.
    :ivar parameters: The parts of the path that vary, decoded.
    :ivar query: The query; of a name that comes repeatedly, the last value.
    :ivar form: The form, likewise; empty unless the request is a POST.
    """

    request: Request
    caller: Caller
    parameters: Mapping[str, str] = field(factory=dict)
    query: Mapping[str, str] = field(factory=dict)
    form: Mapping[str, str] = field(factory=dict)


#: Answers a visit, now or later; with ``None``, it answers the request itself.
Answer = Callable[[Visit], Page | Awaitable[Page | None] | None]


@frozen(eq=False)
class Route:
    """
    What is at a path.

    :param path: The path. A segment in braces varies, such as ``/api/sessions/{id}``.
    :ivar methods: What answers GET (and HEAD), POST and DELETE.
    """

    path: str
    methods: Mapping[bytes, Answer]
    _pattern: re.Pattern[str] = field(init=False)

    @_pattern.default
    def _compiled(self) -> re.Pattern[str]:
        segments = [
            f"(?P<{one[1:-1]}>[^/]+)" if one.startswith("{") else re.escape(one)
            for one in self.path.split("/")
        ]
        return re.compile("/".join(segments))

    def match(self, path: bytes) -> dict[str, str] | None:
        """
        Tell whether this is the route of a path.

        :returns: The parts that vary, decoded; ``None`` if it is not.
        """
        found = self._pattern.fullmatch(path.decode("latin-1"))
        if found is None:
            return None
        return {
            name: unquote(one, errors="replace")
            for name, one in found.groupdict().items()
        }

    def answer(self, method: bytes) -> Answer | None:
        """What answers a method; ``None`` if nothing does."""
        return self.methods.get(b"GET" if method == b"HEAD" else method)

    @property
    def allowed(self) -> tuple[bytes, ...]:
        """The methods that are answered."""
        allowed = dict.fromkeys(self.methods)
        return (*allowed, b"HEAD") if b"GET" in allowed else tuple(allowed)


class TooManyFields(ValueError):
    """A query or a form has more fields than any of ours; the text may be shown."""


def query_of(request: Request) -> dict[str, str]:
    """
    Read the query of a request.

    :raises TooManyFields: If it has too many.
    """
    _, _, query = request.uri.partition(b"?")
    return _fields(query)


def form_of(request: Request) -> dict[str, str] | None:
    """
    Read the form that a request carries; ``None`` if it carries none.

    :raises TooManyFields: If it has too many.
    """
    (kind, *_) = headers_of(request).get(b"content-type", [b""])
    if kind.partition(b";")[0].strip().lower() != _FORM:
        return None
    content: Any = request.content
    content.seek(0)
    return _fields(content.read())


def _fields(text: bytes) -> dict[str, str]:
    try:
        return dict(
            parse_qsl(
                text.decode("latin-1"),
                keep_blank_values=True,
                errors="replace",
                max_num_fields=_MOST_FIELDS,
            )
        )
    except ValueError:
        # Without all of its filters, a query would fit more than it should.
        raise TooManyFields(f"more than {_MOST_FIELDS} fields") from None


def names_this_machine(request: Request) -> bool:
    """
    Whether a request names a host that only this machine can be.

    Where nobody has to log in, a page of another site could otherwise be made to read
    ours: its own name leads to this machine for a while (DNS rebinding), for example to
    a port that ``ssh`` forwards. Such a name has a dot.
    """
    (value, *_) = headers_of(request).get(b"host", [b""])
    name = _PORT.sub(b"", value).decode("latin-1").lower()
    host = name.strip("[]").rstrip(".")
    try:
        ip_address(host)
    except ValueError:
        return "." not in host or host.endswith(".localhost")
    return True


def comes_from_elsewhere(request: Request) -> bool:
    """
    Whether the browser says that another site has caused a request, other than by a
    link that the operator follows.
    """
    headers = headers_of(request)
    (site, *_) = headers.get(b"sec-fetch-site", [b"none"])
    (kind, *_) = headers.get(b"sec-fetch-dest", [b""])
    follows_link = request.method in READING and kind == b"document"
    return site not in _OURS and not follows_link


def why_forged(visit: Visit, tokens: FormTokens) -> str | None:
    """
    Tell why a request that changes something may not be the operator's intention.

    :returns: A few words; ``None`` if it is.
    """
    if visit.request.method == b"POST" and not tokens.check(
        visit.form.get(TOKEN, ""), visit.caller
    ):
        return "the form is invalid or has expired; reload the page"
    return None
