"""
The S3 backend: uploads straight into a bucket, by as many nodes as one likes.

It needs what ``pip install 'txbits[s3]'`` brings.
"""

from __future__ import annotations

from txbits.backends.s3._settings import S3Settings
from txbits.backends.s3.backend import S3Backend

__all__ = ["S3Backend", "S3Settings"]
