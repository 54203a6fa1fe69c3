"""
``txbits link``, and the other commands with an upload link: it is sent with every
packet, and shown nowhere.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr
from urllib.parse import urlsplit

from attrs import evolve

from tests.client.fakes import lost
from tests.client.test_commands import SESSION, CommandTestCase
from txbits.access.links import LinkKeys
from txbits.client._url import InvalidURL, to_wire, with_link_of
from txbits.client.cli import parse
from txbits.client.commands._command import explain
from txbits.client.commands._plan import Item
from txbits.client.events import UploadFailed
from txbits.client.job import UploadJob
from txbits.protocol.packets import Ack, CreateSession, Fragment
from txbits.protocol.urls import links_of

SECRET = "c2VjcmV0.c2lnbmF0dXJl"
FOLDER = f"http://h/in/?a=1&txbits-link={SECRET}"

CONFIG = """
public-url = "https://up.example.org/all"
[[directory]]
mount = "/cases"
backend = "disk:{root}"
authenticate = ["link"]
link-key-file = "{keys}"
revoked-links = ["bob"]
link-grace = "1d"
[[directory]]
mount = "/cases/old"
backend = "memory:"
[[directory]]
mount = "/keyless"
backend = "memory:"
authenticate = ["link"]
link-key-file = ""
"""

DAY = 86_400.0


class UploadTests(CommandTestCase):
    """Uploads by a link."""

    def assert_secret(self) -> None:
        for shown in (self.out.getvalue(), self.err.getvalue()):
            self.assertNotIn(SECRET, shown)
            self.assertNotIn("txbits-link", shown)
        for folder, _, names in os.walk(self.home):
            for name in names:
                with open(os.path.join(folder, name)) as file:
                    self.assertNotIn(SECRET, file.read())

    def test_a_file_into_a_folder(self) -> None:
        path = self.write("a.txt", b"a" * 100)
        for options in ((), ("--json",), ("-v",)):
            result = self.run_command("upload", *options, path, FOLDER)
            self.assert_status(result, 0)
        url = f"http://h/in/a.txt?a=1&txbits-link={SECRET}"
        self.assertEqual(self.published(), {url: b"a" * 100})
        self.assertIn("are at http://h/in/a.txt?a=1\n", self.out.getvalue())
        self.assert_secret()

    def test_a_directory_into_a_folder(self) -> None:
        self.write("d/1", b"1")
        self.write("d/e/2", b"2")
        top = os.path.join(self.folder, "d")
        self.assert_status(self.run_command("upload", "-r", top, FOLDER), 0)
        self.assertEqual(
            set(self.published()),
            {
                f"http://h/in/d/1?a=1&txbits-link={SECRET}",
                f"http://h/in/d/e/2?a=1&txbits-link={SECRET}",
            },
        )
        self.assertIn("are at http://h/in/?a=1\n", self.out.getvalue())
        self.assert_secret()

    def test_the_same_command_goes_on(self) -> None:
        path = self.write("a.txt", b"a" * 10_000)
        url = f"http://h/a.txt?txbits-link={SECRET}"
        arguments = ("upload", "--retry-for", "0", "--fragment-size", "5120", path, url)
        self.script(url, None, None, lost("no route"))
        self.assert_status(self.run_command(*arguments), 3)
        self.assert_secret()
        self.assertEqual(len(self.journals()), 1)
        self.assert_status(self.run_command("status"), 0)
        self.assert_status(self.run_command("status", "--json"), 0)
        self.assertIn("http://h/a.txt", self.out.getvalue())
        self.assert_secret()
        # Another link for the same file will do as well.
        again = url.replace(SECRET, "b3RoZXI.c2lnbmF0dXJl")
        self.servers[again] = self.servers[url]
        before = len(self.servers[url].packets)
        self.assert_status(self.run_command(*arguments[:-1], again), 0)
        sent = self.servers[url].packets[before:]
        self.assertFalse(any(isinstance(one, CreateSession) for one in sent))
        first = next(one for one in sent if isinstance(one, Fragment))
        self.assertEqual(first.content_range.first, 5120)
        self.assertEqual(self.journals(), [])

    def test_other_commands_do_not_show_it(self) -> None:
        for options in ((), ("--json",)):
            self.script(FOLDER, Ack(200))
            self.assert_status(self.run_command("ping", *options, FOLDER), 0)
            self.script(FOLDER, Ack(200, SESSION))
            result = self.run_command("cancel", *options, FOLDER, SESSION)
            self.assert_status(result, 0)
            self.assert_secret()

    def test_a_link_that_is_refused(self) -> None:
        path = self.write("a.txt", b"a")
        for options in ((), ("--json",)):
            self.script(f"http://h/x?txbits-link={SECRET}", Ack(401, hresult=0))
            url = f"http://h/x?txbits-link={SECRET}"
            self.assert_status(self.run_command("upload", *options, path, url), 2)
            self.assertIn("the link may have expired", self.err.getvalue())
            self.assert_secret()

    def test_errors_do_not_show_it(self) -> None:
        query = f"?txbits-link={SECRET}"
        for url in (f"ftp://a/{query}", f"http://{query}", f"http://a:0/{query}"):
            with self.assertRaises(InvalidURL) as caught:
                to_wire(url)
            self.assertNotIn(SECRET, str(caught.exception))
            err = io.StringIO()
            for argv in (["ping", url], ["ping", "http://a/", url]):
                with redirect_stderr(err), self.assertRaises(SystemExit):
                    parse(argv)
            self.assertNotIn(SECRET, err.getvalue())
        _, line = explain(UploadFailed("401", transient=False, status=401))
        self.assertIn("--user", line)
        for one in (
            Item("a", f"http://a/{query}"),
            UploadJob(b"", f"http://a/{query}", reactor=self.clock),
        ):
            self.assertIn("http://a/", repr(one))
            self.assertNotIn(SECRET, repr(one))

    def test_a_reply_is_asked_for_with_the_link(self) -> None:
        destination = f"http://h/a?b=1&txbits-link={SECRET}"
        for url, expected in (
            ("http://h/r", f"http://h/r?txbits-link={SECRET}"),
            ("http://h/r?c", f"http://h/r?c&txbits-link={SECRET}"),
        ):
            self.assertEqual(with_link_of(url, destination), expected)
        self.assertEqual(with_link_of("http://h/r", "http://h/a?b=1"), "http://h/r")


class LinkTests(CommandTestCase):
    """Making links, and looking at them."""

    def setUp(self) -> None:
        super().setUp()
        self.keys = self.write("keys", LinkKeys.new_key().encode())
        os.chmod(self.keys, 0o600)
        root = os.path.abspath(self.mktemp())
        text = CONFIG.format(root=root, keys=os.path.abspath(self.keys))
        self.config = self.write("txbits.toml", text.encode())

    def said(self, *argv: str) -> list[str]:
        """What the command prints."""
        self.out.truncate(0)
        self.out.seek(0)
        self.assert_status(self.run_command("link", *argv), 0)
        lines: list[str] = self.out.getvalue().splitlines()
        return lines

    def make(self, path: str, *argv: str) -> list[str]:
        given = ("--config", self.config, "--path", path, "--expires", "7d", *argv)
        return self.said(*given)

    def shown(self, url: str) -> dict[str, str]:
        lines = self.said("--config", self.config, "--show", url)
        return {line[:10].strip(): line[10:] for line in lines}

    def complaint(self, *argv: str) -> str:
        status = self.successResultOf(self.run_command("link", *argv))
        self.assertEqual(status, 1, argv)
        lines = self.err.getvalue().splitlines()
        self.assertEqual(len(lines), 1, lines)
        return str(lines[0])

    def test_a_link_for_a_folder(self) -> None:
        argv = ("--name", "anna", "--max-size", "20G", "--once")
        url, command = self.make("/cases/17/", *argv)
        start = "https://up.example.org/all/cases/17/"
        self.assertTrue(url.startswith(f"{start}?txbits-link="), url)
        query = urlsplit(url).query
        self.assertEqual(
            command,
            "Start-BitsTransfer -TransferType Upload -Source 'FILE' "
            f"-Destination '{start}FILE?{query}'",
        )
        (signed,) = links_of(query.encode())
        link = LinkKeys.read(self.keys).verify(signed)
        self.assertEqual(
            evolve(link, id=""),
            evolve(
                link,
                id="",
                mount="/cases",
                path=("17",),
                is_tree=True,
                expires=int(self.calendar + 7 * DAY),
                max_size=20 << 30,
                name="anna",
                is_once=True,
            ),
        )

    def test_a_link_for_a_file(self) -> None:
        url, command = self.make("/cases/a%20ü/it's 1.zip")
        path = "/all/cases/a%20%C3%BC/it%27s%201.zip"
        self.assertEqual(urlsplit(url).path, path)
        self.assertIn("-Source 'it''s 1.zip'", command)
        self.assertIn(f"-Destination '{url}'", command)
        told = self.shown(url)
        self.assertEqual(told["name"], told["id"])

    def test_what_a_link_is_good_for(self) -> None:
        url, _ = self.make("/cases/17/", "--name", "anna")
        told = self.shown(url)
        self.assertEqual(
            told,
            {
                "state": "valid",
                "path": "/cases/17/ and all below",
                "name": "anna",
                "id": told["id"],
                "expires": "2023-11-21 22:13:20 UTC (in 7 days)",
                "max size": "as the directory",
                "once": "no",
            },
        )
        self.calendar += 7.5 * DAY
        self.assertIn("open sessions only", self.shown(url)["state"])
        self.calendar += 1 * DAY
        self.assertEqual(self.shown(url)["state"], "expired")
        self.assertEqual(self.shown(url)["expires"], "2023-11-21 22:13:20 UTC")

    def test_how_long_a_link_is_valid_is_told_in_a_suitable_unit(self) -> None:
        for expires, left in (
            ("45", "45 seconds"),
            ("90s", "90 seconds"),
            ("15m", "15 minutes"),
            ("1h", "60 minutes"),
            ("12h", "12 hours"),
            ("2d", "2 days"),
        ):
            argv = ("--config", self.config, "--path", "/cases/", "--expires", expires)
            url, _ = self.said(*argv)
            self.assertTrue(self.shown(url)["expires"].endswith(f" (in {left})"))

    def test_one_that_is_revoked(self) -> None:
        url, _ = self.make("/cases/17/", "--name", "bob")
        self.assertEqual(self.shown(url)["state"], "revoked")

    def test_one_for_a_directory_that_is_mounted_elsewhere(self) -> None:
        url, _ = self.make("/cases/17/")
        with open(self.config) as file:
            text = file.read().replace('"/cases"', '"/moved"')
        moved = self.write("moved.toml", text.encode())
        lines = self.said("--config", moved, "--show", url)
        self.assertIn("not valid: no directory with this key is mounted at", lines[0])

    def test_one_that_nobody_has_signed(self) -> None:
        url, _ = self.make("/cases/17/")
        line = self.complaint("--config", self.config, "--show", url[:-3] + "AAA")
        self.assertIn("link-key-file: missing", line)
        self.assertNotIn(url.partition("txbits-link=")[2][:20], line)
        line = self.complaint("--config", self.config, "--show", "https://a/b")
        self.assertIn("must have one parameter txbits-link", line)

    def test_keys(self) -> None:
        one, other = self.said("--new-key"), self.said("--new-key")
        self.assertNotEqual(one, other)
        self.assertGreaterEqual(len(one[0]), 32)

    def test_each_mistake_has_one_line(self) -> None:
        in_cases = ("--config", self.config, "--expires", "1d", "--path")
        for argv, words in (
            ((*in_cases, "/other/"), "in no directory of the server"),
            ((*in_cases, "/cases"), "append a slash"),
            ((*in_cases, "/cases/../x"), "remove empty segments and dots"),
            ((*in_cases, "/cases//x"), "remove empty segments and dots"),
            ((*in_cases, "/cases/%2F"), "remove empty segments and dots"),
            ((*in_cases, "/cases/%ff"), "must be UTF-8"),
            ((*in_cases, "cases/"), "must be the path of a URL"),
            ((*in_cases, "/cases/?x"), "must be the path of a URL"),
            ((*in_cases, "/cases/old/x"), "authenticate: has no link"),
            ((*in_cases, "/keyless/"), "link-key-file: missing"),
            ((*in_cases, "/cases/", "--name", "a/b"), "--name: "),
            ((*in_cases, f"/cases/{'x' * 3000}"), "the maximum of BITS clients"),
            ((*in_cases[:3], "99999d", "--path", "/cases/"), "10 years"),
            ((*in_cases[:3], "0", "--path", "/cases/"), "10 years"),
            (("--path", "/a", "--expires", "1d"), "--config is required"),
            (("--path", "/a", "--config", self.config), "--expires is required"),
            (("--new-key", "--once"), "--once works with --path only"),
            (("--new-key", "--config", "x"), "works without --config"),
            (("--config", "/none", *in_cases[2:], "/a"), "cannot be read"),
        ):
            self.assertIn(words, self.complaint(*argv), argv)

    def test_a_server_that_cannot_have_links(self) -> None:
        for old, new, words in (
            ("public-url", "#", "public-url: missing"),
            ('keys"', 'gone"', "link-key-file: "),
            ("disk:", "nobody:", "nobody"),
        ):
            with open(self.config) as file:
                text = file.read().replace(old, new)
            path = self.write("other.toml", text.encode())
            argv = ("--config", path, "--path", "/cases/", "--expires", "1d", "--once")
            self.assertIn(words, self.complaint(*argv))

    def test_the_other_commands_do_not_import_the_server(self) -> None:
        program = (
            "import sys; import txbits.client.cli; import json; "
            "print(json.dumps([one for one in sys.modules "
            "if one.startswith(('txbits.service', 'txbits.web', 'txbits.access'))]))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, check=True
        )
        self.assertEqual(json.loads(done.stdout), [])
