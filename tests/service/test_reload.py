"""
SIGHUP: the file is reloaded, in a service whose directories are real and whose reactor
is not. What is done in a thread is done immediately.
"""

from pathlib import Path

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.sessions.support import ScriptedBody
from txbits.errors import (
    BackendError,
    NoSuchSession,
    ServerStopping,
    UploadsDisabled,
    UploadTooLarge,
)
from txbits.interfaces import IExclusive, IOverwriting
from txbits.protocol.codec import ContentRange
from txbits.service._reading import from_options
from txbits.service.maker import assemble
from txbits.service.options import Options
from txbits.sessions import Caller
from txbits.web import Gate

LATER = "restart required: "
TOP = 'listen = ["tcp:1"]\n'
NAME = ("a.txt",)


class ReloadCase(SynchronousTestCase):
    """A service that was started with a file."""

    def setUp(self):
        self.path = Path(self.mktemp()).absolute()
        self.reactor = MemoryReactorClock()
        self.events = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def start(self, *directories, top=TOP, **options):
        self.write(*directories, top=top)
        configuration = from_options({"config": str(self.path), **options})
        self.service = assemble(configuration, self.reactor)
        self.service.process = self.process = FakeProcess()
        self.reloader = self.service.reloader
        self.reloader.in_thread = maybeDeferred
        self.service.startService()
        self.reactor.run()
        self.addCleanup(self.end)

    def end(self):
        stopped = self.service.stopService()
        self.reactor.advance(0)
        self.successResultOf(stopped)

    def write(self, *directories, top=TOP):
        tables = "".join(f"[[directory]]\n{one}\n" for one in directories)
        self.path.write_text(top + tables)

    def reload(self, *directories, top=TOP):
        """The file changes, and SIGHUP comes."""
        self.write(*directories, top=top)
        self.hang_up()

    def hang_up(self):
        self.events.clear()
        self.process.hang_up()

    def lines(self, *levels):
        """What was logged at these levels."""
        return [
            formatEvent(event) for event in self.events if event["log_level"] in levels
        ]

    def assert_nothing_changed(self, reason):
        self.assertEqual(
            self.lines(LogLevel.error, LogLevel.critical),
            [f"reload failed, keeping the old settings: {reason}"],
        )
        self.assertEqual(self.lines(LogLevel.info, LogLevel.warn), [])

    def assert_changed(self, changes="no changes"):
        self.assertEqual(
            [one for one in self.lines(LogLevel.info) if "reloaded" in one],
            [f"settings reloaded: {changes}"],
        )
        self.assertEqual(self.lines(LogLevel.error, LogLevel.critical), [])

    def manager(self, mount):
        (served,) = [
            one for one in self.service.directories if one.directory.mount == mount
        ]
        return served.manager

    def create(self, mount):
        return self.successResultOf(self.manager(mount).create(NAME, Caller(), "a.txt"))

    def begin(self, mount, session, total):
        """The first byte of a file of that length."""
        body = ScriptedBody()
        body.send(b"x")
        body.end()
        first = ContentRange(0, 0, total)
        return self.manager(mount).fragment(session, NAME, Caller(), first, body)

    def mounted(self):
        return {b"/".join(segments) for segments in self.reloader.mounts._mounts}


class FakeProcess:
    """Leaves the process of the tests alone."""

    def make_room(self, connections):
        self.room = connections

    def settle(self):
        self.is_settled = True

    def on_hangup(self, react):
        self.hang_up = react

    def fail(self, line):
        self.line = line


@define(eq=False)
class FailingResource:
    """A directory whose sessions cannot be released."""

    manager: object
    error: Exception
    gate: Gate = field(factory=Gate)

    def reconfigure(self, settings, **more):
        return fail(self.error)


@define(eq=False)
class PlainManager:
    """A manager whose backend does not support applications."""

    actual: object
    backend: object = None
    notifier: object = None

    def stop(self):
        return self.actual.stop()


class PlainResource:
    """Its directory, which records its new settings."""

    gate = Gate()

    def __init__(self, manager):
        self.manager = PlainManager(manager)

    def reconfigure(self, settings, *, notifier, **more):
        self.settings, self.notifier = settings, notifier
        return succeed(None)


A = 'mount = "/a"\nbackend = "memory:"'
BY_REFERENCE = "notify-url = 'http://x/'\nnotify-by = 'reference'"
B = 'mount = "/b"\nbackend = "memory:"'


