"""
How the operator's page becomes HTML.

Each part that changes is an element with an id of its own, which is also sent alone: a
browser then replaces it. There are no inline styles and scripts, so that the policy can
forbid them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.metadata import version
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

from twisted.internet.defer import Deferred
from twisted.python.filepath import FilePath
from twisted.web.iweb import IRenderable, ITemplateLoader
from twisted.web.template import Element, Tag, XMLFile, flattenString, renderer, tags

from txbits.admin.sessions import SessionFilter
from txbits.sessions.naming import shown

#: The files of this package.
FOLDER = files("txbits.admin.page")

#: Stands for all sessions in which a packet is being settled, among the states.
ACTIVE = "active"


def template(name: str) -> ITemplateLoader:
    """
    Read a template.

    :param name: The name of its file, without ``.xml``.
    """
    return XMLFile(FilePath(str(FOLDER / f"{name}.xml")))


def flat(element: IRenderable) -> Deferred[bytes]:
    """
    Write an element as HTML.

    :returns: A Deferred that fires with the bytes.
    """
    return flattenString(None, element)


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
