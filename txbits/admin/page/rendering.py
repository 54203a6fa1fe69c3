"""
How the operator's page becomes HTML.

Each part that changes is an element with an id of its own, which is also sent alone: a
browser then replaces it. There are no inline styles and scripts, so that the policy can
forbid them.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.metadata import version
from importlib.resources import files
from typing import Any, NoReturn, cast
from urllib.parse import urlencode

from attrs import define, field, frozen
from twisted.python.filepath import FilePath
from twisted.web.error import MissingRenderMethod
from twisted.web.iweb import IRenderable, ITemplateLoader
from twisted.web.template import Element, Tag, XMLFile, flattenString, renderer, tags
from zope.interface import implementer

from txbits._deferreds import deferred
from txbits.admin.sessions import SessionFilter
from txbits.sessions.naming import shown

#: The files of this package.
FOLDER = files("txbits.admin.page")

#: Stands for all sessions of which a packet is being processed, among the states.
ACTIVE = "active"


def template(name: str) -> ITemplateLoader:
    """
    Read a template.

    :param name: The name of its file, without ``.xml``.
    """
    return XMLFile(FilePath(str(FOLDER / f"{name}.xml")))


@define(eq=False)
class _Writing:
    """
    An element that is being written.

    :ivar mark: Begins and ends what stands in for HTML that is ready. Nobody knows it
        who could write it into a text.
    :ivar ready: The HTML.
    """

    mark: str = field(factory=lambda: secrets.token_hex(16), init=False)
    ready: list[bytes] = field(factory=list, init=False)

    def stand_in(self, html: bytes) -> str:
        """What stands in for HTML until everything is written."""
        self.ready.append(html)
        return f"{self.mark}{len(self.ready) - 1}-{self.mark}"

    def finished(self, written: bytes) -> bytes:
        """Put all HTML in its place."""
        pattern = f"{self.mark}([0-9]+)-{self.mark}".encode()
        return re.sub(pattern, lambda found: self.ready[int(found[1])], written)


@deferred
async def flat(element: IRenderable) -> bytes:
    """
    Write an element as HTML.

    :returns: A Deferred that fires with the bytes.
    """
    writing = _Writing()
    # Elements expect the request in its place; those of this package do without.
    written = await flattenString(cast(Any, writing), element)
    return writing.finished(written)


@implementer(IRenderable)
@frozen(eq=False)
class Ready:
    """
    HTML that is ready, which :func:`flat` puts in its place.

    :ivar html: The HTML.
    """

    html: bytes

    def lookupRenderMethod(self, name: str) -> NoReturn:
        """There is none, since this has no template."""
        raise MissingRenderMethod(self, name)

    def render(self, request: Any) -> str:
        """Note the HTML for later."""
        return cast(_Writing, request).stand_in(self.html)


#: A slot of a template for rows, while that is flattened.
_SLOT = re.compile("{{([a-z]+)}}")


class Row:
    """
    A row of a long table. Its template is flattened once, with marks in its slots: to
    do that for each row takes twenty times as long.

    :param name: The name of the template.
    :param slots: The names of its slots.
    """

    def __init__(self, name: str, *slots: str) -> None:
        (row,) = cast(list[Tag], template(name).load())
        marks = {slot: f"{{{{{slot}}}}}" for slot in slots}
        flattened: list[bytes] = []
        flattenString(None, row.fillSlots(**marks)).addCallback(flattened.append)
        self._pieces = _SLOT.split(flattened[0].decode())

    def written(self, rows: Iterable[Mapping[str, str]]) -> Ready:
        """
        Write rows.

        :param rows: What is in the slots of each.
        """
        return Ready("\n".join(map(self._written, rows)).encode())

    def _written(self, values: Mapping[str, str]) -> str:
        pieces = list(self._pieces)
        # Every second one is the name of a slot.
        pieces[1::2] = [escape(values[name]) for name in pieces[1::2]]
        return "".join(pieces)


def filled(tag: Tag, **slots: Any) -> Tag:
    """A copy of a tag, with values for its slots."""
    copy: Tag = tag.clone().fillSlots(**slots)
    return copy


def query_of(filters: SessionFilter, cursor: str | None = None) -> str:
    """The URL of the page with certain sessions."""
    values = {
        name: f"{value:g}" if isinstance(value, float) else str(value)
        for name, value in filters.as_json().items()
    }
    if "active" in values:
        values["state"] = ACTIVE
        del values["active"]
    if cursor is not None:
        values["cursor"] = cursor
    return f"/?{urlencode(values)}" if values else "/"


def who_of(owner: str | None, client: str | None) -> str:
    """Who, and from where."""
    where = shown(client) if client else ""
    if owner is None:
        return where or "anonymous"
    return f"{shown(owner)} at {where}" if where else shown(owner)


class Live(Element):
    """What tells whether a page changes by itself, for the script."""

    loader = template("live")


class Slotted(Element):
    """
    An element whose template has slots; its outer tag is rendered by ``slots``.

    :param slots: What is in them.
    """

    def __init__(self, **slots: Any) -> None:
        super().__init__()
        self._slots = slots

    @renderer
    def slots(self, request: object, tag: Tag) -> Tag:
        return tag.fillSlots(**self._slots)


class Message(Slotted):
    """Something to read."""

    loader = template("message")

    def __init__(self, title: str, lines: Iterable[str]) -> None:
        super().__init__(title=title, lines=[tags.p(shown(line)) for line in lines])


class Document(Element):
    """
    A whole page.

    :param title: What it is about.
    :param host: The name of the machine.
    :param content: What it has.
    :param head: What its head has, beside the name.
    """

    loader = template("page")

    def __init__(
        self, title: str, host: str, content: Element, head: Sequence[Element] = ()
    ) -> None:
        super().__init__()
        self._title = title
        self._host = host
        self._content = content
        self._head = head

    @renderer
    def title(self, request: object, tag: Tag) -> str:
        return f"{self._title}: txbits on {self._host}"

    @renderer
    def host(self, request: object, tag: Tag) -> str:
        return f"on {self._host}"

    @renderer
    def head(self, request: object, tag: Tag) -> Sequence[Element]:
        return self._head

    @renderer
    def content(self, request: object, tag: Tag) -> Element:
        return self._content

    @renderer
    def version(self, request: object, tag: Tag) -> str:
        return version("txbits")
