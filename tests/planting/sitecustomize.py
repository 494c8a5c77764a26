"""Plants the bug that ONWARD_MUTANT names, in each program whose PYTHONPATH has this folder: Python imports this by itself.

Only tests/mutants.py puts it there, for a run of tests and for all programs that these start.
"""

from __future__ import annotations

import os

if name := os.environ.get("ONWARD_MUTANT"):
    from faults.bugs import plant

    plant(name)
