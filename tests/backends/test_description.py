"""
Backend descriptions, and the plugins that read them.
"""

from __future__ import annotations

import os

from attrs import define
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

import twisted.plugins
import txbits.backends
from txbits._workers import Worker
from txbits.backends import (
    available_parsers,
    backend_from_description,
    parse_description,
)
from txbits.backends.description import DiskBackendParser, MemoryBackendParser
from txbits.backends.disk import DiskBackend
from txbits.backends.memory import MemoryBackend
from txbits.errors import InvalidSetting
from txbits.interfaces import BackendContext, IBackend, IBackendParser


class ParseTests(SynchronousTestCase):
    """Parts, names and backslashes."""

    def test_it_is_exported(self):
        for name in (
            "available_parsers",
            "backend_from_description",
            "parse_description",
        ):
            self.assertIn(name, txbits.backends.__all__)

    def test_parts_are_split_at_colons(self):
        for text, parts in {
            "memory:": ("memory", (), {}),
            "disk:/srv/uploads": ("disk", ("/srv/uploads",), {}),
            "x:a:b": ("x", ("a", "b"), {}),
            "x::": ("x", ("", ""), {}),
            "x:a=1:b=": ("x", (), {"a": "1", "b": ""}),
            "x:a:k=v=w": ("x", ("a",), {"k": "v=w"}),
            "disk:/srv/a=b": ("disk", (), {"/srv/a": "b"}),
        }.items():
            self.assertEqual(parse_description(text), parts)

    def test_a_backslash_takes_the_meaning_from_what_follows(self):
        self.assertEqual(
            parse_description(r"s3:logs:prefix=in/:endpoint=http\://127.0.0.1\:8333"),
            ("s3", ("logs",), {"prefix": "in/", "endpoint": "http://127.0.0.1:8333"}),
        )
        self.assertEqual(
            parse_description(r"disk:C\:\\x\=y\z"), ("disk", (r"C:\x=yz",), {})
        )

    def test_what_is_no_description_is_refused(self):
        for text in ("", "memory", ":", ":x", "a=b:c", "/srv/uploads", r"a\:b:c"):
            with self.assertRaisesRegex(InvalidSetting, "is not a backend description"):
                parse_description(text)

    def test_a_backslash_at_the_end_is_refused(self):
        with self.assertRaisesRegex(InvalidSetting, "backslash"):
            parse_description("disk:x\\")

    def test_a_name_given_twice_is_refused(self):
        with self.assertRaisesRegex(InvalidSetting, "'a' is given twice"):
            parse_description("x:a=1:a=2")

    @given(
        st.lists(st.text(), max_size=4),
        st.dictionaries(st.text(), st.text(), max_size=4),
    )
    def test_what_is_escaped_comes_back(self, args, kwargs):
        def escaped(text):
            for special in "\\:=":
                text = text.replace(special, "\\" + special)
            return text

        parts = [escaped(one) for one in args]
        parts += [f"{escaped(name)}={escaped(one)}" for name, one in kwargs.items()]
        if parts == [""]:
            args = []
        self.assertEqual(
            parse_description(":".join(["x", *parts]) if parts else "x:"),
            ("x", tuple(args), kwargs),
        )

    @given(st.text("ab:=\\"))
    def test_nothing_else_is_raised(self, text):
        try:
            prefix, _args, _kwargs = parse_description(text)
        except InvalidSetting:
            return
        self.assertTrue(text.startswith(prefix + ":"))


@implementer(IPlugin, IBackendParser)
@define
class _Parser:
    """A third party's, with a signature of its own."""

    prefix: str = "mine"
    format: str = "mine:SIZE[:colour=NAME]"
    help: str = "For tests."

    def parse_backend(self, context, size, colour="red"):  # type: ignore[override]
        if colour == "bug":
            raise TypeError("a bug inside")
        if colour == "none":
            raise InvalidSetting("there is no such colour")
        return (context, int(size), colour)


