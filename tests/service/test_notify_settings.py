"""
The settings of a server application: what goes with what, and the secret in its file.
"""

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txbits.errors import InvalidSetting
from txbits.service._reading import from_file
from txbits.service.options import Options
from txbits.service.settings import Notification, read_secret

URL = "https://app.example/uploaded"
SECRET = b"correct horse battery staple"


class FileTests(SynchronousTestCase):
    """In a file, where directories differ."""

    def read(self, text):
        self.path = self.mktemp()
        tables = "[[directory]]\nbackend = 'memory:'"
        Path(self.path).write_text(text.replace("[[directory]]", tables))
        return from_file(self.path)

    def complaint(self, text):
        """What is said, but for the path it begins with."""
        error = self.assertRaises(InvalidSetting, self.read, text)
        line = str(error)
        self.assertEqual([line], line.splitlines())
        self.assertTrue(line.startswith(f"{self.path}: "), line)
        return line.removeprefix(f"{self.path}: ")

    def test_an_application_is_told_by_value_within_five_minutes_a_step(self):
        (directory,) = self.read(f"[[directory]]\nnotify-url = '{URL}'").directories
        notification = directory.notification
        self.assertEqual(notification, Notification(url=URL))
        self.assertEqual(notification.by, "value")
        self.assertEqual(
            notification.timeouts,
            {"send_timeout": 300, "response_timeout": 300, "reply_timeout": 300},
        )
        self.assertIsNone(notification.secret)

    def test_without_a_url_there_is_no_application(self):
        (directory,) = self.read("[[directory]]").directories
        self.assertIsNone(directory.notification)

    def test_a_time_out_of_a_step_wins_over_that_of_all_steps(self):
        (directory,) = self.read(
            f"""
            notify-send-timeout = 1
            [[directory]]
            notify-url = "{URL}"
            notify-timeout = 2
            notify-reply-timeout = 3
            """
        ).directories
        self.assertEqual(
            directory.notification.timeouts,
            {"send_timeout": 1, "response_timeout": 2, "reply_timeout": 3},
        )

    def test_an_empty_text_takes_back_what_stands_at_the_top(self):
        secret = self.mktemp()
        Path(secret).write_bytes(SECRET)
        os.chmod(secret, 0o600)
        with_all, without = self.read(
            f"""
            notify-url = "{URL}"
            notify-by = "reference"
            notify-secret-file = "{secret}"
            host-id = "node-1"
            public-url = "https://uploads.example"
            [[directory]]
            mount = "/a"
            [[directory]]
            mount = "/b"
            notify-url = ""
            notify-secret-file = ""
            host-id = ""
            public-url = ""
            """
        ).directories
        self.assertEqual(with_all.notification.by, "reference")
        self.assertEqual(with_all.notification.secret, SECRET)
        self.assertEqual(with_all.settings.host_id, "node-1")
        self.assertIsNone(without.notification)
        self.assertIsNone(without.settings.host_id)
        self.assertIsNone(without.public_url)

    def test_settings_of_an_application_that_is_not_there_are_refused(self):
        for line in (
            'notify-by = "value"',
            "notify-timeout = 5",
            "notify-send-timeout = 5",
            'notify-secret-file = "/etc/secret"',
        ):
            name = line.split(" ")[0]
            self.assertEqual(
                self.complaint(f"[[directory]]\n{line}"),
                f"directory 1: {name}: requires notify-url",
            )
            self.assertEqual(
                self.complaint(f"{line}\n[[directory]]"),
                f"{name}: requires notify-url",
            )

    def test_what_stands_at_the_top_waits_for_the_directory_that_wants_it(self):
        one, other = self.read(
            f"""
            notify-by = "reference"
            [[directory]]
            mount = "/a"
            notify-url = "{URL}"
            [[directory]]
            mount = "/b"
            """
        ).directories
        self.assertEqual(one.notification.by, "reference")
        self.assertIsNone(other.notification)

    def test_a_url_that_every_directory_takes_back_is_nobodys_mistake(self):
        (directory,) = self.read(
            f"notify-url = '{URL}'\n[[directory]]\nnotify-url = ''"
        ).directories
        self.assertIsNone(directory.notification)

    def test_relative_url_needs_a_public_one(self):
        for url in ("/app", "app", "../app?a=b", "?a", "/x?u=http://y/"):
            text = f"[[directory]]\nnotify-url = '{url}'"
            self.assertEqual(
                self.complaint(text),
                f"directory 1: notify-url: '{url}' is relative and requires public-url",
            )
            (directory,) = self.read(
                f"public-url='https://u.example'\n{text}"
            ).directories
            self.assertEqual(directory.notification.url, url)

    def test_a_long_url_is_refused_and_not_shown(self):
        longest = f"{URL}/".ljust(2200, "x")
        (directory,) = self.read(f"[[directory]]\nnotify-url='{longest}'").directories
        self.assertEqual(directory.notification.url, longest)
        self.assertEqual(
            self.complaint(f"[[directory]]\nnotify-url = '{longest}x'"),
            "directory 1: notify-url: must have at most 2,200 characters, not 2,201",
        )

    def test_a_password_is_not_shown(self):
        for url in (
            "https://me:geheim@host/",
            "https://me:geheim@host:x/",
            "//me:geheim@h",
            "https://me:geheim/x@h",
        ):
            for key in ("notify-url", "public-url"):
                said = self.complaint(f"{key} = '{url}'\n[[directory]]")
                self.assertIn("//...@h", said)
                self.assertNotIn("geheim", said)

    def test_a_wrong_secret_file_names_the_directory(self):
        path = self.mktemp()
        self.assertEqual(
            self.complaint(
                f"[[directory]]\nnotify-url='{URL}'\nnotify-secret-file='{path}'"
            ),
            f"directory 1: notify-secret-file: {path} cannot be read: "
            "No such file or directory",
        )


