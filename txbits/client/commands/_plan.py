"""
Which files are uploaded, and where.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from attrs import field, frozen

from txbits.client.commands._command import UsageError
from txbits.client.source import printable
from txbits.protocol.urls import without_link

#: Standard input.
STDIN = "-"


@frozen
class Item:
    """
    One file.

    :ivar path: The file; ``-`` for standard input.
    :ivar url: Its destination.
    """

    path: str
    url: str = field(repr=without_link)

    @property
    def shown_url(self) -> str:
        """The destination as it is printed: an upload link is a secret."""
        return without_link(self.url)


def plan(
    paths: Sequence[str], url: str, *, recursive: bool
) -> tuple[list[Item], list[str]]:
    """
    Find the files and their destinations. This reads directories, and blocks.

    :param url: The destination. With a trailing slash it is a folder, and each file
        keeps its name.
    :param recursive: Whether to include the files in directories.
    :returns: The files, and a line for each file that is skipped.
    :raises UsageError: If arguments conflict, or a directory cannot be read.
    """
    folder = url.partition("?")[0].endswith("/")
    if not folder and (len(paths) > 1 or recursive):
        raise UsageError("with several files or -r, the URL needs a trailing slash")
    items: list[Item] = []
    left_out: list[str] = []
    for path in paths:
        if path == STDIN:
            if len(paths) > 1 or folder:
                raise UsageError("standard input goes alone, and to the URL of a file")
            items.append(Item(path, url))
        elif os.path.isdir(path):
            if not recursive:
                raise UsageError(f"{printable(path)} is a directory (use -r)")
            for name, file in _files(path, left_out):
                items.append(Item(file, below(url, name)))
        else:
            name = os.path.basename(path)
            items.append(Item(path, below(url, name) if folder else url))
    urls = {item.url for item in items}
    if len(urls) != len(items):
        raise UsageError("two of the files have the same name")
    return items, left_out


def below(url: str, name: str) -> str:
    """The URL of a file of that name in a folder."""
    path, question, query = url.partition("?")
    return path + quote(os.fsencode(name)) + question + query


def _files(directory: str, left_out: list[str]) -> Iterator[tuple[str, str]]:
    """All regular files in a directory tree, with their names in the tree."""

    def fail(error: OSError) -> None:
        raise UsageError(f"{printable(error.filename)}: {error.strerror}") from error

    top = Path(os.path.realpath(directory)).name
    for folder, folders, names in os.walk(directory, onerror=fail):
        folders.sort()
        for name in sorted([*names, *folders]):
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISREG(mode):
                relative = os.path.relpath(path, directory)
                yield os.path.join(top, relative), path
            elif not stat.S_ISDIR(mode):
                kind = "a symbolic link" if stat.S_ISLNK(mode) else "not a regular file"
                left_out.append(f"skipped {printable(path)}: {kind}")
