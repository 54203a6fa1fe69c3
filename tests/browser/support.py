"""
A service whose operator's page a real browser shows.

The service runs in this process, on the reactor of the tests, and the browser is driven
from a thread. Errors and warnings on the browser's console, such as violations of the
page's policy, are failures.
"""

from __future__ import annotations

import math
import os
import time
from base64 import b64decode, b64encode
from pathlib import Path

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import deferLater
from twisted.internet.threads import blockingCallFromThread, deferToThread
from twisted.trial.unittest import TestCase

from tests.admin.page.support import refused
from tests.browser import chromium
from tests.service.test_reload import FakeProcess
from tests.sessions.support import ScriptedBody
from txbits.admin.page.samples import MOST_SAMPLES
from txbits.protocol.codec import ContentRange
from txbits.service._life import Listener
from txbits.service._reading import from_options
from txbits.service.maker import assemble
from txbits.sessions import Caller

DESK = (1400, 900)
PHONE = (390, 844)

_SETTINGS = """\
listen = ["tcp:0:interface=127.0.0.1"]
admin-listen = "unix:admin:mode=600"
session-limit = 0
max-sessions = 0

[[directory]]
mount = "/logs"
backend = "memory:"

[[directory]]
mount = "/dumps"
backend = "memory:"
"""

_REFUSED = ("destination-exists", "quota-reached", "out-of-step", "storage-fault")

ALICE = Caller("alice", "192.0.2.7")


