"""The frame of an exported script: options, process settings, the loader, the run and its measured throughput."""

from __future__ import annotations

import math

from autotune.export.quoting import identifier, literal
from autotune.export.script.data import DataPiece
from autotune.export.script.model import built_model, built_optimizer, own_optimizer
from autotune.export.script.piece import Own, Piece, block, function
from autotune.export.script.step import step_arguments
from autotune.export.target import Source
from autotune.export.text import Expression, arguments, call, loader_arguments
from autotune.spec import Spec

_FEWEST_WARM_UP_STEPS = 10
_NEW_PRECISION_API = (2, 9)
"""The first PyTorch version with `fp32_precision`."""
_OPTIONS = """\
    parser.add_argument("--steps", type=int, default=100, help="optimizer steps, after the warm-up (default: 100)")
    parser.add_argument("--seconds", type=float, help="train for this time instead; the first 40 %% of it warm up")
    parser.add_argument("--seed", type=int, default={seed}, help="(default: {seed})")
    return parser.parse_args()"""


def constants(source: Source) -> str:
    config = source.config
    ahead = config.num_workers * (config.prefetch_factor or 2)
    warm_up = max(_FEWEST_WARM_UP_STEPS, math.ceil(2 * ahead / config.grad_accum_steps))
    lines = [] if source.on_cpu else [f"DEVICE = torch.device({literal(_device(source))})"]
    lines.append(f"MICRO_BATCH_SIZE = {literal(config.micro_batch_size)}")
    if config.grad_accum_steps > 1:
        lines.append(f"GRAD_ACCUM_STEPS = {literal(config.grad_accum_steps)}")
    return "\n".join([*lines, f"WARM_UP_STEPS = {warm_up}"])


def _device(source: Source) -> str:
    asked = source.spec.device if source.spec else "auto"
    return source.device_kind if asked == "auto" else asked


def options_piece(spec: Spec, data: DataPiece) -> Piece:
    given = "required=True" if data.folder is None else f"default={literal(data.folder)}"
    folder = f'    parser.add_argument("--data", metavar="DIR", {given})\n' if data.takes_folder else ""
    parser = '    parser = argparse.ArgumentParser(description="Trains with the settings of a study.")\n'
    code = f"def parse_options():\n{parser}{folder}{_OPTIONS.format(seed=literal(spec.training.seed))}"
    return Piece(code=code, imports=frozenset({"import argparse"}))


def loader_piece(spec: Spec, source: Source, data: DataPiece) -> Piece:
    """`endless_batches`: the micro-batches of all epochs in turn, and when each epoch ended."""
    given = {**loader_arguments(source), "generator": Expression("torch.Generator().manual_seed(seed)")}
    given["batch_size"] = Expression("MICRO_BATCH_SIZE")
    if source.on_cpu or not source.config.pin_memory:
        del given["pin_memory"]
    imports = {"from torch.utils.data import DataLoader"}
    if data.may_be_iterable:
        given["shuffle"] = Expression("not isinstance(dataset, IterableDataset)")
        imports = {"from torch.utils.data import DataLoader, IterableDataset"}
    collate = None if spec.data.collate is None else Own(spec.data.collate, "collate_function")
    if collate is not None:
        given["collate_fn"] = Expression(collate.expression)
    elif data.may_collate:
        given["collate_fn"] = Expression('getattr(dataset, "collate_fn", None)')
    body: list[str | None] = [call("loader = DataLoader", ["dataset", *arguments(given)])]
    if not data.may_be_iterable:
        reason = 'f"the data set is smaller than one batch: {len(dataset)} samples"'
        body.append(block("if len(loader) == 0", [f"raise SystemExit({reason})"]))
    body.append("taken = 0")
    epoch = [
        block("for batch in loader", ["taken += 1", "yield batch"]),
        "epoch_ends.append((taken, time.perf_counter()))",
    ]
    body.append(block("while True", epoch))
    return Piece(
        code=function("endless_batches(dataset, seed, epoch_ends)", _ENDLESS[_accumulates(source)], body),
        imports=frozenset(imports | {"import time"}),
        own=collate,
    )


_NOTES = "At the end of each epoch, `epoch_ends` gets the number of micro-batches so far, and the time.\n"
_ENDLESS = {
    False: f"Batches, epoch after epoch, without the shorter last batch of each epoch.\n\n{_NOTES}",
    True: (
        "Batches, epoch after epoch, without the shorter last batch of each epoch.\n\n"
        "An optimizer step continues in the next epoch, so it always has all of its micro-batches.\n"
        f"{_NOTES}"
    ),
}


