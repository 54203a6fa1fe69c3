"""
Builds the reference of the package from its docstrings.

``python docs/apidocs.py FOLDER`` writes it there, as HTML.

pydoctor knows zope's interfaces, which is why we use it, but not attrs's present names,
Sphinx's tilde, nor interfaces that derive from another package's. What it reads is
therefore a copy of the package in which these are written in its way. Any warning makes
the build fail.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from pydoctor.driver import main as pydoctor

PACKAGE = Path(__file__).parents[1] / "txbits"

_ROLE = re.compile(r":(?:class|meth|func|mod|data|exc|attr):`~?([^`]*)`")
_BUILT_IN = re.compile(r"[A-Za-z]*Error|SystemExit|bytes|str|int")


def _reference(match: re.Match[str]) -> str:
    target = match[1]
    if target.startswith("txbits") or (
        "." not in target and not _BUILT_IN.fullmatch(target)
    ):
        return f"`{target}`"
    # Others' names would need their inventories, from the network.
    return f"``{target}``"


def _is_attrs(decorator: ast.expr) -> bool:
    name = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(name, ast.Name) and name.id in ("define", "frozen")


def in_pydoctors_way(source: str) -> str:
    """
    Rewrite a module, line by line, so that warnings name the right lines.

    :param source: Its text.
    """
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.ClassDef)
            and any(map(_is_attrs, node.decorator_list))
            and ast.get_docstring(node) is not None
        ):
            # The fields are the parameters.
            docstring = node.body[0]
            for number in range(docstring.lineno - 1, docstring.end_lineno or 0):
                lines[number] = lines[number].replace(":param ", ":ivar ")
    text = _ROLE.sub(_reference, "".join(lines))
    text = text.replace(
        "from twisted.plugin import IPlugin",
        "from zope.interface import Interface as IPlugin",
    )
    return re.sub(r"(?m)^ +\w+\.__doc__ = .*$", "", text)


def build(folder: Path) -> int:
    """
    Write the reference.

    :param folder: Where the HTML goes.
    :returns: An exit status.
    """
    with TemporaryDirectory() as scratch:
        for module in PACKAGE.rglob("*.py"):
            copy = Path(scratch) / "txbits" / module.relative_to(PACKAGE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(in_pydoctors_way(module.read_text()))
        return pydoctor(
            [
                "--project-name=txbits",
                f"--project-base-dir={scratch}",
                "--docformat=restructuredtext",
                f"--html-output={folder}",
                "--warnings-as-errors",
                "--quiet",
                f"{scratch}/txbits",
            ]
        )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/apidocs.py FOLDER")
    sys.exit(build(Path(sys.argv[1])))
