"""
The documentation says what is so: links lead somewhere, quoted programs are the
programs, and what is a table in the code is the same table there.

It is looked for in the checkout that the tests stand in.
"""

from __future__ import annotations

import ast
import re
import runpy
import tomllib
from itertools import groupby
from pathlib import Path
from urllib.parse import unquote

from twisted.trial.unittest import SynchronousTestCase

from txbits.protocol import session
from txbits.protocol.refusals import REFUSALS, HResult
from txbits.protocol.session import Move

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"

_FENCE = re.compile(r"^(`{3,})(\w*)\n(.*?)^\1$", re.DOTALL | re.MULTILINE)
_QUOTATION = re.compile(
    r"^<!-- (include|excerpt): (\S+) -->\n```\w*\n(.*?)^```$", re.DOTALL | re.MULTILINE
)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)$", re.MULTILINE)
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def pages():
    """The pages of the documentation."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("newsfragments/README.md")]
    return sorted([*found, *ROOT.glob("docs/**/*.md")])


def prose(page):
    """A page's text without its code, in which links mean nothing."""
    return _FENCE.sub("", page.read_text())


def anchors(page):
    """The anchors that GitHub gives a page's headings."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in _HEADING.findall(prose(page))
    }


def tables(page):
    """A page's tables: lists of rows, which are lists of cells, the heads first."""
    lines = prose(page).splitlines()
    for is_table, rows in groupby(lines, lambda line: line.startswith("|")):
        if is_table:
            cells = [re.split(r"(?<!\\)\|", row.strip("|")) for row in rows]
            yield [[cell.strip() for cell in row] for row in [cells[0], *cells[2:]]]


class LinkTests(SynchronousTestCase):
    """Links from page to page."""

    def test_there_are_pages_to_test(self):
        self.assertIn(ROOT / "README.md", pages())
        self.assertIn(ROOT / "docs" / "tutorial.md", pages())

    def test_links_lead_to_files_and_headings(self):
        for page in pages():
            for links in _LINK.findall(prose(page)):
                link = links[0] or links[1]
                if re.match(r"[a-z]+:", link):
                    continue
                path, _, anchor = link.partition("#")
                target = page.parent / unquote(path) if path else page
                self.assertTrue(target.exists(), f"{page}: {link}")
                self.assertTrue(
                    target.resolve().is_relative_to(ROOT), f"{page}: {link}"
                )
                if anchor:
                    self.assertIn(anchor, anchors(target), f"{page}: {link}")

    def test_index_names_every_page_below_it(self):
        index = ROOT / "docs" / "README.md"
        linked = {index.parent / link for link, _ in _LINK.findall(prose(index))}
        for page in pages():
            if page.is_relative_to(index.parent) and EXAMPLES not in page.parents:
                self.assertIn(page, {index, *linked})


class QuotationTests(SynchronousTestCase):
    """Programs in the documentation."""

    def quotations(self):
        for page in pages():
            for kind, path, text in _QUOTATION.findall(page.read_text()):
                yield page, kind, path, text

    def test_quoted_programs_are_the_programs(self):
        for page, kind, path, text in self.quotations():
            program = (ROOT / path).read_text()
            if kind == "include":
                self.assertEqual(text, program, f"{page}: copy all of {path}")
            else:
                self.assertIn(f"\n{text}", program, f"{page}: no longer in {path}")

    def test_every_mark_of_a_quotation_is_before_code(self):
        for page in pages():
            text = page.read_text()
            marks = re.findall(r"^<!-- *(?:include|excerpt)\b.*$", text, re.MULTILINE)
            self.assertEqual(len(marks), len(_QUOTATION.findall(text)), page)

    def test_every_example_is_quoted_somewhere(self):
        quoted = {path for _, _, path, _ in self.quotations()}
        for example in EXAMPLES.rglob("*.py"):
            self.assertIn(str(example.relative_to(ROOT)), quoted)

    def test_python_that_is_no_quotation_is_python(self):
        for page in pages():
            quoted = [text for _, _, text in _QUOTATION.findall(page.read_text())]
            for _, language, text in _FENCE.findall(page.read_text()):
                if language == "python" and text not in quoted:
                    ast.parse(text, str(page))


