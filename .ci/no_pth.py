"""Fail if an installed package brought a ``.pth`` file that nobody has looked at: Python runs those at every start.

Run it with the Python of the environment: ``python -S .ci/no_pth.py SITE_PACKAGES``; -S, so that none has run by then.
"""

import sys
from pathlib import Path

# Looked at: what pip writes for an editable install, coverage for child processes, setuptools for distutils.
KNOWN = {"_editable_impl_voxvec.pth", "_voxvec.pth", "a1_coverage.pth", "distutils-precedence.pth"}

found = {path.name for path in Path(sys.argv[1]).rglob("*.pth")} - KNOWN
if found:
    sys.exit(f"files that Python would run at every start: {sorted(found)}")
