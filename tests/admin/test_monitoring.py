"""
``deploy/prometheus`` and ``deploy/grafana``: they ask for metrics that there are, and
each alert fires when it should, which ``promtool`` tells (``apt-get install
prometheus``).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import TestSuite

import yaml
from twisted.trial.runner import TestLoader
from twisted.trial.unittest import SynchronousTestCase

from tests.test_docs import ROOT
from txbits.admin.metrics import METRICS

RULES = ROOT / "deploy" / "prometheus" / "txbits.rules.yaml"
RULES_TEST = ROOT / "deploy" / "prometheus" / "txbits.rules.test.yaml"
DASHBOARD = ROOT / "deploy" / "grafana" / "txbits.json"

#: What Prometheus adds to the names of a histogram, and to its labels.
SERIES = {"histogram": ("_bucket", "_sum", "_count")}
ADDED = {"job", "instance", "le"}

#: A selector, and the labels that a sum is grouped by.
SELECTOR = re.compile(r"(txbits_\w+)(?:\{([^}]*)\})?")
GROUPED = re.compile(r"by \(([^)]*)\)")


def series() -> dict[str, set[str]]:
    """The labels of each series that the server has, by name."""
    return {
        one.name + end: set(one.labels) | ADDED
        for one in METRICS
        for end in SERIES.get(one.kind, ("",))
    }


def queries() -> list[str]:
    """All queries of the dashboard."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [one["expr"] for panel in panels for one in panel.get("targets", ())]


def alerts() -> dict[str, dict]:
    """The alerts, by name."""
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return {one["alert"]: one for one in group["rules"]}


class QueryTests(SynchronousTestCase):
    """What the files ask for."""

    def check(self, query: str) -> None:
        """Check that a query asks for series that there are, by labels they have."""
        known = series()
        selected = SELECTOR.findall(query)
        labels = set()
        for name, conditions in selected:
            self.assertIn(name, known, query)
            asked = {
                re.split("[=!]", one, maxsplit=1)[0].strip()
                for one in re.split(r",(?=\w+[=!])", conditions)
                if one
            }
            self.assertLessEqual(asked, known[name], query)
            labels |= known[name]
        for grouped in GROUPED.findall(query):
            self.assertLessEqual({x.strip() for x in grouped.split(",")}, labels, query)

    def test_alerts_ask_for_metrics_that_there_are(self) -> None:
        for name, alert in alerts().items():
            if name != "TxbitsDown":
                self.assertRegex(alert["expr"], SELECTOR)
                self.check(alert["expr"])

    def test_dashboard_asks_for_metrics_that_there_are(self) -> None:
        for query in queries():
            self.assertRegex(query, SELECTOR)
            self.check(query)

    def test_dashboard_shows_every_metric_but_what_others_tell(self) -> None:
        text = " ".join(queries())
        absent = {one.name for one in METRICS if one.name not in text}
        self.assertEqual(
            absent,
            {
                # Other panels show the same, but for the last two, which are facts
                # about the server.
                "txbits_downloads_total",
                "txbits_cleanup_seconds",
                "txbits_connections_made_total",
                "txbits_start_time_seconds",
                "txbits_info",
            },
        )

    def test_a_wrong_name_would_be_found(self) -> None:
        for query in (
            "rate(txbits_received_total[5m])",
            'txbits_sessions{direktory="/"}',
            "sum by (status) (txbits_sessions)",
        ):
            self.assertRaises(self.failureException, self.check, query)


class AlertTests(SynchronousTestCase):
    """What ``promtool`` says."""

    def promtool(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["promtool", *arguments],
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def test_rules_are_valid(self) -> None:
        done = self.promtool("check", "rules", RULES.name, cwd=RULES.parent)
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_alerts_fire_when_they_should(self) -> None:
        done = self.promtool("test", "rules", RULES_TEST.name, cwd=RULES.parent)
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_each_alert_fires_in_a_test_and_is_silent_in_one(self) -> None:
        wanted: dict[str, set[bool]] = {name: set() for name in alerts()}
        for test in yaml.safe_load(RULES_TEST.read_text())["tests"]:
            for one in test["alert_rule_test"]:
                wanted[one["alertname"]].add(bool(one["exp_alerts"]))
        self.assertEqual(wanted, {name: {True, False} for name in wanted})

    def test_a_rule_that_does_not_fire_is_a_failure(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        rules = RULES.read_text().replace(
            "txbits_backend_failing == 1", "vector(0) > 1"
        )
        (folder / RULES.name).write_text(rules)
        (folder / RULES_TEST.name).write_text(RULES_TEST.read_text())
        done = self.promtool("test", "rules", RULES_TEST.name, cwd=folder)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("TxbitsBackendFails", done.stdout)


def testSuite() -> TestSuite:
    """The tests that this machine can run; with ``CI`` in the environment, all."""
    loader = TestLoader()
    suite = TestSuite([loader.loadClass(QueryTests)])
    if shutil.which("promtool") or os.environ.get("CI"):
        suite.addTest(loader.loadClass(AlertTests))
    else:
        sys.stderr.write("The tests of the alerts do not run without promtool.\n")
    return suite