class SettingsTests(ReloadCase):
    """Directories that stay."""

    def test_new_settings_are_those_of_new_sessions(self):
        self.start(f"{A}\nmax-upload-size = 10")
        before = self.create("/a")
        self.reload(f"{A}\nmax-upload-size = 20\nallow-overwrites = true")
        self.assert_changed("changed /a")
        after = self.create("/a")
        self.failureResultOf(self.begin("/a", before, 15), UploadTooLarge)
        self.successResultOf(self.begin("/a", after, 15))
        self.assertEqual(self.manager("/a").name, "/a")
        self.assertTrue(self.manager("/a").settings.allow_overwrites)

    def test_ids_that_become_secrets_are_no_longer_logged(self):
        self.start(A)
        for more, is_logged in (("", True), ('session-credentials = "create"', False)):
            self.reload(f"{A}\n{more}")
            session = self.create("/a")
            cancelled = self.manager("/a").cancel(session, NAME, Caller())
            self.successResultOf(cancelled)
            (line,) = [one for one in self.lines(LogLevel.info) if "released" in one]
            self.assertEqual(str(session).upper() in line.upper(), is_logged, line)

    def test_a_file_that_says_the_same_changes_nothing(self):
        self.start(A, B)
        managers = [self.manager("/a"), self.manager("/b")]
        settings = [one.settings for one in managers]
        self.reload(A, B)
        self.assert_changed()
        self.assertEqual([self.manager("/a"), self.manager("/b")], managers)
        for manager, before in zip(managers, settings, strict=True):
            self.assertIs(manager.settings, before)

    def test_the_order_in_the_file_is_of_no_consequence(self):
        self.start(A, f"{B}\nsession-limit = 5")
        self.reload(f"{B}\nsession-limit = 5", A)
        self.assert_changed()

    def test_a_mount_that_is_written_in_another_way_is_the_same(self):
        self.start(A)
        self.reload('mount = "/%61/"\nbackend = "memory:"')
        self.assert_changed()

    def test_what_stands_at_the_top_changes_all_that_do_not_say_otherwise(self):
        self.start(A, f"{B}\nsession-limit = 5")
        self.reload(A, f"{B}\nsession-limit = 5", top=f"{TOP}session-limit = 3\n")
        self.assert_changed("changed /a")
        self.assertEqual(self.manager("/a").settings.session_limit, 3)
        self.assertEqual(self.manager("/b").settings.session_limit, 5)

    def test_an_application_may_come_change_and_go(self):
        self.start(A)
        manager = self.manager("/a")
        self.reload(f"{A}\nnotify-url = 'http://one.example/'")
        self.assert_changed("changed /a")
        first = manager.notifier
        self.assertIsNotNone(first)
        self.reload(f"{A}\nnotify-url = 'http://one.example/'\nsession-limit = 1")
        self.assertIs(manager.notifier, first, "it is as it was")
        self.reload(f"{A}\nnotify-url = 'http://two.example/'")
        self.assertIsNot(manager.notifier, first)
        self.reload(A)
        self.assertIsNone(manager.notifier)

    def test_a_secret_is_read_again(self):
        secret = Path(self.mktemp()).absolute()
        secret.write_bytes(b"x" * 20)
        secret.chmod(0o600)
        text = f"{A}\nnotify-url = 'http://a.example'\nnotify-secret-file = '{secret}'"
        self.start(text)
        before = self.manager("/a").notifier
        self.reload(text)
        self.assert_changed()
        secret.write_bytes(b"y" * 20)
        self.reload(text)
        self.assert_changed("changed /a")
        self.assertIsNot(self.manager("/a").notifier, before)
        self.assertNotIn("yyyy", str(self.events))

    def test_trusted_proxies_and_the_public_url_change(self):
        self.start(A)
        (served,) = self.service.directories
        self.reload(
            f"{A}\npublic-url = 'https://u.example'",
            top=f"{TOP}trusted-proxies = ['10.0.0.0/8']\n",
        )
        self.assert_changed("changed trusted-proxies; changed /a")
        self.reload(
            f"{A}\npublic-url = 'https://u.example'",
            top=f"{TOP}trusted-proxies = ['10.0.0.0/8']\n",
        )
        self.assert_changed()
        origins = served.resource.origins
        self.assertEqual(origins.public_url, "https://u.example")
        self.assertEqual(origins.trusted.names, ("10.0.0.0/8",))

    def test_the_clean_up_goes_on_at_the_new_interval(self):
        self.start(f"{A}\nsession-timeout = 10\ncleanup-interval = 1000")
        self.reload(f"{A}\nsession-timeout = 10\ncleanup-interval = 50")
        session = self.create("/a")
        self.reactor.advance(51)
        self.failureResultOf(self.begin("/a", session, 1), NoSuchSession)