class DependencyTests(SynchronousTestCase):
    """``pyproject.toml``, ``CONTRIBUTING.md`` and ``.ci/lowest.txt`` agree."""

    def setUp(self):
        self.project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def bounds(self, *extras):
        """The lower bounds of what txbits requires, and of some extras, by name."""
        optional = self.project["optional-dependencies"]
        wanted = [each for extra in extras for each in optional[extra]]
        return {
            re.split(r"[ \[]", each)[0].lower(): each.rpartition(" >= ")[2].partition(
                ","
            )[0]
            for each in [*self.project["dependencies"], *wanted]
        }

    def test_each_is_explained(self):
        explained = {
            word.lower()
            for table in tables(ROOT / "CONTRIBUTING.md")
            if table[0] == ["package", "purpose", "without it"]
            for row in table[1:]
            for word in re.findall(r"[\w.-]+", row[0])
        }
        self.assertEqual(self.bounds("cli", "s3").keys() - explained, set())

    def test_lowest_versions_are_the_lower_bounds(self):
        lines = (ROOT / ".ci" / "lowest.txt").read_text().splitlines()
        lowest = dict(line.split("==") for line in lines if not line.startswith("#"))
        self.assertEqual(self.bounds("cli", "s3").keys() - lowest.keys(), set())
        for name, bound in self.bounds("cli", "s3", "test").items():
            if name in lowest:
                self.assertEqual(
                    lowest[name].removesuffix(".0"), bound.removesuffix(".0"), name
                )


class ErrorTableTests(SynchronousTestCase):
    """``docs/reference/errors.md``."""

    def test_table_is_that_of_the_refusals(self):
        table = next(tables(ROOT / "docs" / "reference" / "errors.md"))
        self.assertEqual(
            table[0], ["HRESULT", "status", "cause", "remedy", "name"], "its columns"
        )
        for row, refusal in zip(table[1:], REFUSALS, strict=True):
            self.assertEqual(
                row,
                [
                    self.hresult(refusal),
                    # An application may answer with any.
                    str(refusal.status or "its own"),
                    refusal.cause,
                    refusal.remedy,
                    f"`{refusal.name}`",
                ],
            )

    def hresult(self, refusal):
        name = f"0x{refusal.hresult:08X}"
        if refusal.hresult is HResult.HTTP_STATUS:
            name = name.replace("0000", "XXXX")
        return f"`{name}`"


class LifeCycleTests(SynchronousTestCase):
    """``docs/explanation/life-cycle.md``, and the machine it is about."""

    page = ROOT / "docs" / "explanation" / "life-cycle.md"

    def machine(self):
        """The machine's transitions: state, input, next state."""
        for (state, packet), (_, following) in session.PACKETS.items():
            yield state, packet, following
        for (state, fact), following in session.FACTS.items():
            yield state, fact, following

    def test_diagram_has_the_transitions_of_the_machine(self):
        (diagram,) = (
            text
            for _, language, text in _FENCE.findall(self.page.read_text())
            if language == "mermaid"
        )
        drawn = re.findall(r"^ *(\w+) --> (\w+): (.+)$", diagram, re.MULTILINE)
        self.assertEqual(
            sorted(
                (state, method, following)
                for state, following, label in drawn
                for method in label.split(", ")
            ),
            sorted(self.machine()),
        )

    def test_diagram_begins_where_the_machine_does(self):
        self.assertEqual(
            re.findall(r"^ *\[\*\] --> (\w+)$", self.page.read_text(), re.MULTILINE),
            [session.begin()._state],
        )

    def test_table_has_the_moves_of_the_machine(self):
        head, *rows = next(tables(self.page))
        self.assertEqual(head, ["state", "fragment", "close", "cancel"])
        self.assertEqual({row[0] for row in rows}, {one for one, _ in session.PACKETS})
        for name, *moves in rows:
            for packet, move in zip(head[1:], moves, strict=True):
                self.assertIs(
                    session.PACKETS[name, packet][0], Move[move], (name, packet)
                )


class ConnectionTests(SynchronousTestCase):
    """``docs/explanation/connections.md``, and the machine it is about."""

    def test_diagram_and_tables_are_drawn_from_the_machine(self):
        drawn = runpy.run_path(str(ROOT / "docs" / "connections.py"))
        page = (ROOT / "docs" / "explanation" / "connections.md").read_text()
        for name in ("diagram", "events", "deadlines"):
            self.assertIn(
                f"\n{drawn[name]()}\n", page, f"run python docs/connections.py: {name}"
            )
