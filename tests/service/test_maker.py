"""
From options to a service that has not started yet.
"""

import gc
import os
from pathlib import Path

from twisted.application.service import IService, IServiceMaker
from twisted.internet import reactor
from twisted.internet.testing import MemoryReactorClock
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from txbits.backends import available_parsers
from txbits.clocks import steady
from txbits.errors import InvalidSetting
from txbits.notification import HTTPNotifier
from txbits.service._served import Builder
from txbits.service.maker import Options, assemble, makeService
from txbits.service.settings import Access, Configuration, Directory, Notification
from txbits.web import Limits


def directories(*backends):
    return tuple(
        Directory(where=f"directory {number}: ", mount=f"/{number}", backend=backend)
        for number, backend in enumerate(backends, 1)
    )


class AssembleTests(SynchronousTestCase):
    """Everything is built, nothing has happened."""

    def assemble(self, *backends, **more):
        configuration = Configuration(directories=directories(*backends), **more)
        return assemble(configuration, self.reactor)

    def setUp(self):
        self.reactor = MemoryReactorClock()

    def complaint(self, *backends, **more):
        error = self.assertRaises(InvalidSetting, self.assemble, *backends, **more)
        self.assertEqual(len(str(error).splitlines()), 1)
        return str(error)

    def test_a_service_with_a_directory_for_each_backend(self):
        service = self.assemble("memory:", "memory:", listen=("tcp:1", "tcp:2"))
        verifyObject(IService, service)
        mounts = [one.directory.mount for one in service.directories]
        self.assertEqual(mounts, ["/1", "/2"])
        self.assertEqual(
            [one.description for one in service.listeners], ["tcp:1", "tcp:2"]
        )

    def test_nothing_is_touched_before_the_start(self):
        root = self.mktemp()
        self.assemble(f"disk:{root}")
        self.assertFalse(os.path.exists(root))
        self.assertEqual(self.reactor.tcpServers, [])

    def test_limits_reach_the_site(self):
        limits = Limits(max_connections=7)
        service = self.assemble("memory:", limits=limits)
        self.assertIs(service.site.limits, limits)
        self.assertEqual(service.connections, 7)

    def test_wrong_description_names_the_directory(self):
        complaint = self.complaint("memory:", "memry:")
        self.assertTrue(complaint.startswith("directory 2: backend: "), complaint)

    def test_two_directories_on_one_root_are_refused_however_it_is_written(self):
        root = Path(self.mktemp()).absolute()
        root.mkdir()
        link = Path(self.mktemp()).absolute()
        link.symlink_to(root)
        for other in (root, f"{root}/", f"{root}/../{root.name}", link):
            complaint = self.complaint(f"disk:{root}", f"disk:{other}")
            self.assertTrue(
                complaint.startswith(f"directory 2: backend: disk:{other} "), complaint
            )

    def test_prefixes_of_a_bucket_that_begin_with_one_another_are_refused(self):
        first = "s3:b:prefix=logs:endpoint=http\\://Store\\:80"
        for other in (
            "s3:b:prefix=logs/old/:endpoint=http\\://store",
            "s3:b:prefix=lo:endpoint=http\\://store/:region=r",
            "s3:b:endpoint=http\\://store",
            first,
        ):
            for two in ((first, other), (other, first)):
                complaint = self.complaint("memory:", *two)
                self.assertIn(
                    f"directory 3: backend: {two[1]} is already used by", complaint
                )
                self.assertIn(f"used by /2 ({two[0]})", complaint)

    def test_other_prefixes_buckets_and_stores_are_other_places(self):
        self.assemble(
            "s3:b:prefix=a/",
            "s3:b:prefix=b/",
            "s3:c",
            "s3:b:endpoint=http\\://store",
            "s3:b:endpoint=http\\://store\\:81",
            "disk:b",
        )

    def test_two_roots_within_each_other_are_two_roots(self):
        root = self.mktemp()
        self.assemble(f"disk:{root}", f"disk:{root}/sub")

    def test_wrong_endpoint_strings_are_refused(self):
        for endpoint in ("tcp:x", "tcp:", "nonsense:1", "80", "ssl:1:privateKey=/no"):
            complaint = self.complaint("memory:", listen=(endpoint,))
            self.assertTrue(complaint.startswith(f"--listen: {endpoint}: "), complaint)
            self.assertNotIn("[Errno", complaint)

    def test_a_misspelled_endpoint_is_not_taken_for_one_without_tls(self):
        directory = Directory(
            where="directory 1: ",
            backend="memory:",
            access=Access(authenticate=("basic",), password_file="/none"),
        )
        configuration = Configuration(directories=(directory,), listen=("htps:443",))
        error = self.assertRaises(InvalidSetting, assemble, configuration, self.reactor)
        self.assertIn("--listen: htps:443: ", str(error))