@implementer(IExclusive)
class ExclusiveBackend:
    """One whose place nobody else may use, and that supports no application."""

    def disputes(self, other):
        return isinstance(other, ExclusiveBackend)


@implementer(IOverwriting)
class OverwritingBackend:
    """One that cannot keep a file that exists."""

    def why_only_overwriting(self):
        return "it has neither; allow that (--allow-overwrites)"


class OverwritingTests(ReloadCase):
    """``allow-overwrites`` changes, on a file system where nothing else works."""

    def test_it_cannot_be_taken_back_and_nothing_changes(self):
        self.start(f"{A}\nallow-overwrites = true")
        (served,) = self.service.directories
        served.resource = PlainResource(served.manager)
        served.resource.manager.backend = OverwritingBackend()
        self.reload(f"{A}\nsession-limit = 3")
        self.assert_nothing_changed(
            f"{self.path}: directory 1 (/a): allow-overwrites: it has neither; allow "
            "that (--allow-overwrites)"
        )
        self.reload(f"{A}\nallow-overwrites = true\nsession-limit = 4")
        self.assert_changed("changed /a")
        self.assertEqual(served.resource.settings.session_limit, 4)


class DisablingTests(ReloadCase):
    """``enabled`` changes."""

    def test_sessions_are_released_and_nothing_is_taken(self):
        self.start(A)
        self.create("/a")
        self.reload(f"{A}\nenabled = false")
        self.assert_changed("changed /a")
        manager = self.manager("/a")
        self.assertEqual(self.successResultOf(manager.backend.sessions()), [])
        self.failureResultOf(manager.create(NAME, Caller(), None), UploadsDisabled)
        self.reload(A)
        self.create("/a")

    def test_a_release_that_fails_is_logged(self):
        self.start(A)
        (served,) = self.service.directories
        manager = served.manager
        served.resource = FailingResource(manager, BackendError("stuck"))
        self.reload(f"{A}\nenabled = false")
        self.assertEqual(len(self.flushLoggedErrors(BackendError)), 1)
        served.resource = FailingResource(manager, ServerStopping("it stops", 0))
        self.reload(A)
        self.assertEqual(self.lines(LogLevel.critical, LogLevel.error), [])


class DirectoryTests(ReloadCase):
    """Directories that come and go."""

    def test_one_that_is_new_is_started_and_mounted(self):
        self.start(A)
        self.reload(A, B)
        self.assert_changed("added /b")
        self.assertEqual(self.mounted(), {b"a", b"b"})
        self.create("/b")

    def test_one_that_is_gone_is_stopped_and_answers_no_more(self):
        self.start(A, B)
        gone = self.manager("/b")
        self.reload(A)
        self.assert_changed("removed /b")
        self.assertEqual(self.mounted(), {b"a"})
        self.failureResultOf(gone.create(NAME, Caller(), None), ServerStopping)
        self.create("/a")

    def test_two_on_one_root_are_refused(self):
        root = Path(self.mktemp()).absolute()
        self.start(A)
        self.reload(
            f'mount = "/d"\nbackend = "disk:{root}"',
            f'mount = "/e"\nbackend = "disk:{root}/"',
        )
        self.assert_nothing_changed(
            f"{self.path}: directory 2 (/e): backend: disk:{root}/ is already used by "
            f"/d (disk:{root}); each directory needs a place of its own"
        )


class TwoStepTests(ReloadCase):
    """What one of several workers does: it changes when all can."""

    def setUp(self):
        super().setUp()
        self.start('backend = "memory:"')
        self.write(
            'backend = "memory:"\nallow-overwrites = true',
            'mount = "/new"\nbackend = "memory:"',
        )
        self.prepared = self.reloader.prepare(from_options({"config": str(self.path)}))

    def test_nothing_changes_before_it_is_applied(self):
        self.successResultOf(self.prepared)
        self.assertEqual(self.mounted(), {b""})
        self.assertFalse(self.manager("/").settings.allow_overwrites)
        lines = self.reloader.apply()
        self.assertEqual(self.mounted(), {b"", b"new"})
        self.assertTrue(self.manager("/").settings.allow_overwrites)
        self.create("/new")
        self.assertEqual([line.level for line in lines], ["info"])
        self.assertEqual(self.reloader.counts, {"succeeded": 1})

    def test_what_was_abandoned_leaves_nothing(self):
        _, plan = self.reloader._prepared
        (added,) = plan.added
        self.assertTrue(added.is_started)
        self.reloader.abandon()
        self.assertFalse(added.is_started)
        self.assertEqual(self.mounted(), {b""})
        self.assertEqual(self.reloader.counts, {"failed": 1})
        self.reload('backend = "memory:"\nallow-overwrites = true')
        self.assert_changed("changed /")

    def test_a_stop_in_between_leaves_nothing(self):
        (added,) = self.reloader._prepared[1].added
        self.end()
        self.assertFalse(added.is_started)

    def test_what_is_in_effect_is_not_what_waits_for_a_restart(self):
        self.successResultOf(self.prepared)
        self.reloader.apply()
        self.reload('backend = "disk:elsewhere"', 'mount = "/new"\nbackend = "memory:"')
        backends = [one.backend for one in self.reloader.in_effect.directories]
        self.assertEqual(backends, ["memory:", "memory:"])


