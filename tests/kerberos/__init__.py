"""
A real KDC for the tests, MIT Kerberos as Debian packages it, and the tests of Kerberos.

:func:`kdc` makes a realm when a test first asks for it, in a temporary folder and on a
free port of 127.0.0.1, and returns the same one until the process ends. It sets
``KRB5_CONFIG`` and the like for this process, so that the library and all programs
started from here know this realm and nothing of the machine's.

No ``pip install`` provides all of this: gssapi is compiled on installation, and the KDC
is a package of the system. So trial does not find the modules of this folder by
itself: ``tests/test_kerberos.py`` adds them where :func:`missing` returns nothing. To
run one of them, name it: ``python -m twisted.trial tests.kerberos.negotiate``.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
from itertools import count
from pathlib import Path

from tests.ports import free_ports

REALM = "EXAMPLE.TEST"

#: The service that the tests log in to.
SERVICE = "HTTP/localhost"

_PROGRAMS = (
    "krb5kdc",
    "kdb5_util",
    "kadmin.local",
    "kinit",
    "setpriv",
    "curl",
    "nginx",
    "haproxy",
)
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])

# What a user of the machine may have set, and would change what the tests do.
_FOREIGN = ("KRB5CCNAME", "KRB5_KTNAME", "KRB5_CLIENT_KTNAME", "KRB5_TRACE")

_KRB5_CONF = f"""\
[libdefaults]
    default_realm = {REALM}
    dns_lookup_realm = false
    dns_lookup_kdc = false
    dns_canonicalize_hostname = false
    rdns = false
    # TCP only: where nothing listens, a client knows at once.
    udp_preference_limit = 1
    clockskew = %(skew)d

[realms]
    {REALM} = {{
        kdc = 127.0.0.1:%(port)d
    }}

[domain_realm]
    localhost = {REALM}
"""

_KDC_CONF = f"""\
[kdcdefaults]
    kdc_listen = 127.0.0.1:%(port)d
    kdc_tcp_listen = 127.0.0.1:%(port)d

[realms]
    {REALM} = {{
        database_name = %(folder)s/principal
        key_stash_file = %(folder)s/stash
        acl_file = %(folder)s/acl
        max_life = 10h
        supported_enctypes = aes256-cts:normal
    }}

[logging]
    default = FILE:%(folder)s/log
"""

_START_SECONDS = 30

_running = None


def missing():
    """What these tests need and this machine does not have, in words; or nothing."""
    absent = [one for one in _PROGRAMS if shutil.which(one, path=_PATH) is None]
    if importlib.util.find_spec("gssapi") is None:
        absent.append("the package gssapi")
    return ", ".join(absent)


def kdc():
    """The realm of this process, made by whoever asks first, on the main thread."""
    global _running
    if _running is None:
        _running = KDC()
        atexit.register(_running.remove)
    return _running


class KDC:
    """
    A realm, and the KDC that serves it. All calls block for some milliseconds.

    :ivar folder: Where all its files are.
    :ivar environment: What lets a program know this realm.
    """

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="txbits-kdc-"))
        (self._port,) = free_ports(1)
        self._process = None
        self._numbers = count(1)
        self._users = set()
        self._services = set()
        values = {"folder": self.folder, "port": self._port}
        (self.folder / "kdc.conf").write_text(_KDC_CONF % values)
        self.environment = {
            "KRB5_CONFIG": str(self.config()),
            "KRB5_KDC_PROFILE": str(self.folder / "kdc.conf"),
            "KRB5RCACHENAME": f"file2:{self.folder}/replays",
        }
        os.environ.update(self.environment)
        for name in _FOREIGN:
            os.environ.pop(name, None)
        self._run("kdb5_util", "create", "-r", REALM, "-s", "-P", "not-a-secret")
        self.start()

    def config(self, skew=300):
        """
        Write a ``krb5.conf`` that names this KDC.

        :param skew: By how many seconds clocks may differ.
        :returns: Its path.
        """
        path = self.folder / f"krb5-{skew}.conf"
        path.write_text(_KRB5_CONF % {"port": self._port, "skew": skew})
        return path

    def start(self):
        """Start the KDC, and wait until it answers."""
        log = self.folder / "output"
        with log.open("ab") as output:
            # It ends with this process, however that ends.
            self._process = subprocess.Popen(
                [
                    *(found("setpriv"), "--pdeathsig", "KILL"),
                    *(found("krb5kdc"), "-n", "-r", REALM),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        waited = time.monotonic() + _START_SECONDS
        while self._process.poll() is None and time.monotonic() < waited:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self._port), 5).close()
                return
            time.sleep(0.01)
        raise AssertionError(f"the KDC did not start: {log.read_text()}")

    def stop(self):
        """Stop the KDC, so that nothing listens on its port. Again is fine."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def remove(self):
        """Stop the KDC, and remove the realm."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log_in(self, user, lifetime="1h"):
        """
        Log a user in, and create the user before if necessary.

        :param user: A principal, without the realm.
        :param lifetime: That of the ticket, as ``kinit -l`` takes it.
        :returns: The path of a new credentials cache.
        """
        keys = self.folder / "users.keytab"
        if user not in self._users:
            self._users.add(user)
            self.administer(
                f'addprinc -randkey "{user}"', f'ktadd -k {keys} -norandkey "{user}"'
            )
        cache = self.folder / f"cache-{next(self._numbers)}"
        self._run("kinit", "-k", "-t", keys, "-c", cache, "-l", lifetime, user)
        return str(cache)

    def keytab(self, *services):
        """
        Write a keytab, and create the services before if necessary.

        :param services: Principals, without the realm; by default :data:`SERVICE`.
        :returns: Its path.
        """
        path = self.folder / f"keytab-{next(self._numbers)}"
        for service in services or (SERVICE,):
            if service not in self._services:
                self._services.add(service)
                self.administer(f"addprinc -randkey {service}")
            self.administer(f"ktadd -k {path} -norandkey {service}")
        return str(path)

    def change_key(self, service=SERVICE):
        """Give a service a new key, of the next version; new tickets use that."""
        self.administer(f"cpw -randkey {service}")

    def administer(self, *commands):
        """Let ``kadmin.local`` do something."""
        for command in commands:
            self._run("kadmin.local", "-r", REALM, "-q", command)

    def _run(self, program, *arguments):
        done = subprocess.run(
            [found(program), *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        # kadmin.local succeeds whatever it could not do.
        failed = program == "kadmin.local" and "while" in done.stderr
        if done.returncode != 0 or failed:
            raise AssertionError(f"{program} {arguments}: {done.stderr}")


def found(program):
    """The path of a program that :func:`missing` does not name."""
    path = shutil.which(program, path=_PATH)
    assert path is not None, f"{program} is not installed"
    return path
