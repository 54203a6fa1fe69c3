"""
The contract of a backend, as tests: whoever writes one runs these against it.
"""

from __future__ import annotations

from txbits.testing._abilities_contract import AbilitiesContract
from txbits.testing._answer_contract import AnswerContract
from txbits.testing._contract import contract
from txbits.testing._creation_contract import HOSTILE, CreationContract
from txbits.testing._download_contract import DownloadContract
from txbits.testing._record_contract import RecordContract
from txbits.testing._session_contract import (
    PublishingContract,
    ReleasingContract,
    WritingContract,
)

__all__ = ["HOSTILE", "BackendContract", "contract"]


class BackendContract(
    CreationContract,
    RecordContract,
    WritingContract,
    PublishingContract,
    ReleasingContract,
    AbilitiesContract,
    AnswerContract,
    DownloadContract,
):
    """
    Tests of everything that :mod:`txbits.interfaces` promises of a backend.

    Mix it into a test case of trial::

        class MyBackendTests(BackendContract, TestCase):
            def make_backend(self):
                return MyBackend(self.mktemp())
            ...

    The subclass supplies

    - ``make_backend()``: a backend over a fresh store, not started;
    - ``reopen_backend(backend)``: another backend over the same store, not started,
      as if the process of the first had been killed; or ``None`` if the store dies
      with the process;
    - ``published(backend, destination)``: the bytes of the file at a destination, or
      ``None``;
    - ``place(backend, destination, data)``: puts a file there that no upload brought,
      with its parent directories;
    - ``leftovers(backend)``: names, for a reader, everything in the store but
      published files, records of closes, and what a store without sessions has;

    and, where it has to,

    - ``has_directories = False``, if no parent directory can ever be missing;
    - ``records_total_at_once = False``, if opening a writer does not;
    - ``now(backend)``: the backend's clock, if that is not the machine's.

    ``published``, ``place`` and ``leftovers`` may return Deferreds. A backend that
    needs a running reactor (threads, a network) uses
    ``twisted.trial.unittest.TestCase``; one whose Deferreds have all fired when they
    are returned may use ``SynchronousTestCase``. Optional abilities are tested if
    sessions provide them.
    A test of your own that is a coroutine takes the decorator :func:`contract`.
    """
