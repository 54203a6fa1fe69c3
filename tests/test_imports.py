"""
The import contract of ``pyproject.toml`` is kept, and it sees what it must see.

It is checked as ``lint-imports`` does, in a process of its own, since that looks for
the package in its working directory.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[1]

_LINT = """
import sys
from importlinter.cli import lint_imports
sys.exit(lint_imports(no_cache=True))
"""

_NO_CIRCLES = """
[tool.importlinter]
root_package = "house"

[[tool.importlinter.contracts]]
name = "No circles"
type = "acyclic_siblings"
ancestors = ["house"]
"""


def lint(directory: Path) -> subprocess.CompletedProcess[str]:
    """Check the contract that *directory* has in its ``pyproject.toml``."""
    return subprocess.run(
        [sys.executable, "-c", _LINT], cwd=directory, capture_output=True, text=True
    )


def settings():
    """The import contract of ``pyproject.toml``."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]


class ContractTests(SynchronousTestCase):
    """What ``txbits/`` imports."""

    def test_contract_is_kept(self):
        result = lint(ROOT)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_no_module_imports_itself_through_others(self):
        # The contract compares siblings only. This also finds a circle of a package's
        # __init__.py and a module of the same package.
        graph = grimp.build_graph("txbits", cache_dir=None)
        for module in sorted(graph.modules):
            for imported in graph.find_modules_directly_imported_by(module):
                way = graph.find_shortest_chain(imported, module)
                self.assertIsNone(way, f"{module} -> {way}")


class StrictnessTests(SynchronousTestCase):
    """What the contract counts as an import."""

    def result(self, importing: str) -> int:
        """Check two modules, of which one imports the other, and this the one."""
        directory = Path(self.mktemp())
        house = directory / "house"
        house.mkdir(parents=True)
        (directory / "pyproject.toml").write_text(_NO_CIRCLES)
        (house / "__init__.py").touch()
        (house / "attic.py").write_text("from house import cellar\n")
        (house / "cellar.py").write_text(importing)
        return lint(directory).returncode

    def test_a_circle_at_the_top_of_modules(self):
        self.assertEqual(self.result("from house import attic\n"), 1)

    def test_a_circle_in_a_function(self):
        self.assertEqual(self.result("def up():\n    from house import attic\n"), 1)

    def test_a_circle_for_the_type_checker_only(self):
        self.assertEqual(
            self.result(
                "from typing import TYPE_CHECKING\n"
                "if TYPE_CHECKING:\n"
                "    from house.attic import Window\n"
            ),
            1,
        )

    def test_no_circle(self):
        self.assertEqual(self.result("import json\n"), 0)
