"""
Writes the man page: ``python docs/manpage.py > docs/man/txbits.1``.

argparse-manpage describes the commands and options, from the parser of the command
line; the other sections are here. A test compares the page with the program's output.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator

from argparse_manpage.manpage import Manpage

from txbits.client.cli import build_parser

_STATUSES = (
    ("0", "Done. For check: no check failed that MC-BUP requires."),
    ("1", "Wrong usage, or a file that cannot be opened or must not be replaced."),
    ("2", "Refused by the server. For check: a check failed."),
    ("3", "Gave up after temporary errors: run the command again later."),
    ("4", "The local file changed during the upload."),
    ("130", "Interrupted."),
)

_EXAMPLES = (
    (
        "Upload a file. After an interruption, the same command resumes the upload:",
        "txbits upload today.log https://uploads.example.org/logs/today.log",
    ),
    (
        "Download a file:",
        "txbits download https://uploads.example.org/logs/today.log today.log",
    ),
    (
        "Check a server, and process the report:",
        "txbits check --json http://localhost:8080/ | jq .failed",
    ),
    (
        "Cancel the sessions of your server that have made no progress for a week:",
        "txbits sessions purge --older-than 7d --config /etc/txbits/txbits.toml",
    ),
    ("Enable completion in bash:", 'eval "$(txbits completion bash)"'),
)

_ENVIRONMENT = (
    ("TXBITS_PASSWORD", "The password of --user."),
    ("TXBITS_PROXY_PASSWORD", "The password of --proxy-user."),
    (
        "http_proxy, https_proxy, all_proxy",
        "The proxy for URLs of http, of https, or of both, as curl reads them.",
    ),
    (
        "no_proxy, NO_PROXY",
        "Hosts, domains, addresses and networks that are reached without a proxy.",
    ),
    ("NETRC", "The file of passwords, in place of ~/.netrc."),
    ("XDG_STATE_HOME", "The parent of the folder txbits, which has the journals."),
)

_FILES = (
    (
        "~/.local/state/txbits",
        "Journals: the progress of uploads, for resuming them.",
    ),
    ("~/.netrc", "Passwords by host and user."),
    (
        ".FILE.txbits-part, .FILE.txbits-part.json",
        "Beside FILE during a download; the next download to FILE resumes from them.",
    ),
)

_ABOUT = """\
.B txbits
sends files to servers of BITS, Microsoft's protocol for resumable uploads, and
downloads files from web servers.
The server may be txbits, IIS, or any other BITS server."""

_SEE_ALSO = """\
.BR curl (1),
.BR twistd (1);
the documentation of txbits, which has a page on every command."""


def escaped(text: str) -> str:
    """Text as roff takes it."""
    return text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")


def definitions(font: str, pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    """A list of terms, in a font, and what each means."""
    for term, meaning in pairs:
        # A term may begin with a dot, as a request of roff does.
        yield f".TP\n.{font} \\&{escaped(term)}\n{escaped(meaning)}"


def examples() -> Iterator[str]:
    """Commands, and what each is for."""
    for purpose, command in _EXAMPLES:
        yield f".PP\n{escaped(purpose)}\n.PP\n.RS 4\n.nf\n{escaped(command)}\n.fi\n.RE"


def shorten_usages(parser: argparse.ArgumentParser) -> None:
    """Leave the names of options out of usages: a list of them follows."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                formatter = command._get_formatter()
                formatter.add_usage(None, command._get_positional_actions(), [], "")
                shown = " ".join(formatter.format_help().split())
                command.usage = shown.replace(command.prog, "%(prog)s [OPTIONS]", 1)
                shorten_usages(command)


def page() -> str:
    """The whole page."""
    parser = build_parser()
    parser.description = None
    shorten_usages(parser)
    written = Manpage(parser, format="single-commands-section")
    written.date = ""
    written.manual = "User Commands"
    written.description = "upload files to BITS servers, download files, check servers"
    for heading, content in (
        ("description", [_ABOUT]),
        ("exit status", definitions("B", _STATUSES)),
        ("environment", definitions("B", _ENVIRONMENT)),
        ("files", definitions("I", _FILES)),
        ("examples", examples()),
        ("see also", [_SEE_ALSO]),
    ):
        written.add_section(heading, ">", "\n".join(content))
    return str(written)


if __name__ == "__main__":
    print(page(), end="")
