"""
What the wheel installs beside the programs: the units of systemd, its user and folders,
and the example of a settings file.

The tests need systemd's programs (``apt-get install systemd``), not a running systemd.
"""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.test_docs import ROOT
from txbits.service._keys import BY_NAME
from txbits.service._reading import from_file

DEPLOY = ROOT / "deploy"
EXAMPLE = DEPLOY / "txbits.toml"
SERVICES = sorted((DEPLOY / "systemd").glob("*.service"))
UNITS = sorted((DEPLOY / "systemd").iterdir())

#: Where the units expect txbits.
INSTALLED = "/opt/txbits"

#: What systemd says about the service: 0 is a closed box, 10 an open one. The rest is
#: the network, groups of files, and the kernel's boot id.
MOST_EXPOSURE = 16


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a program, and return what it wrote."""
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


class UnitTests(SynchronousTestCase):
    """``deploy/systemd``."""

    def setUp(self):
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        for unit in UNITS:
            text = unit.read_text().replace(INSTALLED, sys.prefix)
            (self.folder / unit.name).write_text(text)

    def test_systemd_understands_them(self):
        for unit in UNITS:
            done = run("systemd-analyze", "verify", str(self.folder / unit.name))
            self.assertEqual((done.returncode, done.stdout), (0, ""), unit.name)

    def test_services_are_hardened(self):
        for unit in SERVICES:
            done = run(
                "systemd-analyze",
                "security",
                "--offline=true",
                f"--threshold={MOST_EXPOSURE}",
                str(self.folder / unit.name),
            )
            self.assertEqual(done.returncode, 0, done.stdout)

    def test_what_breaks_them_is_not_set(self):
        # pyOpenSSL's callbacks are allocated as code, and the boot id is in /proc/sys.
        for unit in SERVICES:
            self.assertNotIn("\nMemoryDenyWriteExecute=", unit.read_text())
        service = (DEPLOY / "systemd" / "txbits.service").read_text()
        self.assertNotIn("\nProcSubset=", service)

    def test_they_run_programs_of_this_package(self):
        for unit in SERVICES:
            (program,) = re.findall("^ExecStart=([^ ]+)", unit.read_text(), re.M)
            path = program.replace(INSTALLED, sys.prefix)
            self.assertTrue(Path(path).is_file(), program)

    def test_the_user_is_created(self):
        root = Path(self.mktemp())
        (root / "etc").mkdir(parents=True)
        done = run(
            "systemd-sysusers",
            f"--root={root.absolute()}",
            str(DEPLOY / "sysusers.d" / "txbits.conf"),
        )
        self.assertEqual(done.returncode, 0, done.stdout)
        for file in ("passwd", "group"):
            self.assertIn("\ntxbits:", "\n" + (root / "etc" / file).read_text())

    def test_the_folders_have_the_modes_and_owners_that_secrets_need(self):
        text = (DEPLOY / "tmpfiles.d" / "txbits.conf").read_text()
        lines = [x.split() for x in text.splitlines() if x and not x.startswith("#")]
        found = {path: (kind, *rest[:3]) for kind, path, *rest in lines}
        self.assertEqual(found["/etc/txbits"], ("d", "0750", "root", "txbits"))
        self.assertEqual(
            found["/etc/txbits/txbits.toml"], ("C", "0640", "root", "txbits")
        )

    def test_the_folders_are_created_with_the_example(self):
        root = Path(self.mktemp()).absolute()
        shared = root / INSTALLED[1:] / "share" / "txbits"
        shared.mkdir(parents=True)
        (shared / EXAMPLE.name).write_bytes(EXAMPLE.read_bytes())
        # Files of another user can be made by root only.
        text = (DEPLOY / "tmpfiles.d" / "txbits.conf").read_text()
        rules = root / "rules.conf"
        rules.write_text(re.sub(r" (root|txbits) txbits\b", " - -", text))
        done = run("systemd-tmpfiles", f"--root={root}", "--create", str(rules))
        self.assertEqual(done.returncode, 0, done.stdout)
        copy = root / "etc" / "txbits" / EXAMPLE.name
        self.assertEqual(copy.read_bytes(), EXAMPLE.read_bytes())
        self.assertTrue((root / "var" / "lib" / "txbits" / "uploads").is_dir())


class ExampleTests(SynchronousTestCase):
    """``deploy/txbits.toml``."""

    def setUp(self):
        self.text = EXAMPLE.read_text()

    def test_it_is_what_is_written_anew(self):
        written = runpy.run_path(str(ROOT / "docs" / "configuration.py"))["page"]()
        self.assertEqual(
            self.text, written, "run python docs/configuration.py > deploy/txbits.toml"
        )

    def test_every_setting_is_in_it_with_a_value_that_it_can_have(self):
        found = re.findall(r"^#?([a-z-]+ = .*)$", self.text, re.M)
        values = {}
        for line in found:
            values.update(tomllib.loads(line))
        for name, key in BY_NAME.items():
            key.checked(values[name], name)

    def test_the_server_reads_it(self):
        configuration = from_file(str(EXAMPLE))
        (directory,) = configuration.directories
        self.assertEqual(directory.backend, "disk:/var/lib/txbits/uploads")

    def test_only_this_machine_can_reach_a_server_that_nobody_has_set_up(self):
        configuration = from_file(str(EXAMPLE))
        self.assertEqual(configuration.listen, ("tcp:8080:interface=127.0.0.1",))

    def test_permissions_and_groups_can_be_uncommented(self):
        begin = self.text.index("#[[directory.permission]]")
        tail = re.sub(r"^#(?! )", "", self.text[begin:], flags=re.M)
        path = self.mktemp()
        Path(path).write_text(
            self.text[:begin] + 'authenticate = ["negotiate"]\n'
            f'keytab = "{self.mktemp()}"\n' + tail
        )
        (directory,) = from_file(path).directories
        self.assertEqual(directory.access.groups, {"helpdesk": ("alice", "bob")})
        self.assertEqual(len(directory.access.permissions), 1)
