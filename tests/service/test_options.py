"""
The command line: what it becomes, and what is said about a mistake on it.
"""

import os
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txbits.service.options import Options
from txbits.service.settings import Directory, Notification
from txbits.sessions import Settings
from txbits.web import Limits


def parsed(*arguments):
    options = Options()
    options.parseOptions(arguments)
    return options["configuration"]


class PidfileTests(SynchronousTestCase):
    """A pid file that a killed server has left is not taken for a server's."""

    def left(self, content):
        """Whether a file of that content is still there after parsing."""
        path = Path(self.mktemp())
        path.write_text(content)
        options = Options()
        options.parent = {"pidfile": str(path)}
        options.parseOptions(())
        return path.exists()

    def test_one_that_names_this_process_is_removed(self):
        """As in a container, where each run has the same pid."""
        for content in (f"{os.getpid()}", f"{os.getpid()}\n"):
            self.assertFalse(self.left(content))

    def test_others_are_left_to_twistd(self):
        for content in (f"{os.getppid()}", "", "x"):
            self.assertTrue(self.left(content))

    def test_there_may_be_none(self):
        for pidfile in (None, "", self.mktemp()):
            options = Options()
            options.parent = {"pidfile": pidfile}
            options.parseOptions(())

    def test_one_is_left_if_something_else_is_wrong(self):
        path = Path(self.mktemp())
        path.write_text(f"{os.getpid()}")
        options = Options()
        options.parent = {"pidfile": str(path)}
        self.assertRaises(SystemExit, options.parseOptions, ("--mount", "x"))
        self.assertTrue(path.exists())


class LogTests(SynchronousTestCase):
    """Whether the log goes to a file, by the options of twistd and twist."""

    def test_a_log_on_standard_output_is_no_file(self):
        file = object()
        twistd = {"nodaemon": 1, "logfile": None, "syslog": 0, "logger": None}
        for parent, logs_to_file in (
            (twistd, False),
            ({**twistd, "logfile": "-"}, False),
            ({**twistd, "logfile": "/var/log/txbits"}, True),
            ({**twistd, "syslog": 1}, True),
            ({**twistd, "logger": "some.observer"}, True),
            ({**twistd, "nodaemon": 0}, True),
            ({}, False),
            ({"logFile": sys.stderr}, False),
            ({"logFile": file}, True),
        ):
            options = Options()
            options.parent = parent
            self.assertIs(options.logs_to_file, logs_to_file, parent)