class LaterTests(ReloadCase):
    """What requires a restart is logged at each reload; the rest takes effect."""

    def test_another_backend(self):
        self.start(A, "fsync = 'close'\n" + B)
        backend = self.manager("/a").backend
        where = f"{LATER}{self.path}: directory"
        for _ in range(2):
            self.reload(
                'mount = "/a"\nbackend = "disk:/nowhere"\nsession-limit = 1',
                "fsync = 'never'\n" + B,
            )
            self.assertEqual(
                self.lines(LogLevel.warn),
                [
                    f"{where} 1 (/a): backend: still memory:",
                    f"{where} 2 (/b): fsync: still close",
                ],
            )
        self.assertIs(self.manager("/a").backend, backend)
        self.assertEqual(self.manager("/a").settings.session_limit, 1)

    def test_another_backend_that_can_do_more(self):
        root = Path(self.mktemp()).absolute()
        self.start(A)
        self.reload(f'mount = "/a"\nbackend = "disk:{root}"\n{BY_REFERENCE}')
        where = f"{LATER}{self.path}: directory 1 (/a):"
        self.assertEqual(
            self.lines(LogLevel.warn),
            [
                f"{where} backend: still memory:",
                f"{where} all other settings: still unchanged",
            ],
        )
        self.assertEqual(self.lines(LogLevel.error), [])
        self.assertIsNone(self.manager("/a").notifier)

    def test_a_place_is_taken_once_though_its_new_settings_have_to_wait(self):
        self.start(A)
        (served,) = self.service.directories
        served.directory = evolve(served.directory, backend="store:")
        served.resource = PlainResource(served.manager)
        served.resource.manager.backend = ExclusiveBackend()
        self.reload(f"{A}\nnotify-url = 'http://app.example'")
        where = f"{LATER}{self.path}: directory 1 (/a):"
        self.assertEqual(
            self.lines(LogLevel.warn, LogLevel.error),
            [
                f"{where} backend: still store:",
                f"{where} all other settings: still unchanged",
            ],
        )

    def test_another_backend_that_is_none_is_a_mistake(self):
        self.start(A)
        self.reload('mount = "/a"\nbackend = "nonsense:"')
        (line,) = self.lines(LogLevel.error)
        self.assertIn("directory 1 (/a): backend: ", line)
        self.assertEqual(self.lines(LogLevel.warn), [])

    def test_an_application_where_the_backend_was_not_made_for_one(self):
        s3 = "s3:b:endpoint=http\\://127.0.0.1\\:1"
        self.start(A)
        (served,) = self.service.directories
        # As S3's is, which stages uploads in another way then; its start takes a store.
        served.directory = evolve(served.directory, backend=s3)
        served.resource = PlainResource(served.manager)
        told = f"mount = '/a'\nbackend = '{s3}'\nnotify-url = 'http://app.example'"
        for _ in range(2):
            self.reload(f"{told}\nsession-limit = 1")
            self.assertEqual(
                self.lines(LogLevel.warn),
                [f"{LATER}{self.path}: directory 1 (/a): notify-url: still none"],
            )
            self.assertEqual(self.lines(LogLevel.error), [])
            self.assertEqual(served.resource.settings.session_limit, 1)
            self.assertIsNone(served.resource.notifier)

    def test_listening_and_limits(self):
        self.start(A)
        self.reload(A, top='listen = ["tcp:2"]\nidle-timeout = 300\n')
        self.assert_changed()
        self.assertEqual(
            self.lines(LogLevel.warn),
            [
                f"{LATER}{self.path}: listen: still tcp:1",
                f"{LATER}{self.path}: idle-timeout: still 180",
            ],
        )

    def test_the_line_names_the_file_also_if_that_has_no_listen(self):
        self.start(A, top="")
        self.reload(A, top="workers = 3\nidle-timeout = 300\n")
        self.assertEqual(
            self.lines(LogLevel.warn),
            [
                f"{LATER}{self.path}: workers: still 1",
                f"{LATER}{self.path}: idle-timeout: still 180",
            ],
        )

    def test_an_option_that_wins_over_the_file_goes_on_winning(self):
        self.start(A, listen=["tcp:7"])
        self.reload(A, top='listen = ["tcp:2"]\n')
        self.assert_changed()
        self.assertEqual(self.lines(LogLevel.warn), [])


