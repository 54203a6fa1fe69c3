"""
Uploads to several nodes whose requests come to the store in any order, late ones last;
see :mod:`tests.backends.s3.interleaving`. A client believes what it is told for sure:
no Ack is behind an earlier one, no session is unknown that it has not ended, and a
Close that succeeds has published the file.
"""

from __future__ import annotations

from tests.backends.s3.interleaving import LENGTHS, Cluster, Upload
from tests.backends.s3.support import S3Case
from txbits._deferreds import a_few_at_a_time
from txbits.testing.backend import contract


class InterleavedTests(S3Case):
    """Three nodes, and clients of which each has one session."""

    timeout = 300

    async def _test(self, seeds, length, kills):
        async def run(seed):
            cluster = Cluster(self, seed, kills)
            await cluster.start(3)
            try:
                for number in range(2):
                    data = cluster.chance.randbytes(length)
                    await Upload(cluster, (f"file-{number % 2}",), data).run()
            finally:
                await cluster.stop()
                self.bucket.clear(cluster.prefix)

        # Two at a time, since one waits for the store most of the time.
        await a_few_at_a_time(2, run, seeds)

    @contract
    async def test_files_in_their_records(self):
        await self._test(range(8), 50_000, 3)

    @contract
    async def test_files_in_tails(self):
        await self._test(range(100, 108), 300_000, 3)

    @contract
    async def test_files_in_parts(self):
        await self._test(range(200, 204), LENGTHS[-1], 3)