def keep_the_clock(case):
    """Give the reactor its clock back after a test, which ``makeService`` replaces."""
    case.patch(reactor, "seconds", reactor.seconds)


class AbilityTests(SynchronousTestCase):
    """Settings that need what a backend cannot."""

    def setUp(self):
        self.reactor = MemoryReactorClock()
        keep_the_clock(self)

    def assemble(self, *arguments):
        options = Options()
        options.parseOptions(arguments)
        return makeService(options)

    def complaint(self, *arguments):
        return self.assertRaises(SystemExit, self.assemble, *arguments).code

    def test_by_reference_is_refused_where_uploads_cannot_be_found(self):
        self.assertEqual(
            self.complaint(
                *("--backend", "memory:", "--notify-url", "http://app.example/"),
                *("--notify-by", "reference"),
            ),
            "txbits: --notify-by: 'reference' requires a backend whose uploads other "
            "programs can open (IAddressable); memory: does not support this",
        )

    def test_by_value_works_in_memory(self):
        service = self.assemble(
            *("--backend", "memory:", "--notify-url", "http://app.example/"),
            *("--notify-by", "value", "--notify-send-timeout", "7"),
        )
        (served,) = service.directories
        self.assertIsInstance(served.resource.manager.notifier, HTTPNotifier)

    def test_what_is_set_arrives(self):
        secret = self.mktemp()
        Path(secret).write_bytes(b"s" * 16)
        os.chmod(secret, 0o600)
        service = self.assemble(
            *("--backend", "memory:", "--allow-downloads"),
            *("--notify-url", "app", "--public-url", "https://u.example/x"),
            *("--notify-timeout", "7", "--notify-reply-timeout", "8"),
            *("--notify-secret-file", secret, "--trusted-proxies", "10.0.0.0/8"),
        )
        (served,) = service.directories
        notifier = served.resource.manager.notifier
        self.assertEqual(
            (
                notifier._url,
                notifier._by,
                notifier._public_url,
                notifier._send_timeout,
                notifier._response_timeout,
                notifier._reply_timeout,
                notifier._secret,
            ),
            ("app", "value", "https://u.example/x", 7, 7, 8, b"s" * 16),
        )
        origins = served.resource.origins
        self.assertEqual(origins.public_url, "https://u.example/x")
        self.assertEqual(origins.trusted.names, ("10.0.0.0/8",))

    def test_what_the_parts_refuse_besides_is_one_line_too(self):
        for url in ("http://a<b/x", "http://[::1%25eth0]/"):
            code = self.complaint("--backend", "memory:", "--public-url", url)
            self.assertTrue(code.startswith("txbits: --public-url: "), code)
        code = self.complaint("--backend", "memory:", "--notify-url", "http://a,b/")
        self.assertTrue(code.startswith("txbits: --notify-url: "), code)


class ContextTests(SynchronousTestCase):
    """What the description of a backend does not say."""

    def test_backends_know_whether_an_application_is_told(self):
        builder = Builder(MemoryReactorClock())
        for told in (None, Notification(url="http://app.example/")):
            directory = Directory(where="--", backend="memory:", notification=told)
            context = builder.context(directory)
            self.assertEqual(context.notifies, told is not None)
            self.assertEqual(context.fsync, "close")


class MakeServiceTests(SynchronousTestCase):
    """What twistd calls."""

    def setUp(self):
        keep_the_clock(self)

    def test_makes_a_service_of_options(self):
        options = Options()
        options.parseOptions(["--backend", "memory:"])
        verifyObject(IService, makeService(options))

    def test_the_process_goes_by_a_clock_that_is_never_set(self):
        options = Options()
        options.parseOptions(["--backend", "memory:"])
        makeService(options)
        self.assertIs(steady(reactor), reactor)

    def test_a_wrong_setting_is_one_line_and_status_1(self):
        options = Options()
        options.parseOptions(["--backend", "nonsense:"])
        error = self.assertRaises(SystemExit, makeService, options)
        self.assertTrue(error.code.startswith("txbits: --backend: "), error.code)


class PluginTests(SynchronousTestCase):
    """What Twisted finds."""

    def test_the_service_maker_is_found(self):
        # The collector would leave alone what the tests before have left.
        self.addCleanup(gc.unfreeze)
        (maker,) = [p for p in getPlugins(IServiceMaker) if p.tapname == "txbits"]
        self.assertIs(maker.options, Options)
        self.assertIs(maker.makeService, makeService)

    def test_the_backends_are_found(self):
        self.assertLessEqual(
            {"disk", "memory"}, {parser.prefix for parser in available_parsers()}
        )