class BackendFromDescriptionTests(SynchronousTestCase):
    """From a string to a backend."""

    def make(self, text, **rules):
        return backend_from_description(
            text,
            BackendContext(Clock(), **rules),
            [MemoryBackendParser(), DiskBackendParser(), _Parser()],
        )

    def assert_refused(self, text, pattern):
        with self.assertRaisesRegex(InvalidSetting, pattern) as caught:
            self.make(text)
        self.assertNotIn("\n", str(caught.exception))

    def test_our_parsers_provide_the_interface(self):
        for parser in (MemoryBackendParser(), DiskBackendParser()):
            verifyObject(IBackendParser, parser)
            self.assertTrue(parser.format.startswith(parser.prefix + ":"))

    def test_memory_is_made(self):
        backend = self.make("memory:")
        self.assertIsInstance(backend, MemoryBackend)
        verifyObject(IBackend, backend)

    def test_disk_is_made_and_touches_nothing(self):
        path = self.mktemp()
        backend = self.make("disk:" + path, fsync="never")
        self.assertIsInstance(backend, DiskBackend)
        self.assertEqual(backend.root, os.path.abspath(path))
        self.assertEqual(backend._fsync, "never")
        self.assertFalse(os.path.exists(path))

    def test_disk_is_told_which_worker_it_is(self):
        for worker in (Worker(), Worker(2, 3)):
            backend = self.make("disk:" + self.mktemp(), worker=worker)
            self.assertEqual(backend.worker, worker)
            self.assertEqual(backend._patience > 0, worker.count > 1)

    def test_a_root_is_created_if_the_description_or_else_the_context_allows_it(self):
        root = self.mktemp()
        for text, on_command_line, in_file in (
            (f"disk:{root}", True, False),
            (f"disk:{root}:create=no", False, False),
            (f"disk:{root}:create=yes", True, True),
        ):
            for allowed, creates in ((True, on_command_line), (False, in_file)):
                backend = self.make(text, creates_root=allowed)
                self.assertEqual(backend._create_root, creates, (text, allowed))

    def test_arguments_reach_the_parser(self):
        context, size, colour = self.make("mine:3:colour=blue", fsync="fragment")
        self.assertEqual((context.fsync, size, colour), ("fragment", 3, "blue"))

    def test_an_unknown_prefix_is_refused_with_the_known_formats(self):
        self.assert_refused(
            "tape:/dev/st0",
            r"'tape'; the backends are: memory:, disk:PATH\[:create=yes\], mine:SIZE",
        )

    def test_wrong_arguments_are_refused_with_the_format(self):
        self.assert_refused("disk:", r"'path'; write disk:PATH")
        self.assert_refused("disk:a:b", "write disk:PATH")
        self.assert_refused("disk:a=b", r"write disk:PATH\[:create=yes\], with a backs")
        self.assert_refused("memory:x", "write memory:")
        self.assert_refused("mine:1:size=2", "write mine:")

    def test_arguments_that_a_parser_refuses_are_refused(self):
        self.assert_refused("disk::", "write disk:PATH")
        self.assert_refused("disk:\0", "names no directory")
        self.assert_refused(
            "disk:a:create=maybe", "^create must be yes or no, not 'may"
        )
        self.assert_refused("mine:many", "'many'; write mine:SIZE")
        self.assert_refused("mine:1:colour=none", "^there is no such colour$")

    def test_a_bug_in_a_parser_is_not_taken_for_a_wrong_argument(self):
        with self.assertRaisesRegex(TypeError, "a bug inside"):
            self.make("mine:1:colour=bug")


class AvailableParsersTests(SynchronousTestCase):
    """The installed plugins."""

    def test_ours_are_found(self):
        parsers = {one.prefix: one for one in available_parsers()}
        self.assertIsInstance(parsers["memory"], MemoryBackendParser)
        self.assertIsInstance(parsers["disk"], DiskBackendParser)

    def test_they_are_sorted(self):
        prefixes = [one.prefix for one in available_parsers()]
        self.assertEqual(prefixes, sorted(prefixes))

    def test_a_broken_plugin_does_not_hide_them(self):
        broken = self.mktemp()
        os.mkdir(broken)
        path = os.path.join(broken, "txbits_test_broken_plugin.py")
        with open(path, "w") as file:
            file.write("raise ValueError('broken on purpose')\n")
        twisted.plugins.__path__.append(broken)
        self.addCleanup(twisted.plugins.__path__.remove, broken)
        prefixes = [one.prefix for one in available_parsers()]
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(prefixes.count("disk"), 1)
        self.assertEqual(prefixes.count("memory"), 1)

    def test_they_are_used_when_none_are_given(self):
        backend = backend_from_description("memory:", BackendContext(Clock()))
        self.assertIsInstance(backend, MemoryBackend)
