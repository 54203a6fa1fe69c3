"""
The settings of an S3 backend.
"""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from attrs import field, fields_dict, frozen

from txbits.backends.s3._budget import DEFAULT_MEMORY
from txbits.errors import InvalidSetting

_KIB = 1 << 10
_MIB = 1 << 20

#: The least length of parts but the last, at Amazon and most other stores.
LEAST_PART = 5 * _MIB

#: How many parts must fit into the memory.
LEAST_PARTS = 4

#: As long as the Fragments of ``txbits upload``, so that no byte has to be put twice.
DEFAULT_PART = 10 * _MIB

#: The greatest length of parts.
MOST_PART = 5 << 30

#: The longest that a signed URL is valid, in seconds.
MOST_PRESIGN = 7 * 86_400

#: Multipart uploads that are younger may belong to a node that has not recorded them
#: yet, in seconds.
LEAST_ORPHAN_AGE = 3600

_SIZE = re.compile(r"([0-9]{1,16})\s*([KMG]i?B?)?", re.IGNORECASE)
_UNITS = {"": 1, "k": _KIB, "m": _MIB, "g": 1 << 30}

# Stores allow less; this excludes what cannot be part of a URL.
_BUCKET = re.compile(r"[A-Za-z0-9.\-_:/]{1,255}")
#: Characters that cannot be in the XML of requests and responses.
NOT_IN_XML = re.compile("[\ufffe\uffff]")

_TOKEN = re.compile(r"[A-Za-z0-9:_./\-]{1,2048}")


@frozen(kw_only=True)
class S3Settings:
    """
    The bucket, and how to use it.

    :ivar bucket: The bucket's name, or the ARN of an access point.
    :ivar prefix: The prefix of all keys.
    :ivar endpoint: The URL of the store; ``None`` for that of AWS's environment and
        files, and of Amazon if these have none.
    :ivar region: The region; ``None`` for that of AWS's environment and files.
    :ivar profile: The profile in AWS's files; ``None`` for the default.
    :ivar part_size: The shortest part, in bytes.
    :ivar max_parts: How many parts a file may have.
    :ivar storage_class: The storage class of published files; ``None`` for the
        bucket's.
    :ivar sse: The server-side encryption of everything; ``None`` for the bucket's.
    :ivar sse_key: The KMS key for it.
    :ivar addressing: Where the bucket's name is in URLs: ``"path"``, ``"virtual"``, or
        ``"auto"``, as botocore decides.
    :ivar ca: A file of PEM certificates to trust instead of the system's.
    :ivar memory: How many bytes of uploads the process may hold, in all its backends;
        ``None`` for the limit of the others.
    :ivar checksum: The checksum of each upload: ``"crc32"`` or ``"md5"``.
    :ivar connections: How many requests may be under way.
    :ivar timeout: For how many seconds a request is repeated.
    :ivar presign: For how many seconds the URLs are valid that clients are redirected
        to for published files; ``None`` to serve the files ourselves.
    :ivar orphan_age: After how many seconds a multipart upload below the prefix is
        aborted if it belongs to no session.
    """

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    profile: str | None = None
    part_size: int = DEFAULT_PART
    max_parts: int = 10_000
    storage_class: str | None = None
    sse: str | None = None
    sse_key: str | None = None
    addressing: str = "auto"
    ca: str | None = None
    memory: int | None = None
    checksum: str = "crc32"
    connections: int = 32
    timeout: float = 100.0
    presign: int | None = None
    orphan_age: float = 86_400.0
    staging: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        if not _BUCKET.fullmatch(self.bucket):
            raise InvalidSetting(f"s3: {self.bucket!a} is not the name of a bucket")
        if (
            self.prefix.startswith("/")
            or re.search(r"[\x00-\x1f\x7f]", self.prefix)
            or NOT_IN_XML.search(self.prefix)
        ):
            raise InvalidSetting(
                "s3: prefix must not begin with a slash or contain control "
                f"characters, not {self.prefix!a}"
            )
        if self.endpoint is not None:
            parts = urlsplit(self.endpoint)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise InvalidSetting(
                    "s3: endpoint must be an http or https URL, not "
                    f"{self.endpoint!a}; in a description, put backslashes before its "
                    "colons"
                )
        _choose("addressing", self.addressing, ("auto", "path", "virtual"))
        _choose("checksum", self.checksum, ("crc32", "md5"))
        if self.sse is not None:
            _choose("sse", self.sse, ("AES256", "aws:kms", "aws:kms:dsse"))
        if self.sse_key is not None and not (self.sse or "").startswith("aws:kms"):
            raise InvalidSetting("s3: sse-key requires sse=aws\\:kms")
        for name in ("storage_class", "sse_key", "region", "profile"):
            value = getattr(self, name)
            if value is not None and not _TOKEN.fullmatch(value):
                raise InvalidSetting(f"s3: {_said(name)} cannot be {value!a}")
        if self.ca is not None and not os.path.isfile(self.ca):
            raise InvalidSetting(f"s3: ca: file not found: {self.ca!a}")
        for name, least, most in (
            ("part_size", LEAST_PART, MOST_PART),
            ("max_parts", 1, 10_000),
            ("connections", 1, 1_000),
            ("timeout", 1, 240),
            ("orphan_age", LEAST_ORPHAN_AGE, 365 * 86_400),
            ("memory", LEAST_PARTS * self.part_size, 1 << 40),
        ):
            value = getattr(self, name)
            if name == "memory" and value is None:
                value = DEFAULT_MEMORY
            if not least <= value <= most:
                raise InvalidSetting(
                    f"s3: {_said(name)} must be from {least} to {most}, not {value}"
                )
        if self.presign is not None and not 1 <= self.presign <= MOST_PRESIGN:
            raise InvalidSetting(
                f"s3: presign must be from 1 to {MOST_PRESIGN} seconds, not "
                f"{self.presign}"
            )
        object.__setattr__(self, "staging", f"{self.prefix}.bits-sessions/")

    @property
    def store(self) -> str:
        """What identifies the store, as far as the settings say."""
        # botocore uses these two first.
        said = (
            self.endpoint
            or os.environ.get("AWS_ENDPOINT_URL_S3")
            or os.environ.get("AWS_ENDPOINT_URL")
        )
        if said is None:
            return ""
        parts = urlsplit(said)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
        return f"{parts.hostname}:{port}{parts.path.rstrip('/')}"

    def key(self, destination: tuple[str, ...]) -> str:
        """Return the key of a published file."""
        return self.prefix + "/".join(destination)


