"""The stability gates: each looks at runs of a configuration, and says what it saw and what the limit was.

`passed` means that no instability was seen in the steps that were run; no gate can promise more. Each module holds
those of one kind: `numbers` (what low precision overflows), `gradients`, `losses`, `memory`,
`steady_state`, `confidence` (how well the figures are known), `soak`;
`constraints` those that the spec itself states.
"""

from autotune.search.gates.confidence import known_speedup, undisturbed_runs
from autotune.search.gates.constraints import constraint_check, meets, violations
from autotune.search.gates.gradients import first_gradient_cosine, gradient_underflow
from autotune.search.gates.losses import (
    loss_against_reference,
    loss_per_sample,
    loss_rise,
    loss_spikes,
    needs_other_seeds,
)
from autotune.search.gates.memory import (
    allocator_retries,
    host_memory_headroom,
    memory_growth,
    memory_headroom,
    shm_headroom,
)
from autotune.search.gates.numbers import finite_gradients, finite_loss, fp16_range, loss_scale, skipped_steps
from autotune.search.gates.soak import BUDGET_ENDED, SOAK, SOAK_THROUGHPUT, soak, soak_throughput
from autotune.search.gates.steady_state import steady_state

__all__ = [
    "BUDGET_ENDED",
    "SOAK",
    "SOAK_THROUGHPUT",
    "allocator_retries",
    "constraint_check",
    "finite_gradients",
    "finite_loss",
    "first_gradient_cosine",
    "fp16_range",
    "gradient_underflow",
    "host_memory_headroom",
    "known_speedup",
    "loss_against_reference",
    "loss_per_sample",
    "loss_rise",
    "loss_scale",
    "loss_spikes",
    "meets",
    "memory_growth",
    "memory_headroom",
    "needs_other_seeds",
    "shm_headroom",
    "skipped_steps",
    "soak",
    "soak_throughput",
    "steady_state",
    "undisturbed_runs",
    "violations",
]
