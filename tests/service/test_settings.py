"""
The TOML file: what it becomes, and what is said about a mistake in it.
"""

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txbits.errors import InvalidSetting
from txbits.service._keys import KEYS
from txbits.service._kinds import Flag
from txbits.service._reading import from_file
from txbits.service.options import Options


class FileTests(SynchronousTestCase):
    """One file, several directories."""

    def read(self, text):
        """Read a file, whose directories are in memory unless it says otherwise."""
        if "backend" not in text:
            text = text.replace("[[directory]]", "[[directory]]\nbackend = 'memory:'")
        self.path = self.mktemp()
        Path(self.path).write_text(text)
        return from_file(self.path)

    def complaint(self, text):
        """What is said, but for the path it begins with."""
        error = self.assertRaises(InvalidSetting, self.read, text)
        line = str(error)
        self.assertEqual([line], line.splitlines())
        self.assertTrue(line.startswith(f"{self.path}: "), line)
        return line.removeprefix(f"{self.path}: ")

    def test_values_at_the_top_are_defaults_of_directories(self):
        configuration = self.read(
            """
            listen = ["tcp:8080", "tcp:8081"]
            session-timeout = 100
            allow-overwrites = true
            fsync = "fragment"
            max-upload-size = 1_000_000
            idle-timeout = 300

            [[directory]]
            mount = "/logs"
            backend = "disk:/srv/logs"
            allow-overwrites = false
            max-upload-size = 0

            [[directory]]
            mount = "/dumps"
            backend = "memory:"
            session-timeout = 200
            fsync = "never"
            enabled = false
            """
        )
        self.assertEqual(configuration.listen, ("tcp:8080", "tcp:8081"))
        self.assertEqual(configuration.limits.idle_timeout, 300)
        logs, dumps = configuration.directories
        self.assertEqual((logs.mount, logs.backend), ("/logs", "disk:/srv/logs"))
        self.assertEqual((logs.fsync, dumps.fsync), ("fragment", "never"))
        self.assertEqual(logs.settings.session_timeout, 100)
        self.assertEqual(dumps.settings.session_timeout, 200)
        self.assertFalse(logs.settings.allow_overwrites)
        self.assertTrue(dumps.settings.allow_overwrites)
        self.assertIsNone(logs.settings.max_upload_size)
        self.assertEqual(dumps.settings.max_upload_size, 1_000_000)
        self.assertTrue(logs.settings.enabled)
        self.assertFalse(dumps.settings.enabled)

    def test_enabled_at_the_top_can_be_taken_back(self):
        off, on = self.read(
            """
            enabled = false
            [[directory]]
            mount = "/off"
            backend = "memory:"
            [[directory]]
            mount = "/on"
            backend = "memory:"
            enabled = true
            """
        ).directories
        self.assertEqual((off.settings.enabled, on.settings.enabled), (False, True))

    def test_missing_file_is_refused(self):
        path = self.mktemp()
        error = self.assertRaises(InvalidSetting, from_file, path)
        self.assertEqual(
            str(error), f"{path}: cannot be read: No such file or directory"
        )

    def test_file_that_is_a_directory_is_refused(self):
        error = self.assertRaises(InvalidSetting, from_file, ".")
        self.assertEqual(str(error), ".: cannot be read: Is a directory")

    def test_what_is_not_toml_is_refused_with_its_place(self):
        complaint = self.complaint("listen = [\n")
        self.assertTrue(complaint.startswith("not valid TOML: "), complaint)

    def test_what_python_cannot_read_is_refused_in_one_line(self):
        for text in ("x = " + "9" * 5000, "x = " + "[" * 5000 + "]" * 5000):
            complaint = self.complaint(text)
            self.assertTrue(complaint.startswith("not valid TOML: "), complaint)
            self.assertEqual(complaint.splitlines(), [complaint])
        self.assertIn(
            "directory 1: session-limit: must be a whole number",
            self.complaint("[[directory]]\nsession-limit = 0x" + "f" * 5000),
        )

    def test_key_given_twice_is_refused(self):
        self.assertIn("not valid TOML", self.complaint("fsync='never'\nfsync='close'"))

    def test_what_is_not_utf_8_is_refused(self):
        path = self.mktemp()
        Path(path).write_bytes(b"listen = ['\xff']")
        error = self.assertRaises(InvalidSetting, from_file, path)
        self.assertIn("not valid UTF-8", str(error))

    def test_file_without_a_directory_is_refused(self):
        for text in ("", "directory = []", "session-limit = 5"):
            self.assertIn("directory: missing", self.complaint(text))

    def test_directory_that_is_no_array_of_tables_is_refused(self):
        for text in ("[directory]\nmount='/'", "directory=5", "directory=[5]"):
            self.assertIn("[[directory]]", self.complaint(text))

    def test_unknown_key_at_the_top_is_refused_with_the_closest_one(self):
        self.assertEqual(
            self.complaint("sesion-timeout = 5\n[[directory]]"),
            "unknown key 'sesion-timeout'; did you mean 'session-timeout'?",
        )

    def test_underscores_in_a_key_are_refused_with_the_right_one(self):
        self.assertEqual(
            self.complaint("[[directory]]\nallow_overwrites = true"),
            "directory 1: unknown key 'allow_overwrites'; "
            "did you mean 'allow-overwrites'?",
        )

    def test_unknown_key_in_a_directory_is_refused_with_its_number_and_mount(self):
        self.assertEqual(
            self.complaint("[[directory]]\n[[directory]]\nmount='/a'\nzzz=1"),
            "directory 2 (/a): unknown key 'zzz'",
        )

    def test_unknown_key_like_no_other_gets_no_suggestion(self):
        self.assertEqual(self.complaint("zzz = 1"), "unknown key 'zzz'")

    def test_keys_of_the_server_are_refused_in_a_directory(self):
        for key in ("listen", "max-connections", "idle-timeout", "trusted-proxies"):
            self.assertEqual(
                self.complaint(f"[[directory]]\n{key} = 1"),
                f"directory 1: {key}: applies to the whole server; "
                "move it to the top of the file",
            )

    def test_mount_and_backend_are_refused_at_the_top(self):
        for key in ("mount", "backend"):
            self.assertEqual(
                self.complaint(f"{key} = '/'\n[[directory]]"),
                f"{key}: move it to a [[directory]]",
            )

    def test_values_of_wrong_types_are_refused(self):
        for key, values in {
            "listen": ['"tcp:80"', "[]", "[80]", "80", '[""]'],
            "allow-overwrites": ["1", '"true"', "0.0"],
            "create-directories": ["1"],
            "enabled": ["0"],
            "max-upload-size": ["true", '"10B"', '""', "1.0", "-1", "[1]"],
            "max-fragment-size": ["false"],
            "session-timeout": ["true", '"60 s"', "0", "inf", "nan", "-inf"],
            "session-limit": ["true", "1.5"],
            "cleanup-interval": ["[]", "2020-01-01"],
            "fsync": ["true", '"always"', "[]"],
            "publish-on": ["true", '"fragment"'],
            "allow-downloads": ["1"],
            "host-id": ["5", "true", '"a b"', "[]"],
            "host-id-fallback-timeout": ["true", "0", "1.5", '"1.5"'],
            "notify-url": ["5", "true", "[]"],
            "notify-by": ["1", '"both"'],
            "notify-timeout": ["true", "0"],
            "notify-secret-file": ["5"],
            "public-url": ["5", "true"],
            "trusted-proxies": ['"10.0.0.0/8"', '["proxy"]', "[1]"],
            "max-connections": ["true", "0", "1.5"],
            "idle-timeout": ["119.9", "true"],
        }.items():
            for value in values:
                complaint = self.complaint(f"{key} = {value}\n[[directory]]")
                self.assertTrue(complaint.startswith(f"{key}: must be "), complaint)

    def test_sizes_and_durations_are_numbers_or_have_units(self):
        one, other = self.read(
            """
            max-upload-size = "20G"
            session-timeout = "14d"
            header-timeout = "1m"
            host-id-fallback-timeout = "1d"
            [[directory]]
            mount = "/a"
            max-fragment-size = "0"
            [[directory]]
            mount = "/b"
            max-upload-size = 500
            session-timeout = "1.5"
            """
        ).directories
        self.assertEqual(one.settings.max_upload_size, 20 * 2**30)
        self.assertIsNone(one.settings.max_fragment_size)
        self.assertEqual(one.settings.session_timeout, 14 * 86400)
        self.assertIs(type(one.settings.host_id_fallback_timeout), int)
        self.assertEqual(other.settings.max_upload_size, 500)
        self.assertEqual(other.settings.session_timeout, 1.5)

    def test_values_out_of_bounds_are_refused_with_the_bound(self):
        for line, reason in (
            ("idle-timeout = '1m'", "idle-timeout: must be at least 120, not '1m'"),
            ("session-limit = -1", "session-limit: must be at least 0, not -1"),
            ("notify-timeout = 0", "notify-timeout: must be more than 0, not 0"),
            (
                "fsync = 'always'",
                "fsync: must be one of 'close', 'fragment', 'never', not 'always'",
            ),
            (
                "session-timeout = 'soon'",
                (
                    "session-timeout: must be a duration, such as 90, 15m, 12h or 14d, "
                    "not 'soon'"
                ),
            ),
            (
                "max-upload-size = '20GB'",
                (
                    "max-upload-size: must be a size, such as 65536, 500K or 20G, not "
                    "'20GB'"
                ),
            ),
            (
                "listen = 'tcp:80'",
                (
                    "listen: must be a list of strings, such as "
                    """["tcp:8080"], not 'tcp:80'"""
                ),
            ),
            ("host-id = 5", "host-id: must be a string, not 5"),
        ):
            self.assertEqual(self.complaint(f"{line}\n[[directory]]"), reason)

    def test_a_directory_without_a_backend_is_refused(self):
        self.assertEqual(
            self.complaint(
                "[[directory]]\nbackend = 'memory:'\n[[directory]]\nmount = '/a'"
            ),
            "directory 2 (/a): backend: missing; write, for example, "
            'backend = "disk:/srv/uploads"',
        )

    def test_wrong_value_in_a_directory_names_the_directory(self):
        self.assertEqual(
            self.complaint("[[directory]]\nmount='/x'\nsession-limit = true"),
            "directory 1 (/x): session-limit: must be a whole number of sessions, "
            "not true",
        )

    def test_wrong_mount_names_the_directory(self):
        self.assertEqual(
            self.complaint("[[directory]]\nmount='x'"),
            "directory 1 (x): mount: must begin with a slash, not 'x'",
        )

    def test_mount_that_is_no_text_is_refused(self):
        self.assertIn(
            "directory 1: mount: must be", self.complaint("[[directory]]\nmount = 5")
        )

    def test_two_directories_at_one_mount_are_refused_however_it_is_written(self):
        for one, other in (("/", "/"), ("/a/b", "/a/b/"), ("/a%62", "/ab")):
            self.assertEqual(
                self.complaint(
                    f"[[directory]]\nmount='{one}'\n[[directory]]\nmount='{other}'"
                ),
                f"directory 2 ({other}): mount: {one} is already used by another "
                "directory",
            )


