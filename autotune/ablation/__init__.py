"""The ablation: what each technique gives alone, and what they give together, on this model, data and machine.

What the three of the paper (Nokhwal et al., 2023) can do, and what not:

- Gradient accumulation (GA) gives no throughput over a true large batch. It buys memory: the same effective batch from
  micro-batches of a part of it. Small micro-batches use a device less well, so expect a ratio of at most 1. BatchNorm
  then takes its statistics from the micro-batch, which changes what is learnt; LayerNorm does not care.
- Automatic mixed precision (AMP) gives as much as the hardware has of 16-bit units: much on tensor cores, something on
  CPUs with bf16 instructions, a loss where it is emulated, or where depth-wise convolutions have no fast kernels. It
  also halves the activations in memory. fp16 needs a GradScaler, which the paper's scripts lack; bf16 needs none.
- Pinned memory (PM) pays only with an accelerator, with copies that do not block, and with loader processes, from which
  a thread of its own takes over the pinning; without them the training loop waits for it. It can slow things down.

The paper cannot tell these apart: it reports combined times only, its two arms differ in batch size, and memory is
pinned in both. Here all 2^k combinations are measured at the same effective batch size, in rounds of fresh processes in
random order, all of a round from the same weights and samples. `autotune.stats.factorial` has the formulas.
"""

from autotune.ablation.design import Design, plan
from autotune.ablation.rounds import Rounds
from autotune.ablation.run import Interrupted, ablate
from autotune.ablation.write import overview, write, write_overview

__all__ = ["Design", "Interrupted", "Rounds", "ablate", "overview", "plan", "write", "write_overview"]