class CommandLineTests(SynchronousTestCase):
    """On the command line, where there is one directory."""

    def complaint(self, *arguments):
        error = self.assertRaises(SystemExit, Options().parseOptions, arguments)
        return error.code

    def test_settings_of_an_application_that_is_not_there_are_refused(self):
        self.assertEqual(
            self.complaint("--notify-by", "value"),
            "txbits: --notify-by: requires --notify-url",
        )

    def test_relative_url_needs_a_public_one(self):
        self.assertEqual(
            self.complaint("--notify-url", "/app"),
            "txbits: --notify-url: '/app' is relative and requires --public-url",
        )

    def test_an_option_that_came_out_empty_is_refused(self):
        self.assertIn(
            "--notify-url: must not be empty", self.complaint("--notify-url", "")
        )


class SecretTests(SynchronousTestCase):
    """The file of the secret."""

    def file(self, content, mode=0o600):
        path = self.mktemp()
        Path(path).write_bytes(content)
        os.chmod(path, mode)
        return path

    def complaint(self, path):
        return str(self.assertRaises(InvalidSetting, read_secret, path))

    def test_is_read_without_its_line_end(self):
        for end in (b"", b"\n", b"\r\n"):
            self.assertEqual(read_secret(self.file(SECRET + end)), SECRET)

    def test_may_be_bytes_of_any_kind(self):
        secret = bytes(range(256))
        self.assertEqual(read_secret(self.file(secret)), secret)

    def test_may_be_open_to_a_group(self):
        self.assertEqual(read_secret(self.file(SECRET, 0o640)), SECRET)

    def test_is_refused_when_it_is_too_short_or_too_long(self):
        for content in (b"", b"\n", b"x" * 15 + b"\n", b"x" * 4097, b"x" * 10**6):
            path = self.file(content)
            self.assertRegex(self.complaint(path), r"must contain 16 to 4,096 bytes$")
        for length in (16, 4096):
            content = b"x" * length
            self.assertEqual(read_secret(self.file(content + b"\r\n")), content)
