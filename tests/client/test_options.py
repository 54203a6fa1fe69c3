"""
Words of the command line, and where passwords come from.
"""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Callable
from contextlib import redirect_stderr
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.client.fakes import Pipe
from txbits.client import ConnectionSettings, Credentials, InvalidSettings
from txbits.client._auth import Authorizer
from txbits.client.cli import parse
from txbits.client.commands import _types
from txbits.client.commands._command import Context, UsageError, no_password
from txbits.client.commands._options import connection_settings

URL = "https://files.example/x"


class TypeTests(SynchronousTestCase):
    """What is taken for what."""

    def refuse(self, kind: Callable[[str], Any], text: str) -> str:
        error = self.assertRaises(argparse.ArgumentTypeError, kind, text)
        self.assertEqual(len(str(error).splitlines()), 1)
        return str(error)

    def test_sizes_may_have_a_unit(self) -> None:
        for text, size in (("1", 1), ("5K", 5120), ("2M", 2**21), ("1G", 2**30)):
            self.assertEqual(_types.size(text), size)
        for text in ("0", "K", "1k", "1.5M", "-1", "", "9" * 40):
            self.refuse(_types.size, text)

    def test_a_length_may_be_nothing(self) -> None:
        self.assertEqual(_types.length("0"), 0)
        self.refuse(_types.length, "x")

    def test_durations_may_have_a_unit(self) -> None:
        for text, seconds in (
            ("0", 0),
            ("1.5", 1.5),
            ("90s", 90),
            ("15m", 900),
            ("12h", 43200),
            ("14d", 1209600),
        ):
            self.assertEqual(_types.duration(text), seconds)
        for text in ("", "1w", "m", "1e3", "-1", "nan", "9" * 400):
            self.refuse(_types.duration, text)

    def test_a_password_beside_the_user_is_refused_and_not_repeated(self) -> None:
        words = self.refuse(_types.user, "me:sesame")
        self.assertIn("can see a password on the command line", words)
        self.assertNotIn("sesame", words)
        self.refuse(_types.user, "")

    def test_headers_are_names_and_values(self) -> None:
        self.assertEqual(_types.header("X-A:  b:c "), ("X-A", "b:c"))
        self.assertEqual(_types.header("@file"), ("", "file"))
        for text in ("X-A", ": b", "BITS-Session-Id: x", "X-A: \x01"):
            self.refuse(_types.header, text)

    def test_sessions_are_ids(self) -> None:
        for text in ("7DF0354D", "{7df0354d-249b-430f-820d-3d2a9bef4931}", "a b=/é"):
            self.assertEqual(_types.session(text), text)
        for text in ("", "x" * 101, "a\n", " a", "\u20ac", "\udcff"):
            self.refuse(_types.session, text)

    def test_proxies_are_urls_without_a_password(self) -> None:
        self.assertEqual(_types.proxy("http://p:1"), "http://p:1")
        self.assertNotIn("sesame", self.refuse(_types.proxy, "http://me:sesame@p"))


