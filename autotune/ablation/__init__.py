"""The ablation: what each technique gives alone, and what they give together, on this model, data and machine.

What the three techniques of the paper (Nokhwal et al., "Accelerating Neural Network Training: A Brief Review", 2023)
can and cannot do:

- Gradient accumulation (GA) gives no throughput over a true large batch. It buys memory: the same effective batch from
  micro-batches of a part of it. Small micro-batches use a device less well, so expect a ratio of at most 1. BatchNorm
  then takes its statistics from the micro-batch, which changes what is learnt; LayerNorm does not care.
- Automatic mixed precision (AMP) gives as much as the hardware has of 16-bit units: much on tensor cores, something on
  CPUs with bf16 instructions, a loss where it is emulated, or where depth-wise convolutions have no fast kernels. It
  also halves the activations in memory. fp16 needs a GradScaler, which the paper's scripts lack; bf16 needs none.
- Pinned memory (PM) helps only with an accelerator, with non-blocking copies, and with loader processes: a separate
  thread then pins their batches; without them the training loop waits for the pinning. It can slow training down.

The paper cannot separate these effects: it reports only combined times, its two sides differ in batch size, and memory
is pinned in both. Here all 2^k combinations are measured at the same effective batch size, in rounds of new processes
in random order. All runs of a round start from the same weights and samples. `autotune.stats.factorial` has the
formulas.
"""

from autotune.ablation.design import Design, plan
from autotune.ablation.rounds import Rounds
from autotune.ablation.run import Interrupted, ablate
from autotune.ablation.write import overview, write, write_overview

__all__ = ["Design", "Interrupted", "Rounds", "ablate", "overview", "plan", "write", "write_overview"]