def _accumulates(source: Source) -> bool:
    return source.config.grad_accum_steps > 1


def process_lines(source: Source) -> list[str]:
    """The settings that must come before the first operator."""
    config = source.config
    lines = [f"torch.set_num_threads({literal(config.num_threads)})"] if config.num_threads is not None else []
    if config.fp32_precision is not None:
        release = source.torch_release
        if release is None or release >= _NEW_PRECISION_API:
            owners = ("cuda.matmul", "cudnn.conv", "cudnn.rnn")
            lines += [f"torch.backends.{owner}.fp32_precision = {literal(config.fp32_precision)}" for owner in owners]
        else:
            allowed = config.fp32_precision == "tf32"
            lines += [f"torch.backends.{owner}.allow_tf32 = {allowed}" for owner in ("cuda.matmul", "cudnn")]
    if config.compile != "none" and config.amp_dtype != "none":
        lines.append("# Compile the backward pass as it runs: outside of autocast.")
        lines.append(block('if hasattr(functorch_config, "backward_pass_autocast")', [_BACKWARD]))
    return lines


_BACKWARD = 'functorch_config.backward_pass_autocast = "off"'


def timed_piece(source: Source) -> Piece:
    """`train`: optimizer steps, and how long they took."""
    wait = None if source.on_cpu else f"torch.{identifier(source.device_kind)}.synchronize()"
    body = [
        wait,
        "began, done = time.perf_counter(), 0",
        block(
            "while done < steps and (done == 0 or time.perf_counter() - began < seconds)",
            ["loss = step()", "done += 1"],
        ),
        wait,
        "return done, time.perf_counter() - began, loss",
    ]
    said = "Train for `steps` optimizer steps or `seconds`; returns the number of steps, their time and the last loss."
    return Piece(code=function("train(step, steps, seconds)", said, body), imports=frozenset({"import time"}))


def main_piece(spec: Spec, source: Source, data: DataPiece) -> Piece:
    config = source.config
    folder = "options.data" if data.takes_folder else ""
    samples = "MICRO_BATCH_SIZE * GRAD_ACCUM_STEPS" if _accumulates(source) else "MICRO_BATCH_SIZE"
    warm_up = [
        "train(step, WARM_UP_STEPS, math.inf)",
        "epoch_ends.clear()",
        "steps, seconds, loss = train(step, options.steps, math.inf)",
    ]
    timed = [
        "train(step, math.inf, 0.4 * options.seconds)",
        "epoch_ends.clear()",
        "steps, seconds, loss = train(step, math.inf, 0.6 * options.seconds)",
    ]
    whole_epochs = [
        "(first, began), (last, ended) = epoch_ends[0], epoch_ends[-1]",
        "samples_per_s = (last - first) * MICRO_BATCH_SIZE / (ended - began)",
        'measured = f"{len(epoch_ends) - 1} whole epochs"',
    ]
    body = [
        "options = parse_options()",
        *process_lines(source),
        *(["torch.cuda.set_device(DEVICE)"] if _device(source).startswith("cuda:") else []),
        "random.seed(options.seed)",
        "np.random.seed(options.seed)",
        "torch.manual_seed(options.seed)",
        f"dataset = build_dataset({folder})",
        f"model = {built_model(spec, data)}",
        built_optimizer(spec, fused=config.fused_optimizer),
        _scaler(source),
        "epoch_ends = []",
        "batches = endless_batches(dataset, options.seed, epoch_ends)",
        f"step = partial(train_step, {step_arguments(source)})",
        "",
        "train(step, 1, math.inf)  # the first step includes all one-time costs",
        block("if options.seconds is None", warm_up),
        block("else", timed),
        f"samples_per_s = steps * {samples} / seconds",
        'measured = f"{steps} steps after the warm-up"',
        "# The rate of a long run: the time between two epochs counts too.",
        block("if len(epoch_ends) > 1", whole_epochs),
        'figures = {"samples_per_s": samples_per_s, "measured": measured, "steps": steps, "loss": loss.item()}',
        "print(json.dumps(figures))",
    ]
    imports = {
        "import json",
        "import math",
        "import random",
        "from functools import partial",
        "import numpy as np",
        "import torch",
    }
    if config.compile != "none" and config.amp_dtype != "none":
        imports.add("import torch._functorch.config as functorch_config")
    return Piece(code=function("main()", None, body), imports=frozenset(imports), own=own_optimizer(spec))


def _scaler(source: Source) -> str | None:
    if source.config.amp_dtype != "fp16":
        return None
    return f"scaler = torch.amp.GradScaler({literal('cpu') if source.on_cpu else 'DEVICE.type'})"