class KeyTests(SynchronousTestCase):
    """The table behind options and file."""

    def test_every_key_has_a_default_that_it_accepts(self):
        for key in KEYS:
            default = key.default
            if isinstance(key.kind, Flag):
                self.assertIn(default, ("true", "false"))
            elif default not in ("none", key.unset):
                key.checked(key.kind.parse(default), key.name)

    def test_keys_are_options_unless_they_make_sense_in_a_file_only(self):
        options = {name.removesuffix("=") for name in Options().longOpt}
        for key in KEYS:
            self.assertIs(key.name in options, key.is_option, key.name)

    def test_the_reference_page_has_every_key_and_its_default(self):
        page = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"
        rows = {
            cells[1].strip(): cells[2].strip()
            for cells in (line.split("|") for line in page.read_text().splitlines())
            if len(cells) > 4
        }
        for key in KEYS:
            self.assertEqual(rows.get(f"`{key.name}`"), f"`{key.default}`", key.name)

    def test_the_reference_page_says_of_every_key_when_changes_take_effect(self):
        page = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"
        _, _, text = page.read_text().partition("## When changes take effect")
        rows = [line.split("|")[1] for line in text.splitlines() if line[:3] == "| `"]
        table = rows[: [*map(str.strip, rows)].index("`disk:PATH`")]
        named = [name for row in table for name in re.findall("`(.+?)`", row)]
        self.assertEqual(sorted(named), sorted(key.name for key in KEYS))
