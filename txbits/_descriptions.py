"""
Descriptions of plug-ins: one string, such as ``disk:/srv/uploads``, becomes an object.

The syntax is that of Twisted's endpoint strings: a prefix, then positional and
``name=value`` parts between colons. A backslash escapes a colon, an equals sign or a
backslash. The prefix selects the Twisted plugin that makes the object.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any, TypeVar

from twisted.plugin import getPlugins

from txbits.errors import InvalidSetting

T = TypeVar("T")


def parse_description(
    text: str, what: str = "a backend description, such as disk:/srv/uploads"
) -> tuple[str, tuple[str, ...], dict[str, str]]:
    r"""
    Parse a description.

    ``"s3:logs:prefix=in/:endpoint=http\://host"`` gives ``("s3", ("logs",),
    {"prefix": "in/", "endpoint": "http://host"})``. Only a colon
    ends a value, which may contain equals signs. ``"memory:"`` has no parts.

    :param what: What it must be, for error messages.
    :returns: The prefix, the positional parts and the named parts, unescaped.
    :raises InvalidSetting: If there is no prefix, a name is given twice, or the text
        ends in a backslash.
    """
    prefix, colon, rest = text.partition(":")
    if not colon or not prefix or "=" in prefix or "\\" in prefix:
        raise InvalidSetting(f"{text!r} is not {what}")
    args: list[str] = []
    kwargs: dict[str, str] = {}
    for name, value in _parts(rest) if rest else ():
        if name is None:
            args.append(value)
        elif name in kwargs:
            raise InvalidSetting(f"{text!r}: {name!r} is given twice")
        else:
            kwargs[name] = value
    return prefix, tuple(args), kwargs


def _parts(text: str) -> Iterator[tuple[str | None, str]]:
    """Split at colons; each part is a name, ``None`` if it has none, and a value."""
    name: str | None = None
    value = ""
    characters = iter(text)
    for character in characters:
        if character == "\\":
            try:
                value += next(characters)
            except StopIteration:
                raise InvalidSetting(
                    f"{text!r} ends in a backslash; write \\\\ for one"
                ) from None
        elif character == ":":
            yield name, value
            name, value = None, ""
        elif character == "=" and name is None:
            name, value = value, ""
        else:
            value += character
    yield name, value


def installed(interface: Any, key: str) -> list[Any]:
    """
    Find the parsers of all installed plugins, ours and third parties'.

    A plugin that cannot be imported is logged by Twisted and left out.

    :param interface: What the parsers provide.
    :param key: The attribute with the first word of their descriptions.
    :returns: The parsers, sorted by that.
    """
    parsers = [
        parser
        for parser in getPlugins(interface)
        if isinstance(getattr(parser, key, None), str)
    ]
    return sorted(parsers, key=attrgetter(key))


def make(
    maker: Callable[..., T],
    form: str,
    context: Any,
    args: tuple[str, ...],
    kwargs: dict[str, str],
) -> T:
    """
    Make an object from the parts of a description.

    :param maker: Makes it, from the context and the parts.
    :param form: The form of such descriptions, for error messages.
    :raises InvalidSetting: If *maker* does not accept them.
    """
    try:
        # Bound apart from the call, so that a TypeError inside it stays visible.
        inspect.signature(maker).bind(context, *args, **kwargs)
    except TypeError as error:
        raise InvalidSetting(
            f"{error}; write {form}, with a backslash before each : or = in a value"
        ) from error
    try:
        return maker(context, *args, **kwargs)
    except InvalidSetting:
        raise
    except ValueError as error:
        raise InvalidSetting(f"{error}; write {form}") from error
