"""`torch`: a training script for this model and data with these settings, that needs PyTorch and timm, not autotune.

It holds no branch that the settings do not take: it reads as if written by hand for them.
"""

from __future__ import annotations

import sys
from typing import Any

from autotune.config import KNOB_NAMES, TrainConfig
from autotune.errors import SpecError
from autotune.export.python import docstring
from autotune.export.target import Source, Target
from autotune.export.torch_data import data_source
from autotune.spec import Spec, with_arguments

_OPTIMIZERS = [
    "ASGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Muon",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SGD",
    "SparseAdam",
]
"""Classes of torch.optim, by which the spec's names are read in any case."""
_DTYPES = {"bf16": "torch.bfloat16", "fp16": "torch.float16"}


def _render(source: Source) -> dict[str, str]:
    config = source.config
    spec = with_arguments(source.require_spec("torch"), dict(config.custom))
    data = data_source(spec, source)
    imports = {"import argparse", "import itertools", "import json", "import time", "import torch"} | data.imports
    imports |= {"from torch.utils.data import DataLoader"}
    factories = [name for name in (spec.model.factory, spec.training.loss) if name and ":" in name]
    imports |= {_import_of(name) for name in factories}
    if spec.model.timm is not None:
        imports.add("import timm")
    if spec.training.loss == "cross_entropy":
        imports.add("from torch.nn import functional")
    parts = [
        docstring(f"Trains {spec.model.timm or spec.model.factory} with the settings of a study.", source, TARGET),
        _import_block(imports, source if factories or data.needs_folder else None),
        _constants(config, source),
        data.code,
        _model(spec, config, data.classes),
        _loss(spec),
        _batches(config),
        _train(spec, config),
        _main(spec, config, data.default_folder, on_cpu=source.on_cpu),
    ]
    head, body = parts[:3], [part for part in parts[3:] if part]
    return {"train.py": "\n\n".join(part.strip("\n") for part in head) + "\n\n\n" + "\n\n\n".join(body) + "\n"}


def _import_of(name: str) -> str:
    module, _, path = name.partition(":")
    return f"import {module}" if "." in path else f"from {module} import {path}"


def _name_of(name: str) -> str:
    module, _, path = name.partition(":")
    return f"{module}.{path}" if "." in path else path


def _import_block(imports: set[str], with_folder: Source | None) -> str:
    plain = sorted(line for line in imports if line.startswith("import "))
    standard = [line for line in plain if line.split()[1] in sys.stdlib_module_names]
    others = sorted(imports - set(standard), key=lambda line: line.split()[1])
    lines = [*standard, "", *others]
    if with_folder is None:
        return "\n".join(lines)
    own = f"sys.path.insert(0, {str(with_folder.folder)!r})  # where the model, data or loss of your own lie"
    return "\n".join(["import sys", "", own, "", *lines])


def _constants(config: TrainConfig, source: Source) -> str:
    kind = str(source.emitted.environment.get("device_kind", "cpu"))
    lines = [f'DEVICE = torch.device("{kind}")', f"MICRO_BATCH_SIZE = {config.micro_batch_size}"]
    if config.grad_accum_steps > 1:
        lines.append(f"GRAD_ACCUM_STEPS = {config.grad_accum_steps}")
    lines.append("WARM_UP_STEPS = 3")
    return "\n".join(lines)


def _model(spec: Spec, config: TrainConfig, classes: str | None) -> str:
    if spec.model.timm is not None:
        arguments = {"pretrained": False, **spec.model.args}
        silent = classes is not None and "num_classes" not in arguments
        own = [*([f"num_classes={classes}"] if silent else []), *_arguments(arguments)]
        built = f"timm.create_model({', '.join([repr(spec.model.timm), *own])})"
    else:
        built = f"{_name_of(str(spec.model.factory))}({', '.join(_arguments(spec.model.args))})"
    lines = [f"    model = {built}.to(DEVICE)"]
    if config.memory_format == "channels_last":
        lines.append("    model = model.to(memory_format=torch.channels_last)")
    if config.activation_checkpointing:
        lines += [
            '    if hasattr(model, "set_grad_checkpointing"):',
            "        model.set_grad_checkpointing()",
            "    else:",
            "        model.gradient_checkpointing_enable()",
        ]
    if config.compile != "none":
        lines.append(f"    model.compile({'' if config.compile == 'default' else f'mode={config.compile!r}'})")
    return "def build_model(dataset):\n" + "\n".join(lines) + "\n    return model"


def _loss(spec: Spec) -> str:
    if spec.training.loss != "cross_entropy":
        return ""
    return """def loss_of(model, batch):
    inputs, targets = batch
    return functional.cross_entropy(model(inputs), targets)"""


def _batches(config: TrainConfig) -> str:
    copied = ", non_blocking=True" if config.pin_memory else ""
    lines = [f"        batch = [part.to(DEVICE{copied}) for part in batch]"]
    if config.memory_format == "channels_last":
        lines.append("        batch[0] = batch[0].contiguous(memory_format=torch.channels_last)")
    loader = {"batch_size": "MICRO_BATCH_SIZE", "shuffle": "True", "drop_last": "True"}
    loader["num_workers"] = repr(config.num_workers)
    if config.num_workers:
        loader["persistent_workers"] = "True"
        if config.prefetch_factor is not None:
            loader["prefetch_factor"] = repr(config.prefetch_factor)
    if config.pin_memory:
        loader["pin_memory"] = "True"
    arguments = "".join(f"        {name}={value},\n" for name, value in loader.items())
    return f"""def batches(dataset, seed):
    \"\"\"Epoch after epoch, on the device. A shorter last batch is left out.\"\"\"
    generator = torch.Generator().manual_seed(seed)
    loader = DataLoader(
        dataset,
        generator=generator,
{arguments}    )
    for batch in itertools.chain.from_iterable(itertools.repeat(loader)):
""" + "\n".join([*lines, "        yield batch"])


