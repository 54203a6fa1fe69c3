"""
Writes the example of a settings file: ``python docs/configuration.py >
deploy/txbits.toml``.

It has every setting, from the table that the server reads settings with. A test
compares the file with the program's output.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from txbits.service._keys import KEYS, Key
from txbits.service._kinds import DURATION, SIZE, WHOLE_DURATION, Flag, Number, Texts
from txbits.service.settings import Access, Notification
from txbits.sessions.settings import USER_SESSIONS

_WIDTH = 88

_HEAD = """\
Settings of txbits, as the units of systemd install them in /etc/txbits/txbits.toml.

A line such as "#name = value" is a setting that is not in effect; remove the "#" to
change it. The value is the default, or an example if the default is described in words.
Sizes may have the units K, M, G and T, durations s, m, h and d.

"systemctl reload txbits" reads the file again. txbits names a mistake in one line of
its log."""

_DIRECTORY = """\
A virtual directory: a URL prefix, and where uploads to it are stored. A file can have
several. A setting of directories is a default for all of them if it stands above the
first one."""

_WHO = """\
Who may use the directory. Without "authenticate", that is everyone who can reach it."""

_APPLICATION = """\
The server application that is notified of complete uploads."""

_PERMISSION = """\
Who may do what, where the directory has "authenticate": the first permission that names
the user and contains the path decides."""

_PERMISSIONS = """\
#[[directory.permission]]
#users = ["@helpdesk", "carol"]
#path = "/{user}"
#may = ["upload", "download"]

# Groups of users for the permissions of all directories.

#[groups]
#helpdesk = ["alice", "bob"]
"""

#: Settings that the file has. Only this machine can reach the server at first.
_IN_EFFECT: dict[str, Any] = {
    "listen": ["tcp:8080:interface=127.0.0.1"],
    "mount": "/",
    "backend": "disk:/var/lib/txbits/uploads",
}

#: Values of settings that are unset by default.
_EXAMPLES: dict[str, Any] = {
    "session-limit": USER_SESSIONS,
    "log-format": "json",
    "host-id": "node-1.example.org",
    "admin-listen": "unix:/run/txbits/admin:mode=660",
    "admin-directory": "/logs",
    "health-path": "/health",
    "workers": "auto",
    "password-file": "/etc/txbits/users",
    "keytab": "/etc/txbits/http.keytab",
    "token-file": "/etc/txbits/tokens",
    "jwt-keys": "/etc/txbits/jwks.json",
    "jwt-issuer": "https://login.example.org",
    "jwt-audience": "txbits",
    "link-key-file": "/etc/txbits/link-keys",
    "link-grace": "14d",
    "notify-url": "http://localhost:8000/uploads",
    "notify-send-timeout": "5m",
    "notify-response-timeout": "5m",
    "notify-reply-timeout": "5m",
    "notify-secret-file": "/etc/txbits/notify-secret",
    "public-url": "https://uploads.example.org",
}


def comment(text: str) -> str:
    """Text as a comment."""
    wrapped = (
        textwrap.fill(paragraph, _WIDTH - 2, break_on_hyphens=False)
        for paragraph in text.split("\n\n")
    )
    lines = "\n\n".join(wrapped).split("\n")
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def value_of(key: Key) -> Any:
    """
    A value of a setting, as TOML has it.

    :raises KeyError: If it has no default that is a value, and no example here.
    """
    if key.name in _IN_EFFECT:
        return _IN_EFFECT[key.name]
    if key.default != key.unset or key.name in _EXAMPLES:
        if key.name in _EXAMPLES:
            return _EXAMPLES[key.name]
        if isinstance(key.kind, Flag):
            return key.default == "true"
        if isinstance(key.kind, Texts):
            return key.default.split(", ")
        if isinstance(key.kind, Number) and re.fullmatch("[0-9]+", key.default):
            return int(key.default)
        return key.default
    if isinstance(key.kind, Texts):
        return json.loads(key.kind.example)
    if key.kind in (SIZE, DURATION, WHOLE_DURATION) or isinstance(key.kind, Number):
        return int(key.default)
    raise KeyError(f"docs/configuration.py: add an example of {key.name}")


def words(key: Key) -> str:
    """What a setting does, and when it has which default."""
    text = key.help.replace("see --", "see twistd txbits ~").replace("--", "")
    text = text.replace("~", "--").replace("; may be repeated", "")
    if key.schemes:
        text += f" Only for {' and '.join(key.schemes)}."
    if key.name in _EXAMPLES or (
        isinstance(key.kind, Texts) and key.default == key.unset
    ):
        text += f" Default: {key.default}."
    return text


def settings(keys: Iterable[Key]) -> Iterator[str]:
    """Settings, each with what it does."""
    for key in keys:
        sign = "" if key.name in _IN_EFFECT else "#"
        # JSON's strings, numbers, booleans and lists are TOML's.
        value = json.dumps(value_of(key), ensure_ascii=False)
        yield f"{comment(words(key))}{sign}{key.name} = {value}\n"


def page() -> str:
    """The whole file."""
    of_directories = [key for key in KEYS if key.of_a_directory]
    other = [k for k in of_directories if k.owner not in (Access, Notification)]
    parts = [
        comment(_HEAD),
        *settings(key for key in KEYS if not key.of_a_directory),
        comment(_DIRECTORY),
        "[[directory]]\n",
        *settings(sorted(other, key=lambda key: key.name != "mount")),
        comment(_WHO),
        *settings(key for key in of_directories if key.owner is Access),
        comment(_APPLICATION),
        *settings(key for key in of_directories if key.owner is Notification),
        comment(_PERMISSION),
        _PERMISSIONS,
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    print(page(), end="")