class BrowserCase(TestCase):
    """
    A service, and a browser.

    :ivar service: The service.
    :ivar url: The URL of its page.
    :ivar browser: The browser, once a test uses it; for threads only.
    :ivar expected: What may be on the console, as parts of messages.
    """

    timeout = 180

    @inlineCallbacks
    def setUp(self):
        self.expected = []
        self.path = Path(self.mktemp()).absolute()
        self.path.write_text(self.settings())
        self.service = assemble(from_options({"config": str(self.path)}), reactor)
        self.service.process = self.process = FakeProcess()
        if self.service.admin.listener.description.startswith("unix:"):
            self._listen_without_credentials()
        self.service.startService()
        self.addCleanup(self.service.stopService)
        # It starts when the reactor runs.
        yield deferLater(reactor, 0)
        yield self.service._starting
        (listed,) = self.service._admin_ports._ports
        self.port = listed.port
        self.url = f"http://127.0.0.1:{self.port.getHost().port}"
        (self.streams,) = [
            one for one in self.service.admin.activities if hasattr(one, "interval")
        ]
        self.streams.interval = 0.1
        (self.sampler,) = [
            one for one in self.service.admin.activities if hasattr(one, "rates")
        ]
        yield deferToThread(self._prepare)
        self.addCleanup(deferToThread, self._leave)

    def settings(self):
        """The settings file."""
        return _SETTINGS

    def _listen_without_credentials(self):
        """Let the page be where a browser can connect, which settings forbid."""
        endpoint = "tcp:0:interface=127.0.0.1"
        listener = Listener("", endpoint, serverFromString(reactor, endpoint))
        self.service.admin = evolve(self.service.admin, listener=listener)

    # On the reactor's thread

    def manager(self, mount):
        (found,) = [
            one.manager
            for one in self.service.directories
            if one.directory.mount == mount
        ]
        return found

    @inlineCallbacks
    def create(self, name, mount="/logs", caller=ALICE):
        """Create a session."""
        return (
            yield self.manager(mount).create(tuple(name.split("/")), caller, "C:\\x")
        )

    @inlineCallbacks
    def send(self, session_id, name, first, count, total, mount="/logs"):
        """Send bytes of a session."""
        body = ScriptedBody()
        body.send(b"x" * count)
        body.end()
        content_range = ContentRange(first, first + count - 1, total)
        yield self.manager(mount).fragment(
            session_id, tuple(name.split("/")), ALICE, content_range, body
        )

    def make_history(self):
        """Let an hour have passed in which something happened, and was refused."""
        for number in range(MOST_SAMPLES):
            wave = 1 + math.sin(number / 20)
            burst = 2.0 if number % 50 == 7 else 0.0
            self.sampler._samples.append((8e6 * wave, 40 * wave, burst, 30 * wave))
        now = time.time()
        for number, name in enumerate(_REFUSED):
            one = refused(name, at=now - 60 * number, count=10**number)
            self.manager("/logs").counts.refused.add(one)

    def in_browser(self, function, *arguments):
        """
        Call a function in a thread.

        :returns: A Deferred that fires with its result.
        """
        return deferToThread(function, *arguments)

    # In a thread

    def on_reactor(self, function, *arguments):
        """Call a function on the reactor's thread, and wait for its result."""
        return blockingCallFromThread(reactor, maybeDeferred, function, *arguments)

    def _prepare(self):
        self.browser = chromium()
        self.browser.get("about:blank")
        self.command("Emulation.setScriptExecutionDisabled", value=False)
        self.log_in("")
        self.look(DESK, "light")
        self.browser.get_log("browser")

    def _leave(self):
        self.browser.get("about:blank")
        messages = [one["message"] for one in self.browser.get_log("browser")]
        unexpected = [
            one
            for one in messages
            if not any(expected in one for expected in self.expected)
        ]
        self.assertEqual(unexpected, [])

    def command(self, name, **arguments):
        """Give a command of the DevTools."""
        return self.browser.execute_cdp_cmd(name, arguments)

    def log_in(self, credentials):
        """Send these credentials with every request from now on; none if empty."""
        encoded = b64encode(credentials.encode()).decode()
        headers = {"Authorization": f"Basic {encoded}"} if credentials else {}
        self.command("Network.enable")
        self.command("Network.setExtraHTTPHeaders", headers=headers)

    def look(self, size, scheme):
        """Choose the size of the window, and between light and dark."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=size[0],
            height=size[1],
            deviceScaleFactor=1,
            mobile=size == PHONE,
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.command("Emulation.setEmulatedMedia", features=[feature])

    def script(self, text, *arguments):
        """The value of an expression."""
        return self.browser.execute_script(f"return {text}", *arguments)

    def wait(self, expression, *arguments):
        """Wait until an expression is true."""
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.browser, 20, 0.01).until(
            lambda _: self.script(expression, *arguments), expression
        )

    def visit(self, path="/"):
        """Load a page."""
        self.browser.get(self.url + path)

    def visit_live(self, path="/"):
        """Load a page, and wait until it is live."""
        self.visit(path)
        self.wait("document.getElementById('live').textContent === 'Live'")

    def follow(self, selector):
        """Click on what leads to another page, and wait until that is there."""
        from selenium.webdriver.support.expected_conditions import staleness_of
        from selenium.webdriver.support.ui import WebDriverWait

        leads = self.the(selector)
        leads.click()
        wait = WebDriverWait(self.browser, 20, 0.01)
        wait.until(staleness_of(leads), selector)
        # It is the last of each page.
        wait.until(lambda _: self.find("footer"), selector)

    def find(self, selector):
        """The elements that fit a selector."""
        return self.browser.find_elements("css selector", selector)

    def the(self, selector):
        """The one element that fits a selector."""
        (found,) = self.find(selector)
        return found

    def text(self, selector="body"):
        """What is to be read there."""
        return " ".join(self.the(selector).text.split())

    def press(self, *keys):
        """Press keys, wherever the focus is."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.browser).send_keys(*keys).perform()

    def shoot(self, name):
        """Keep a picture of the whole page, if the environment says where."""
        folder = os.environ.get("SCREENSHOTS")
        if folder:
            picture = self.command("Page.captureScreenshot", captureBeyondViewport=True)
            path = Path(folder) / f"{name}.png"
            path.write_bytes(b64decode(picture["data"]))
