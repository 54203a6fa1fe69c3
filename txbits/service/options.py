"""
The command line of ``twistd -n txbits``.

A mistake on it ends the process with one line and exit status 1. ``twistd`` would
print its whole usage for one, and ``twist`` would exit with status 64.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.python import usage

from txbits.backends import available_parsers
from txbits.errors import InvalidSetting
from txbits.service._keys import BY_NAME, KEYS, Key
from txbits.service._kinds import Flag, Proxies, Texts, closest
from txbits.service.settings import Configuration, default_of, from_options

#: A directory that is not enabled makes sense beside others only.
_NO_OPTIONS = ("enabled",)

#: The kinds of those that are given once for each of several values.
_REPEATED = (Texts, Proxies)


def one_line(error: object) -> str:
    """
    Write an error as one line that begins with our name.
    """
    return f"txbits: {' '.join(str(error).split())}"


def remove_own_pidfile(path: str) -> None:
    """
    Remove a pid file that names this very process, which has not written it yet.

    In a container the server has the same pid in each run, often 1. One that was killed
    leaves its pid file, and ``twistd``, which looks whether a process of that number
    lives, takes itself for another server.

    :param path: The file; one that is not there, or cannot be read, is left to
        ``twistd`` to complain of.
    """
    with suppress(OSError, ValueError):
        if int(Path(path).read_bytes()) == os.getpid():
            os.unlink(path)


def _help(key: Key) -> str:
    return f"{key.help} [default: {default_of(key)}]"


class Options(usage.Options):
    """
    The options, from the same table as the keys of the TOML file.

    After parsing, ``options["configuration"]`` is a
    :class:`~txbits.service.settings.Configuration`.
    """

    synopsis = "[options]"
    longdesc = (
        "Receives BITS uploads over HTTP, as Windows sends them, and publishes the "
        "files when they are whole."
    )
    optFlags = [
        [key.name, None, key.help]
        for key in KEYS
        if isinstance(key.kind, Flag) and key.name not in _NO_OPTIONS
    ]
    optParameters = [
        *(
            [key.name, None, None, _help(key)]
            for key in KEYS
            if not isinstance(key.kind, (Flag, *_REPEATED))
        ),
        [
            "config",
            None,
            None,
            "TOML file with several virtual directories.",
        ],
    ]

    def __init__(self) -> None:
        super().__init__()
        self.repeated: dict[str, list[str]] = {}

    def opt_listen(self, endpoint: str) -> None:
        self.repeated.setdefault("listen", []).append(endpoint)

    opt_listen.__doc__ = _help(BY_NAME["listen"])

    def opt_trusted_proxies(self, network: str) -> None:
        self.repeated.setdefault("trusted-proxies", []).append(network)

    opt_trusted_proxies.__doc__ = _help(BY_NAME["trusted-proxies"])

    def opt_help_backends(self) -> None:
        """
        List the kinds of backends, ours and those of plugins, and exit.
        """
        for parser in available_parsers():
            print(f"{parser.format}\n    {parser.help}")
        raise SystemExit(0)

    def parseArgs(self, *arguments: str) -> None:
        for argument in arguments:
            raise usage.UsageError(f"{argument!r} stands there without an option")

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """
        Parse the command line.

        :raises SystemExit: With the one line, for exit status 1.
        """
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            raise SystemExit(one_line(error) + self._meant(str(error))) from None

    def postOptions(self) -> None:
        try:
            self["configuration"] = self.configuration()
        except InvalidSetting as error:
            raise usage.UsageError(str(error)) from None
        # twistd's own have such an option, twist's do not.
        if self.parent is not None and self.parent.get("pidfile"):
            remove_own_pidfile(self.parent["pidfile"])

    def configuration(self) -> Configuration:
        """
        Build the configuration of what was given.

        :raises InvalidSetting: If something cannot be used.
        """
        given: dict[str, Any] = dict(self.repeated)
        for name, value in self.items():
            if name in BY_NAME:
                kind = BY_NAME[name].kind
                if isinstance(kind, Flag):
                    if value:
                        given[name] = True
                elif value is not None:
                    given[name] = kind.parse(value)
            elif name == "config" and value is not None:
                given[name] = value
        return from_options(given)

    def _meant(self, complaint: str) -> str:
        """
        Say what was meant by an option that getopt does not know.
        """
        unknown = re.fullmatch("option --(.*) not recognized", complaint)
        if unknown is None:
            return ""
        return closest(
            unknown[1].partition("=")[0],
            [f"--{option.removesuffix('=')}" for option in self.longOpt],
        )
