"""
Authorities, certificates and revocation lists, made with the program ``openssl``.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc")

_CONFIGURATION = """
[ca]
default_ca = authority
[authority]
database = {name}.index
certificate = {name}.pem
private_key = {name}.key
default_md = sha256
default_crl_days = 1
"""


def run(folder: Path, *arguments: object) -> None:
    """Run ``openssl``; its output is in the error if it fails."""
    done = subprocess.run(
        ["openssl", *map(str, arguments)],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"openssl {arguments}: {done.stderr.decode()}")


class Authority:
    """
    An authority with its files in a folder: ``NAME.pem``, ``NAME.key`` and, after
    :meth:`list_revoked`, ``NAME.crl``.

    :param folder: The folder.
    :param name: The name of the files, and the common name.
    :param above: The authority that signs the certificate; ``None`` for a root.
    """

    def __init__(
        self, folder: Path, name: str = "ca", above: Authority | None = None
    ) -> None:
        self.folder, self.name = folder, name
        self.certificate = folder / f"{name}.pem"
        self.crl = folder / f"{name}.crl"
        (folder / f"{name}.index").touch()
        (folder / f"{name}.cnf").write_text(_CONFIGURATION.format(name=name))
        if above is None:
            subject = f"/CN=Authority {name}"
            self._openssl(
                "req", "-x509", *_KEY, "-keyout", f"{name}.key", "-out", f"{name}.pem",
                "-subj", subject, "-days", 2,
            )  # fmt: skip
        else:
            above.issue(
                name,
                f"/CN=Authority {name}",
                "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign,cRLSign",
            )

    def _openssl(self, *arguments: object) -> None:
        run(self.folder, *arguments)

    def issue(
        self,
        name: str,
        subject: str | None = None,
        extensions: str = "extendedKeyUsage=clientAuth",
        *,
        days: int = 2,
    ) -> tuple[Path, Path]:
        """
        Issue a certificate, ``NAME.pem`` with ``NAME.key``.

        :param subject: As ``/CN=alice``; by default, with *name* as common name.
        :param extensions: Lines of OpenSSL's configuration.
        :param days: How long it is valid; below 0, it has expired.
        :returns: The names of both files.
        """
        subject = f"/CN={name}" if subject is None else subject
        (self.folder / f"{name}.ext").write_text(extensions + "\n")
        self._openssl(
            "req", *_KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr",
            "-utf8", "-subj", subject,
        )  # fmt: skip
        self._openssl(
            "x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem",
            "-CA", f"{self.name}.pem", "-CAkey", f"{self.name}.key", "-CAcreateserial",
            "-extfile", f"{name}.ext", "-days", days,
        )  # fmt: skip
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"

    def issue_server(self, name: str = "server", *, days: int = 2) -> tuple[Path, Path]:
        """Issue the certificate of a server on 127.0.0.1."""
        extensions = "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth"
        return self.issue(name, extensions=extensions, days=days)

    def renew(self, path: Path) -> None:
        """Write another certificate of a root, for the same name and key."""
        self._openssl(
            "req", "-x509", "-key", f"{self.name}.key", "-out", path,
            "-subj", f"/CN=Authority {self.name}", "-days", 3,
        )  # fmt: skip

    def revoke(self, name: str) -> None:
        """Revoke the certificate ``NAME.pem``."""
        self._openssl("ca", "-config", f"{self.name}.cnf", "-revoke", f"{name}.pem")

    def list_revoked(self, *options: str) -> Path:
        """
        Write the list of revoked certificates.

        :param options: Such as ``-crl_nextupdate``, with its value.
        :returns: The name of the file.
        """
        self._openssl(
            *("ca", "-config", f"{self.name}.cnf", "-gencrl"),
            *("-out", self.crl.name, *options),
        )
        return self.crl