def _train(spec: Spec, config: TrainConfig) -> str:
    scaled, accumulates = config.amp_dtype == "fp16", config.grad_accum_steps > 1
    loss = "loss_of" if spec.training.loss == "cross_entropy" else _name_of(spec.training.loss)
    body = ["batch = next(data)", f"loss = {loss}(model, batch)"]
    if config.amp_dtype != "none":
        autocast = f"with torch.autocast(DEVICE.type, dtype={_DTYPES[config.amp_dtype]}):"
        body = ["batch = next(data)", autocast, f"    loss = {loss}(model, batch)"]
    share = "loss / GRAD_ACCUM_STEPS" if accumulates else "loss"
    body.append(
        f"scaler.scale({share}).backward()" if scaled else f"({share}).backward()" if accumulates else "loss.backward()"
    )
    if accumulates:
        body = ["for _ in range(GRAD_ACCUM_STEPS):", *(f"    {line}" for line in body)]
    update = []
    if spec.training.clip_grad_norm is not None:
        update += ["scaler.unscale_(optimizer)"] if scaled else []
        update.append(f"torch.nn.utils.clip_grad_norm_(model.parameters(), {spec.training.clip_grad_norm!r})")
    update += ["scaler.step(optimizer)", "scaler.update()"] if scaled else ["optimizer.step()"]
    # Cleared before the forward pass, not after the update: see TrainStep.
    lines = ["optimizer.zero_grad(set_to_none=True)", *body, *update, "return loss.detach()"]
    names = "model, optimizer, scaler, data" if scaled else "model, optimizer, data"
    return f"def train_step({names}):\n" + "\n".join(f"    {line}" for line in lines)


def _main(spec: Spec, config: TrainConfig, folder: str | None, *, on_cpu: bool) -> str:
    scaled = config.amp_dtype == "fp16"
    optimizer = next((each for each in _OPTIMIZERS if each.lower() == spec.training.optimizer.name.lower()), None)
    if optimizer is None:
        raise SpecError(f"--to torch knows no torch.optim class '{spec.training.optimizer.name}'")
    arguments = [*_arguments(spec.training.optimizer.args), *(["fused=True"] if config.fused_optimizer else [])]
    names = "model, optimizer, scaler, data" if scaled else "model, optimizer, data"
    process = []
    if config.num_threads is not None:
        process.append(f"    torch.set_num_threads({config.num_threads})\n")
    if config.fp32_precision is not None:
        process.append(f"    torch.backends.cuda.matmul.fp32_precision = {config.fp32_precision!r}\n")
        process.append(f"    torch.backends.cudnn.conv.fp32_precision = {config.fp32_precision!r}\n")
    data_option, dataset = "", "build_dataset()"
    if folder != "":
        given = "required=True" if folder is None else f"default={folder!r}"
        data_option, dataset = f'    parser.add_argument("--data", {given})\n', "build_dataset(options.data)"
    samples = "MICRO_BATCH_SIZE * GRAD_ACCUM_STEPS" if config.grad_accum_steps > 1 else "MICRO_BATCH_SIZE"
    synchronise = "" if on_cpu else "    torch.accelerator.synchronize()\n"
    scaler = "    scaler = torch.amp.GradScaler(DEVICE.type)\n" if scaled else ""
    return f"""def main():
    parser = argparse.ArgumentParser()
{data_option}    parser.add_argument("--steps", type=int, help="after the warm-up; silent: by --seconds")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
{"".join(process)}    torch.manual_seed(options.seed)
    dataset = {dataset}
    model = build_model(dataset).train()
    optimizer = torch.optim.{optimizer}(model.parameters(), {", ".join(arguments)})
{scaler}    data = batches(dataset, options.seed)
    for _ in range(WARM_UP_STEPS):
        loss = train_step({names})
{synchronise}    began, steps = time.perf_counter(), 0
    while steps < options.steps if options.steps else time.perf_counter() - began < options.seconds:
        loss = train_step({names})
        steps += 1
{synchronise}    seconds = time.perf_counter() - began
    samples_per_s = steps * {samples} / seconds
    print(json.dumps({{"samples_per_s": samples_per_s, "steps": steps, "loss": loss.item()}}))


if __name__ == "__main__":
    main()"""


def _arguments(values: dict[str, Any]) -> list[str]:
    return [f"{name}={value!r}" for name, value in values.items()]


def _advice(source: Source) -> list[str]:
    found = []
    if source.spec is not None and source.spec.training.loss != "cross_entropy" and source.config.grad_accum_steps > 1:
        found.append("micro-batches weigh the same here; a loss that returns (sum, count) needs autotune.load.")
    return found


TARGET = Target(name="torch", render=_render, expresses=frozenset({*KNOB_NAMES, "custom"}), advice=_advice)
