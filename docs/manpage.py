"""
Writes the man page: ``python docs/manpage.py > docs/man/txbits.1``.

Commands and options come from the parser of the command line; what is said around them
stands here. A test compares the page with what this program writes.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

from txbits.client._completion import Argument, arguments, commands
from txbits.client.cli import build_parser

_STATUSES = (
    ("0", "Done. For check: nothing failed that MC-BUP demands."),
    ("1", "Wrong usage; or a file that cannot be opened, or must not be replaced."),
    ("2", "Refused by the server. For check: something failed."),
    ("3", "Gave up after errors that may pass: run it again later."),
    ("4", "The local file changed during the upload."),
    ("130", "Interrupted."),
)

_EXAMPLES = (
    (
        "Upload a file; if that is interrupted, the same command goes on:",
        "txbits upload today.log https://uploads.example.org/logs/today.log",
    ),
    (
        "Download one:",
        "txbits download https://uploads.example.org/logs/today.log today.log",
    ),
    (
        "Try out a server, and give the report to a program:",
        "txbits check --json http://localhost:8080/ | jq .failed",
    ),
    ("Complete words in bash:", 'eval "$(txbits completion bash)"'),
)

_ENVIRONMENT = (
    ("TXBITS_PASSWORD", "The password of --user."),
    ("TXBITS_PROXY_PASSWORD", "The password of --proxy-user."),
    ("NETRC", "Where passwords are, if not in ~/.netrc."),
    ("XDG_STATE_HOME", "Where journals are kept, in the folder txbits."),
)

_FILES = (
    (
        "~/.local/state/txbits",
        "How far uploads are, so that the same command goes on where it stopped.",
    ),
    ("~/.netrc", "Passwords, by host and user."),
    (
        ".FILE.txbits-part, .FILE.txbits-part.json",
        "Beside FILE while it is downloaded; the next download to it goes on with it.",
    ),
)

_ABOUT = (
    "sends files to servers of BITS, Microsoft's protocol for uploads that go on where "
    "they stopped, as Windows itself does, and gets files from web servers. "
    "A server may be txbits, an IIS, or any other."
)


def escaped(text: str) -> str:
    """Text as roff takes it."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    text = text.replace('"', "\\(dq")
    return f"\\&{text}" if text.startswith(".") else text


def lines(text: str) -> Iterator[str]:
    """Sentences, one a line, as roff likes them."""
    for sentence in re.split(r"(?<=[.;:]) +(?=[A-Z])", text):
        yield escaped(sentence)


def option(argument: Argument) -> str:
    """An option with its value, or an argument that has a place."""
    if not argument.names:
        return f"\\fI{escaped(str(argument.metavar))}\\fR"
    spelled = ", ".join(f"\\fB{escaped(name)}\\fR" for name in argument.names)
    if argument.metavar is None:
        return spelled
    return f"{spelled} \\fI{escaped(argument.metavar)}\\fR"


def usage(name: str, parser: argparse.ArgumentParser) -> str:
    """A command and its arguments, in one line."""
    known = list(arguments(parser))
    places = " ".join(
        option(each) + (" ..." if each.repeats else "")
        for each in known
        if not each.names
    )
    has_options = any(each.names and "--help" not in each.names for each in known)
    options = " [\\fIOPTIONS\\fR]" if has_options else ""
    return f"\\fBtxbits {escaped(name)}\\fR{options} {places}".rstrip()


def command(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """The section of a command."""
    yield f".SS {usage(name, parser)}"
    yield from lines(parser.description or "")
    for argument in arguments(parser):
        if "--help" in argument.names:
            continue
        yield ".TP"
        yield option(argument)
        text = argument.help[:1].upper() + argument.help[1:]
        yield from lines(text if text.endswith((".", ")")) else f"{text}.")


def page() -> str:
    """The whole page."""
    parser = build_parser()
    found = [
        '.\\" Written by docs/manpage.py.',
        ".TH TXBITS 1",
        ".SH NAME",
        "txbits \\- upload files to BITS servers, download files, try servers out",
        ".SH SYNOPSIS",
    ]
    for index, (name, one) in enumerate(commands(parser).items()):
        found += [".br"] * bool(index) + [usage(name, one)]
    found += [".SH DESCRIPTION", ".B txbits", *lines(_ABOUT), ".SH COMMANDS"]
    for name, one in commands(parser).items():
        found += command(name, one)
    found += [".SH EXIT STATUS"]
    for status, text in _STATUSES:
        found += [".TP", f".B {status}", *lines(text)]
    found += [".SH ENVIRONMENT"]
    for variable, text in _ENVIRONMENT:
        found += [".TP", f".B {escaped(variable)}", *lines(text)]
    found += [".SH FILES"]
    for file, text in _FILES:
        found += [".TP", f".I {escaped(file)}", *lines(text)]
    found += [".SH EXAMPLES"]
    for text, example in _EXAMPLES:
        found += [".PP", *lines(text), ".PP", ".RS 4", ".nf", escaped(example), ".fi"]
        found += [".RE"]
    found += [
        ".SH SEE ALSO",
        ".BR curl (1),",
        ".BR twistd (1);",
        "the documentation of txbits, which has a page on every command.",
    ]
    return "\n".join([*found, ""])


if __name__ == "__main__":
    print(page(), end="")
