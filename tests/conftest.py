"""What holds for every test."""

from __future__ import annotations

import os

# Read when NumPy and PyTorch are imported, also by the processes that tests start. Tests run in several processes at a
# time; threads of each for every core would wait for each other far longer than they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
