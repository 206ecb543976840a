"""The commented spec that `autotune init` writes: it runs unchanged, and shows every section."""

from __future__ import annotations

from autotune.spec.scalars import dump_yaml

_TEXT = """\
# What autotune speeds up. Check it with `autotune validate`, run it with `autotune search`.
# Only model, data and budget are required; whatever else stands here is the default, unless a comment says otherwise.
{name}

model:                                # exactly one of timm and factory
  timm: resnet18                      # any name that timm.create_model knows
  # factory: "mypkg.models:build"     # your own code, beside this file or installed: returns an nn.Module
  # args: {{drop_rate: 0.1}}            # keyword arguments of the model; not a default

data:                                 # exactly one source
  synthetic: {{image_size: 224, classes: 10, samples: 2048, storage: jpeg}}   # generated; jpeg: decoded from real files
  # image_folder: {{path: ~/data/imagenette/train, image_size: 224, augment: timm}}   # one folder a class
  # timm: {{name: torch/cifar10, root: ~/data, image_size: 224, args: {{download: true}}}}
  # factory: "mypkg.data:build"       # returns a Dataset of (input, target)
  # args: {{root: ~/data}}              # keyword arguments of the factory
  # collate: "mypkg.data:pad"         # makes a batch of a list of samples, as a DataLoader's collate_fn

training:                             # held as it is by the search
  loss: cross_entropy                 # or "mypkg.losses:loss", called as loss(model, batch)
  optimizer: {{name: sgd, lr: 0.05, momentum: 0.9}}   # any of torch.optim; momentum is no default
  # optimizer: "mypkg.optim:build"    # or your own, called with the model; {{factory: …, lr: 0.1}} gives it arguments
  # clip_grad_norm: 1.0               # not a default
  seed: 0
  effective_batch_size: baseline      # samples per optimizer step, held; or 256, {{min: 128, max: 512}}, free: searched

budget: 10m                           # wall-clock time of the whole command: 90s, 10m, 1h30m
device: auto                          # cpu, cuda, cuda:1, mps, xpu
objective: throughput                 # samples per second over whole optimizer steps, data loading included

baseline:                             # what the speed-up is measured against: how you train today
  micro_batch_size: 32
  amp_dtype: none                     # bf16, fp16
  pin_memory: false
  num_workers: 0
  memory_format: contiguous           # channels_last
  compile: none                       # default, reduce-overhead, max-autotune

search:                               # a knob that is not named takes every value that applies here
  # micro_batch_size: {{min: 8, max: 512, step: pow2}}
  # grad_accum_steps: [1, 2, 4, 8, 16]
  # amp_dtype: [none, bf16, fp16]
  # pin_memory: [false, true]
  # num_workers: [0, 2, 4, 8]         # default: up to the usable cores, and further where loading waits
  # prefetch_factor: [2, 4]
  # memory_format: [contiguous, channels_last]
  # compile: none                     # one value holds a knob fixed
  # fp32_precision: [ieee, tf32]
  # fused_optimizer: [false, true]
  # activation_checkpointing: false
  # num_threads: [1, 2, 4]
  # data_parallel: [ddp, fsdp]        # this and the next three: with execution.ranks_per_trial only
  # bucket_cap_mb: [5, 25, 100]
  # gradient_as_bucket_view: [false, true]
  # static_graph: [false, true]
  # custom:                           # knobs of your own: any argument of the model, the data factory, the optimizer
  #   foreach: {{values: [null, true, false], arg: training.optimizer.foreach}}

# constraints:                        # what a configuration must meet; none by default
#   - micro_batch_size * grad_accum_steps <= 1024   # knobs: what does not meet it is never tried
#   - peak_memory_bytes <= 20GiB                    # measures: what does not meet it is never emitted

stability:                            # what the winner must meet
  loss_tolerance: 0.05                # largest relative excess of its loss over the baseline's, at equal samples
  memory_headroom: 0.10               # share of the device's memory that stays free
  max_skipped_steps: 0.05             # share of optimizer steps that fp16's GradScaler may skip
  soak_steps: 100                     # optimizer steps in a row without a fault

strategy: {{name: auto, seed: 0}}       # tpe, gp, qmc, random, grid; args: {{…}}; or a factory of your own
execution: {{backend: local}}           # ranks_per_trial: 8 trains each model on eight devices at once
"""


def scaffold_text(name: str = "study") -> str:
    """YAML of a valid spec called `name`."""
    return _TEXT.format(name=dump_yaml({"name": name}).rstrip())