class BrokenFileTests(ReloadCase):
    """A mistake changes nothing, and is logged in one line."""

    def test_mistakes_of_all_kinds(self):
        self.start(A)
        for text, reason in (
            ("nonsense = [", "not valid TOML: "),
            (f"{TOP}[[directory]]\nmontu='/'", "directory 1: unknown key 'montu'"),
            (TOP, "directory: missing"),
            (f"{TOP}[[directory]]\nbackend='x:'", "directory 1: backend: "),
            (
                f"{TOP}[[directory]]\n{A}\nnotify-by='value'",
                "directory 1 (/a): notify-by: requires notify-url",
            ),
            (
                f"{TOP}[[directory]]\n{A}\n{BY_REFERENCE}",
                "directory 1 (/a): notify-by: 'reference' requires a backend",
            ),
        ):
            self.path.write_text(text)
            self.hang_up()
            (line,) = self.lines(LogLevel.error, LogLevel.critical)
            self.assertIn(f"keeping the old settings: {self.path}: {reason}", line)
            self.assertEqual(line.splitlines(), [line])
            self.assertEqual(self.mounted(), {b"a"})
            self.create("/a")
            self.manager("/a").backend.files.clear()

    def test_one_that_clients_could_not_use_changes_no_other_directory(self):
        self.start(A, B)
        self.reload(f"{A}\nsession-limit = 7", f"{B}\npublic-url = 'https://a!b'")
        self.assert_nothing_changed(
            f"{self.path}: directory 2 (/b): public-url: 'https://a!b' has no "
            "valid host"
        )
        self.assertIsNone(self.manager("/a").settings.session_limit)

    def test_a_file_that_is_gone(self):
        self.start(A)
        self.path.unlink()
        self.hang_up()
        self.assert_nothing_changed(
            f"{self.path}: cannot be read: No such file or directory"
        )

    def test_what_nobody_has_foreseen_is_logged_and_the_service_goes_on(self):
        self.start(A)
        self.reloader.in_thread = lambda function: fail(ZeroDivisionError())
        self.hang_up()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.reloader.in_thread = maybeDeferred
        self.reload(A, B)
        self.assert_changed("added /b")


class TimeTests(ReloadCase):
    """Reading takes its time."""

    def hold(self):
        """The thread is slow."""
        self.waiting = []

        def in_thread(function):
            held = Deferred()
            self.waiting.append(held)
            return held.addCallback(lambda _: function())

        self.reloader.in_thread = in_thread

    def test_signals_that_come_meanwhile_are_one_more_reading(self):
        self.start(A)
        self.hold()
        for _ in range(3):
            self.reload(A, B)
        self.assertEqual(len(self.waiting), 1)
        self.waiting[0].callback(None)
        self.assertEqual(len(self.waiting), 2)
        self.waiting[1].callback(None)
        self.assertEqual(len(self.waiting), 2)
        self.assertEqual(self.mounted(), {b"a", b"b"})

    def test_packets_are_served_meanwhile(self):
        self.start(A)
        self.hold()
        self.reload(f"{A}\nenabled = false")
        self.create("/a")
        self.waiting[0].callback(None)
        self.assertTrue(self.manager("/a").is_disabled)

    def test_a_stop_waits_and_nothing_new_is_left_running(self):
        self.start(A)
        self.hold()
        self.reload(A, B)
        stopped = self.service.stopService()
        self.reactor.advance(0)
        self.assertNoResult(stopped)
        self.waiting[0].callback(None)
        self.reactor.advance(0)
        self.successResultOf(stopped)
        self.assertEqual(self.mounted(), {b"a"})


class WithoutFileTests(ReloadCase):
    """Settings of a command line."""

    def test_there_is_nothing_to_be_read_and_that_is_said(self):
        options = Options()
        options.parseOptions(["--backend", "memory:"])
        self.service = assemble(options["configuration"], self.reactor)
        self.service.process = self.process = FakeProcess()
        self.service.startService()
        self.reactor.run()
        self.addCleanup(self.end)
        self.hang_up()
        self.assertEqual(
            self.lines(LogLevel.info),
            ["no settings to reload: started without --config"],
        )
