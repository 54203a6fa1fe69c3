"""
A real Chromium for the tests, as Debian packages it, and the tests that use it.

:func:`chromium` starts one when a test first asks for it, and returns the same one
until the process ends. Its profile is in a temporary folder, and it finds no address
but 127.0.0.1. All calls of it block, so tests make them in a thread: see
:class:`tests.browser.support.BrowserCase`.

No ``pip install`` provides it. So trial does not find the modules of this folder by
itself: ``tests/test_browser.py`` adds them where :func:`missing` returns nothing. To
run one of them, name it: ``python -m twisted.trial tests.browser.page``.
"""

from __future__ import annotations

import atexit
import importlib.util
import shutil
import tempfile

_PROGRAMS = ("chromium", "chromedriver")

_ARGUMENTS = (
    "--headless=new",
    # The tests may run as root, and it sees pages of theirs only.
    "--no-sandbox",
    # Containers have little shared memory, and no graphics.
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)

_running = None


def missing():
    """What these tests need and this machine does not have, in words; or nothing."""
    absent = [one for one in _PROGRAMS if shutil.which(one) is None]
    if importlib.util.find_spec("selenium") is None:
        absent.append("the package selenium")
    return ", ".join(absent)


def chromium():
    """The browser of this process, started by whoever asks first. It blocks."""
    global _running
    if _running is None:
        _running = _start()
    return _running


def _start():
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    profile = tempfile.mkdtemp(prefix="txbits-chromium-")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in (*_ARGUMENTS, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # Naming it keeps selenium from downloading another one.
    service = Service(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_page_load_timeout(30)
    driver.set_script_timeout(30)

    def end():
        driver.quit()
        shutil.rmtree(profile, ignore_errors=True)

    atexit.register(end)
    return driver