class SettingsTests(SynchronousTestCase):
    """What the options of a command say of a connection."""

    def setUp(self) -> None:
        self.home = os.path.abspath(self.mktemp())
        os.mkdir(self.home)
        self.asked: list[str] = []

    def file(self, name: str, text: str) -> str:
        path = os.path.join(self.home, name)
        with open(path, "w") as file:
            file.write(text)
        return path

    def settings(
        self,
        *argv: str,
        ask: Callable[[str], str | None] = no_password,
        url: str = URL,
        **environ: str,
    ) -> ConnectionSettings:
        context = Context(
            Clock(),
            Pipe(),
            Pipe(),
            maybeDeferred,
            {"HOME": self.home, **environ},
            ask_password=ask,
        )
        options = parse(["ping", url, *argv])
        return connection_settings(context, options, url)

    def refuse(self, *argv: str, **environ: str) -> str:
        error = self.assertRaises(UsageError, self.settings, *argv, **environ)
        self.assertEqual(len(str(error).splitlines()), 1)
        return str(error)

    def test_nothing_said_is_nothing_special(self) -> None:
        self.assertEqual(self.settings(), ConnectionSettings())

    def test_a_password_comes_from_the_environment(self) -> None:
        settings = self.settings("--user", "me", TXBITS_PASSWORD="sesame")
        self.assertEqual(settings.credentials, Credentials("me", "sesame"))

    def test_a_token_comes_from_a_file_or_the_environment(self) -> None:
        path = self.file("token", "abc\n")
        os.chmod(path, 0o600)
        settings = self.settings("--token-file", path, TXBITS_TOKEN="other")
        self.assertEqual((settings.token_file, settings.token), (path, None))
        self.assertEqual(settings.get_token(), "abc")
        settings = self.settings(TXBITS_TOKEN="abc")
        self.assertEqual(settings.token, "abc")
        self.assertEqual(self.settings(TXBITS_TOKEN=""), ConnectionSettings())

    def test_a_token_that_cannot_be_used_is_told_at_once(self) -> None:
        path = self.file("token", "sesame")
        os.chmod(path, 0o644)
        for argv, environ, words in (
            (("--token-file", path), {}, "run chmod o-rw on it"),
            (("--token-file", path + "x"), {}, "No such file"),
            ((), {"TXBITS_TOKEN": "ses ame"}, "is not a bearer token"),
            (("--token-file", self.home), {}, "is not a regular file"),
        ):
            error = self.assertRaises(InvalidSettings, self.settings, *argv, **environ)
            self.assertIn(words, str(error))
            self.assertNotIn("ame", str(error))

    def test_a_token_in_plain_text_is_told_at_once(self) -> None:
        url = "http://files.example/x"
        error = self.assertRaises(
            InvalidSettings, self.settings, url=url, TXBITS_TOKEN="abc"
        )
        self.assertIn("--allow-plain-token", str(error))
        self.settings("--allow-plain-token", url=url, TXBITS_TOKEN="abc")
        # What else there is may be all that the server asks for.
        self.settings(
            *("--user", "me"), url=url, TXBITS_TOKEN="abc", TXBITS_PASSWORD="x"
        )

    def test_no_secret_is_an_argument(self) -> None:
        for words in (("--token", "abc"), ("--password", "abc")):
            with redirect_stderr(io.StringIO()), self.assertRaises(SystemExit):
                parse(["ping", URL, *words])

    def test_or_from_netrc(self) -> None:
        self.file(".netrc", "machine files.example login me password sesame\n")
        settings = self.settings("--user", "me")
        self.assertEqual(settings.credentials, Credentials("me", "sesame"))
        self.assertIn("no password for you", self.refuse("--user", "you"))

    def test_bytes_there_that_are_no_text_go_out_as_they_are(self) -> None:
        path = self.file("n", "")
        with open(path, "wb") as file:
            file.write(b"default login me password s\xe9same")
        credentials = self.settings("--user", "me", NETRC=path).credentials
        made = Authorizer(credentials)
        made.challenged([b'Basic realm="r"'])
        self.assertEqual(made.answer(b"GET", b"/"), b"Basic bWU6c+lzYW1l")

    def test_netrc_is_not_looked_for_in_the_folder_one_is_in(self) -> None:
        here = os.getcwd()
        self.addCleanup(os.chdir, here)
        self.file(".netrc", "default password sesame")
        os.chdir(self.home)
        self.assertIn(
            "no password for me", self.refuse("--user", "me", HOME="", NETRC="")
        )

    def test_netrc_may_be_elsewhere(self) -> None:
        path = self.file("n", "machine files.example login me password sesame\n")
        settings = self.settings("--user", "me", NETRC=path)
        self.assertEqual(settings.credentials, Credentials("me", "sesame"))

    def test_or_from_whoever_sits_there(self) -> None:
        def ask(prompt: str) -> str:
            self.asked.append(prompt)
            return "sesame"

        settings = self.settings("--user", "me", ask=ask)
        self.assertEqual(settings.credentials, Credentials("me", "sesame"))
        self.assertEqual(self.asked, ["Password for me at files.example: "])

    def test_without_any_of_them_it_is_wrong_usage(self) -> None:
        self.assertIn("TXBITS_PASSWORD", self.refuse("--user", "me"))

    def test_a_broken_netrc_is_said_and_not_repeated(self) -> None:
        self.file(".netrc", 'machine files.example login me password "sesame\n')
        words = self.refuse("--user", "me")
        self.assertIn("is not a valid netrc file", words)
        self.assertNotIn("sesame", words)

    def test_a_proxy_has_a_password_of_its_own(self) -> None:
        argv = ("--proxy", "http://p:1", "--proxy-user", "me")
        settings = self.settings(*argv, TXBITS_PROXY_PASSWORD="sesame")
        self.assertEqual(settings.proxy_credentials, Credentials("me", "sesame"))
        self.assertIsNone(settings.credentials)
        self.assertIn("--proxy", self.refuse("--proxy-user", "me"))

    def test_the_environment_may_name_a_proxy(self) -> None:
        named = {"https_proxy": "http://me:s%40same@proxy:8", "no_proxy": "x"}
        settings = self.settings(**named)
        self.assertEqual(settings.proxy, "http://proxy:8")
        self.assertEqual(settings.proxy_credentials, Credentials("me", "s@same"))

    def test_the_option_counts_before_the_environment(self) -> None:
        for argument, proxy in (("http://p:1", "http://p:1"), ("", None)):
            settings = self.settings("--proxy", argument, all_proxy="proxy:8")
            self.assertEqual(settings.proxy, proxy)
            self.assertIsNone(settings.proxy_credentials)

    def test_the_proxy_s_user_may_be_an_option_if_the_environment_names_it(
        self,
    ) -> None:
        settings = self.settings(
            "--proxy-user", "me", all_proxy="p:8", TXBITS_PROXY_PASSWORD="sesame"
        )
        self.assertEqual(settings.proxy_credentials, Credentials("me", "sesame"))

    def test_a_proxy_of_another_kind_is_wrong_usage(self) -> None:
        for kind in ("socks5", "https"):
            words = self.refuse(all_proxy=f"{kind}://me:sesame@proxy:8")
            self.assertIn("all_proxy: only HTTP proxies", words)
            self.assertNotIn("sesame", words)

    def test_headers_may_be_in_a_file(self) -> None:
        path = self.file("h", "X-A: b\n\nX-C: d: e\n")
        settings = self.settings("--header", "X-Z: y", "--header", f"@{path}")
        self.assertEqual(
            settings.headers, (("X-Z", "y"), ("X-A", "b"), ("X-C", "d: e"))
        )

    def test_what_is_no_header_there_is_not_repeated(self) -> None:
        for text in ("sesame\n", "X-A: sesame\x01\n"):
            words = self.refuse("--header", "@" + self.file("h", text))
            self.assertNotIn("sesame", words)

    def test_certificates_are_read_from_files(self) -> None:
        a, b, c = (self.file(name, name) for name in "abc")
        settings = self.settings("--cacert", a, "--cert", b, "--key", c)
        self.assertEqual(
            (settings.authorities, settings.certificate, settings.key),
            (b"a", b"b", b"c"),
        )

    def test_files_that_cannot_be_read_are_named(self) -> None:
        for option in ("--cacert", "--cert", "--header"):
            path = f"@{self.home}/none" if option == "--header" else f"{self.home}/none"
            self.assertIn("none: No such file", self.refuse(option, path))
        self.assertIn("Is a directory", self.refuse("--cacert", self.home))
        large = self.file("large", "x" * (4 * 1024 * 1024 + 1))
        self.assertIn("too long", self.refuse("--cacert", large))

    def test_a_key_needs_its_certificate(self) -> None:
        self.assertIn("--cert", self.refuse("--key", self.file("k", "k")))