class OptionsTests(SynchronousTestCase):
    """What is given becomes a configuration."""

    def complaint(self, *arguments):
        """The one line about a mistake; exiting with it is exiting with status 1."""
        error = self.assertRaises(SystemExit, parsed, *arguments)
        self.assertIsInstance(error.code, str)
        self.assertEqual([error.code], error.code.splitlines())
        self.assertTrue(error.code.startswith("txbits: "), error.code)
        return error.code

    def test_nothing_given_is_one_directory_on_disk(self):
        configuration = parsed()
        self.assertEqual(configuration.listen, ("tcp:8080",))
        self.assertEqual(configuration.limits, Limits())
        (directory,) = configuration.directories
        self.assertEqual(
            directory,
            Directory(
                where="--",
                mount="/",
                backend="disk:uploads",
                fsync="close",
                creates_root=True,
                settings=Settings(),
            ),
        )

    def test_every_option_arrives(self):
        configuration = parsed(
            *("--listen", "tcp:80", "--listen", "unix:/run/txbits"),
            *("--backend", "memory:", "--mount", "/in", "--fsync", "never"),
            *("--allow-overwrites", "--create-directories"),
            *("--max-upload-size", "1000", "--max-fragment-size", "100"),
            *("--session-timeout", "60.5", "--session-limit", "7"),
            *("--cleanup-interval", "30", "--max-connections", "11"),
            *("--max-connections-per-peer", "10", "--header-timeout", "1"),
            *("--body-timeout", "2", "--idle-timeout", "121"),
            *("--publish-on", "last-fragment", "--allow-downloads"),
            *("--host-id", "node-1:8080", "--host-id-fallback-timeout", "110"),
            *("--notify-url", "app?x=1", "--notify-by", "reference"),
            *("--notify-timeout", "9", "--notify-send-timeout", "1.5"),
            *("--notify-response-timeout", "2", "--notify-reply-timeout", "3"),
            *("--public-url", "https://uploads.example:8443/in"),
            *("--trusted-proxies", "10.0.0.0/8", "--trusted-proxies", "::1"),
            *("--trusted-proxies", "unix"),
        )
        self.assertEqual(configuration.listen, ("tcp:80", "unix:/run/txbits"))
        self.assertEqual(
            configuration.limits,
            Limits(
                header_timeout=1,
                body_timeout=2,
                idle_timeout=121,
                max_connections=11,
                max_connections_per_peer=10,
            ),
        )
        (directory,) = configuration.directories
        self.assertEqual(directory.backend, "memory:")
        self.assertEqual(directory.segments, (b"in",))
        self.assertEqual(directory.fsync, "never")
        self.assertEqual(
            directory.settings,
            Settings(
                allow_overwrites=True,
                create_directories=True,
                max_upload_size=1000,
                max_fragment_size=100,
                session_timeout=60.5,
                session_limit=7,
                cleanup_interval=30,
                publish_on="last-fragment",
                allow_downloads=True,
                host_id="node-1:8080",
                host_id_fallback_timeout=110,
            ),
        )
        self.assertEqual(
            directory.notification,
            Notification(
                url="app?x=1",
                by="reference",
                timeout=9,
                send_timeout=1.5,
                response_timeout=2,
                reply_timeout=3,
            ),
        )
        self.assertEqual(directory.public_url, "https://uploads.example:8443/in")
        self.assertEqual(configuration.trusted_proxies, ("10.0.0.0/8", "::1", "unix"))

    def test_a_size_of_zero_is_no_limit(self):
        (directory,) = parsed("--max-upload-size", "0").directories
        self.assertIsNone(directory.settings.max_upload_size)

    def test_sizes_and_durations_may_have_units(self):
        (directory,) = parsed(
            *("--max-upload-size", "20G", "--max-fragment-size", "0"),
            *("--session-timeout", "14d", "--cleanup-interval", "1e3"),
        ).directories
        settings = directory.settings
        self.assertEqual(settings.max_upload_size, 20 * 2**30)
        self.assertIsNone(settings.max_fragment_size)
        self.assertEqual(settings.session_timeout, 14 * 86400)
        self.assertEqual(settings.cleanup_interval, 1000)

    def test_unknown_option_is_refused_with_the_closest_one(self):
        self.assertEqual(
            self.complaint("--alow-overwrites"),
            "txbits: option --alow-overwrites not recognized; "
            "did you mean '--allow-overwrites'?",
        )

    def test_unknown_option_like_none_is_refused(self):
        self.assertEqual(self.complaint("--zzz"), "txbits: option --zzz not recognized")

    def test_option_without_its_value_is_refused(self):
        self.assertEqual(
            self.complaint("--mount"), "txbits: option --mount requires argument"
        )

    def test_stray_argument_is_refused(self):
        self.assertEqual(
            self.complaint("/srv/uploads"),
            "txbits: unexpected argument '/srv/uploads'",
        )

    def test_wrong_values_are_refused(self):
        for option, values in {
            "max-upload-size": ["-1", "1.5", "10GB", "", "nan"],
            "max-fragment-size": ["-1", "x"],
            "session-timeout": ["0", "-1", "nan", "inf", "soon", "0.0009"],
            "session-limit": ["-1", "2.5"],
            "cleanup-interval": ["0", "12 h", "1e-9"],
            "fsync": ["", "always", "Close"],
            "max-connections": ["0", "-1", "many"],
            "max-connections-per-peer": ["0"],
            "header-timeout": ["0"],
            "body-timeout": ["0"],
            "idle-timeout": ["119", "0"],
            "mount": ["", "in", "/a//b", "/a/../b", "/./a", "/a?b", "/a#b"],
            "backend": [""],
            "publish-on": ["", "fragment"],
            "host-id": ["", "http://node", "node/", "a b", "ä", "1.2.3.4.5", "node:0"],
            "host-id-fallback-timeout": ["0", "1.5", "a day"],
            "notify-url": [
                *("", "ftp://app/", "http:///x", "http://:80/", "//app/x", "app:80/x"),
                *("http://app:x/", "http://app:0/", "http://app:65536/", "/a b", "/ä"),
                *("http://u:p@app/", "/x#y", "/x\r\nX: y", "http://[::1/"),
                "/" + "x" * 2200,
            ],
            "notify-by": ["", "1", "Reference"],
            "notify-timeout": ["0", "nan", "0m", "5w"],
            "notify-send-timeout": ["0"],
            "notify-response-timeout": ["-1"],
            "notify-reply-timeout": ["inf"],
            "notify-secret-file": [""],
            "public-url": ["", "/x", "uploads.example", "https://u/?a", "https://u/#a"],
            "trusted-proxies": ["", "proxy.example", "10.0.0.1/8", "10.0.0.0/33"],
            "listen": [""],
        }.items():
            for value in values:
                complaint = self.complaint(f"--{option}", value)
                self.assertTrue(
                    complaint.startswith(f"txbits: --{option}: "), complaint
                )

    def test_numbers_beyond_all_limits_are_refused(self):
        for number in ("1" + "0" * 400, "-1" + "0" * 400, "9" * 5000, "1e400"):
            complaint = self.complaint("--session-limit", number)
            self.assertIn("--session-limit: must be a whole number", complaint)
            self.assertLess(len(complaint), 300)

    def test_mount_that_is_no_utf_8_is_refused(self):
        complaint = self.complaint("--mount", "/\udcff")
        self.assertEqual(complaint, "txbits: --mount: must be UTF-8, not '/\\udcff'")

    def test_long_values_are_cut_and_line_ends_are_shown(self):
        complaint = self.complaint("--fsync", "x\n" * 10_000)
        self.assertIn("x\\nx", complaint)
        self.assertLess(len(complaint), 300)

    def test_mount_is_percent_decoded(self):
        (directory,) = parsed("--mount", "/a%20b/%C3%BC/").directories
        self.assertEqual(directory.segments, (b"a b", "ü".encode()))

    def test_help_names_defaults(self):
        usage = " ".join(Options().getUsage(width=1000).split())
        self.assertIn("[default: 14d]", usage)
        self.assertIn("[default: tcp:8080]", usage)
        self.assertIn("[default: disk:uploads]", usage)
        self.assertIn("[default: close]", usage)
        self.assertIn("[default: none]", usage)
        self.assertIn("[default: notify-timeout]", usage)


