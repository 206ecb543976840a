"""The default: the Gaussian process, which needs the fewest trials on spaces like these."""

from __future__ import annotations

import dataclasses

from autotune.search.strategies import gp

STRATEGY = dataclasses.replace(gp.STRATEGY, name="auto")
