"""
The tests of txbits; ``python -b -m twisted.trial --random=0 tests`` runs them all.

Property tests take their settings from here. With ``CI`` in the environment they draw
the same examples in every run, so that a build fails for its own change only.
"""

import atexit
import os
import shutil
import tempfile

from hypothesis import settings

# Time limits for an example are off: the machine may be busy. Failures are not kept
# in a database, since trial begins with an empty working directory anyway.
settings.register_profile("default", max_examples=60, deadline=None, database=None)
settings.register_profile(
    "ci", settings.get_profile("default"), max_examples=100, derandomize=True
)
settings.load_profile("ci" if os.environ.get("CI") else "default")

if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    # Nothing is to be written beside the sources. But some hundred programs that tests
    # start would compile all of txbits each, which takes a fifth of their start.
    _compiled = tempfile.mkdtemp(prefix="txbits-compiled-")
    atexit.register(shutil.rmtree, _compiled, ignore_errors=True)
    os.environ["PYTHONPYCACHEPREFIX"] = _compiled