def _said(name: str) -> str:
    return name.replace("_", "-")


def _choose(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InvalidSetting(
            f"s3: {_said(name)} must be one of {', '.join(choices)}, not {value!a}"
        )


def size(text: str, name: str) -> int:
    """
    Read a number of bytes, such as ``8388608`` or ``8MiB``.

    :param name: The name of the setting, for error messages.
    :raises InvalidSetting: If it is not a number of bytes.
    """
    found = _SIZE.fullmatch(text)
    if found is None:
        raise InvalidSetting(
            f"s3: {name} must be a number of bytes such as 8388608 or 8MiB, not "
            f"{text!a}"
        )
    return int(found[1]) * _UNITS[(found[2] or "").lower()[:1]]


def from_description(bucket: str, given: dict[str, str]) -> S3Settings:
    """
    Read the settings in a description.

    :raises InvalidSetting: If one is unknown or invalid; the text is one line.
    """
    values: dict[str, object] = {}
    known = {_said(name): one for name, one in fields_dict(S3Settings).items()}
    for internal in ("bucket", "staging"):
        del known[internal]
    for name, text in given.items():
        if name not in known:
            raise InvalidSetting(
                f"s3: there is no setting {name!a}; the settings are "
                f"{', '.join(sorted(known))}"
            )
        attribute = known[name]
        if name in ("part-size", "memory"):
            values[attribute.name] = size(text, name)
        elif name == "presign" or isinstance(attribute.default, (int, float)):
            kind = int if attribute.default is None else type(attribute.default)
            try:
                values[attribute.name] = kind(text)
            except ValueError:
                raise InvalidSetting(
                    f"s3: {name} must be a number, not {text!a}"
                ) from None
        else:
            values[attribute.name] = text or attribute.default
    return S3Settings(bucket=bucket, **values)  # type: ignore[arg-type]