class ConfigOptionTests(SynchronousTestCase):
    """``--config`` and other options together."""

    def setUp(self):
        self.path = self.mktemp()
        with open(self.path, "w") as file:
            file.write(
                'listen = ["tcp:1"]\nmax-connections = 5\n'
                '[[directory]]\nbackend = "memory:"\n'
            )

    def test_the_file_is_read(self):
        configuration = parsed("--config", self.path)
        self.assertEqual(configuration.listen, ("tcp:1",))
        self.assertEqual(configuration.limits.max_connections, 5)
        self.assertEqual(configuration.directories[0].backend, "memory:")

    def test_options_of_the_server_win_over_the_file(self):
        configuration = parsed("--config", self.path, "--listen", "tcp:2")
        self.assertEqual(configuration.listen, ("tcp:2",))
        self.assertEqual(configuration.limits.max_connections, 5)

    def test_options_of_directories_are_refused(self):
        for option in (
            ["--backend", "memory:"],
            ["--mount", "/x"],
            ["--allow-overwrites"],
            ["--session-limit", "5"],
            ["--fsync", "never"],
        ):
            error = self.assertRaises(
                SystemExit, parsed, "--config", self.path, *option
            )
            self.assertEqual(
                error.code,
                f"txbits: {option[0]} cannot be combined with --config; "
                f"move it to a [[directory]] of {self.path}",
            )
