"""
The command line of ``twistd -n txbits``.

A mistake on it ends the process with one line and exit status 1. Without this,
``twistd`` would print its whole usage, and ``twist`` would exit with status 64.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from twisted.logger import textFileLogObserver
from twisted.python import usage

from txbits._version import versions
from txbits.access.description import available_authenticators
from txbits.backends import available_parsers
from txbits.errors import InvalidSetting
from txbits.service._access import SCHEMES
from txbits.service._keys import BY_NAME, KEYS, Key
from txbits.service._kinds import Flag, Texts, closest
from txbits.service._log_lines import text_observer
from txbits.service._logs import json_observer, observer_factory
from txbits.service._process import one_line, remove_own_pidfile
from txbits.service._reading import from_options
from txbits.service.settings import Configuration

_OPTIONS = [key for key in KEYS if key.is_option]


def _help(key: Key) -> str:
    return f"{key.help} [default: {key.default}]"


class Options(usage.Options):
    """
    The options, from the same table as the keys of the TOML file.

    After parsing, ``options["configuration"]`` is a
    :class:`~txbits.service.settings.Configuration`.

    :ivar make_observer: Makes what ``twistd`` is to log with; ``None`` for its own.
    """

    synopsis = "[options]"
    longdesc = (
        "Receives BITS uploads from Windows over HTTP and publishes complete files."
    )
    optFlags = [
        [key.name, None, key.help] for key in _OPTIONS if isinstance(key.kind, Flag)
    ]
    optParameters = [
        *(
            [key.name, None, None, _help(key)]
            for key in _OPTIONS
            if not isinstance(key.kind, (Flag, Texts))
        ),
        ["config", None, None, "TOML file with one or more virtual directories."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self.repeated: dict[str, list[str]] = {}
        self.make_observer: Callable[[], Any] | None = None

    def opt_listen(self, endpoint: str) -> None:
        self.repeated.setdefault("listen", []).append(endpoint)

    opt_listen.__doc__ = _help(BY_NAME["listen"])

    def opt_authenticate(self, scheme: str) -> None:
        self.repeated.setdefault("authenticate", []).append(scheme)

    opt_authenticate.__doc__ = _help(BY_NAME["authenticate"])

    def opt_trusted_proxies(self, network: str) -> None:
        self.repeated.setdefault("trusted-proxies", []).append(network)

    opt_trusted_proxies.__doc__ = _help(BY_NAME["trusted-proxies"])

    def opt_help_backends(self) -> None:
        """List all kinds of backends, including those of plugins, and exit."""
        for parser in available_parsers():
            print(f"{parser.format}\n    {parser.help}")
        raise SystemExit(0)

    def opt_help_authenticators(self) -> None:
        """List all authentication schemes, including those of plugins, and exit."""
        for scheme in SCHEMES:
            print(f"{scheme.name}\n    {scheme.help}")
        for authenticator in available_authenticators():
            print(f"{authenticator.format}\n    {authenticator.help}")
        raise SystemExit(0)

    def opt_version(self) -> None:
        """Display the versions of txbits and Twisted, and exit."""
        print(versions())
        raise SystemExit(0)

    def parseArgs(self, *arguments: str) -> None:
        for argument in arguments:
            raise usage.UsageError(f"unexpected argument {argument!r}")

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """
        Parse the command line.

        :raises SystemExit: With one line, for exit status 1.
        """
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            raise SystemExit(one_line(error) + self._meant(str(error))) from None

    def postOptions(self) -> None:
        try:
            self["configuration"] = configuration = self.configuration()
            self._choose_log(configuration.log_format)
        except InvalidSetting as error:
            raise usage.UsageError(str(error)) from None
        # twistd has this option, twist does not.
        if self.parent is not None and self.parent.get("pidfile"):
            remove_own_pidfile(self.parent["pidfile"])

    def configuration(self) -> Configuration:
        """
        Build the configuration from the options that were given.

        :raises InvalidSetting: If one of them cannot be used.
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

    def _choose_log(self, log_format: str | None) -> None:
        """
        Tell ``twistd`` or ``twist`` how to log.

        :raises InvalidSetting: If its own options contradict the setting.
        """
        parent = {} if self.parent is None else self.parent
        if "fileLogObserverFactory" in parent:
            if log_format == "json":
                parent["fileLogObserverFactory"] = json_observer
            elif (
                log_format == "text"
                or parent["fileLogObserverFactory"] is textFileLogObserver
            ):
                parent["fileLogObserverFactory"] = text_observer
        elif "nodaemon" in parent:
            if not parent.get("syslog") and not parent["logger"]:
                self.make_observer = observer_factory(log_format, parent)
            elif log_format == "json":
                raise InvalidSetting(
                    "log-format: json cannot be combined with --syslog and --logger "
                    "of twistd"
                )

    @property
    def logs_to_file(self) -> bool:
        """Whether ``twistd`` or ``twist`` logs elsewhere than to standard output."""
        parent = {} if self.parent is None else self.parent
        if "nodaemon" in parent:
            is_shown = parent["nodaemon"] and parent["logfile"] in (None, "", "-")
            return not is_shown or bool(parent.get("syslog") or parent["logger"])
        return parent.get("logFile", sys.stdout) not in (sys.stdout, sys.stderr)

    def _meant(self, complaint: str) -> str:
        """Suggest what was meant by an unknown option."""
        unknown = re.fullmatch("option --(.*) not recognized", complaint)
        if unknown is None:
            return ""
        return closest(
            unknown[1].partition("=")[0],
            [f"--{option.removesuffix('=')}" for option in self.longOpt],
        )
