"""`accelerate`: the configuration of `accelerate launch`, and the `Accelerator(…)` call. Written for accelerate 1.15.

Two files, because the YAML refuses a top-level `gradient_accumulation_steps`; the call takes it.
"""

from __future__ import annotations

from typing import Any

from autotune.export.quoting import comment, docstring, literal
from autotune.export.target import Source, Target
from autotune.export.text import LOADER_KNOBS, Expression, arguments, introduction, loader_arguments, mapping
from autotune.spec import dump_yaml

_CONFIG, _CALL = "accelerate_config.yaml", "accelerator.py"
_LAUNCH = f"Usage: accelerate launch --config_file {_CONFIG} your_script.py"
_BOTH = f"Gradient accumulation and the DataLoader are in {_CALL}, because this file cannot hold them."
_STEP = (
    "Usage: accelerator = make_accelerator(); model, optimizer, loader = accelerator.prepare(model, optimizer, "
    "DataLoader(dataset, **DATALOADER)); then `with accelerator.accumulate(model):` around each micro-batch."
)


def _render(source: Source) -> dict[str, str]:
    return {_CONFIG: _config(source), _CALL: _call(source)}


def _config(source: Source) -> str:
    values: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "NO",
        "machine_rank": 0,
        "mixed_precision": _precision(source),
        "num_machines": 1,
        "num_processes": 1,
        "use_cpu": source.on_cpu,
    }
    if source.config.compile != "none":
        values["dynamo_config"] = {"dynamo_backend": "INDUCTOR", "dynamo_mode": source.config.compile}
    return comment(introduction(source, TARGET, _LAUNCH, _BOTH)) + dump_yaml(values)


def _call(source: Source) -> str:
    config = source.config
    given: dict[str, Any] = {
        "mixed_precision": _precision(source),
        "gradient_accumulation_steps": config.grad_accum_steps,
    }
    helpers = []
    if source.on_cpu:
        given["cpu"] = True
    if config.pin_memory:
        helpers.append("DataLoaderConfiguration")
        given["dataloader_config"] = Expression("DataLoaderConfiguration(non_blocking=True)")
    if config.compile != "none":
        helpers.append("TorchDynamoPlugin")
        plugin = f'TorchDynamoPlugin(backend="inductor", mode={literal(config.compile)})'
        given["dynamo_plugin"] = Expression(plugin)
    imports = "from accelerate import Accelerator\n"
    if helpers:
        imports += f"from accelerate.utils import {', '.join(helpers)}\n"
    inner = "".join(f"        {each},\n" for each in arguments(given))
    return f"""{docstring("The Accelerator and the DataLoader of a study.", introduction(source, TARGET, _STEP))}
{imports}
{mapping("DATALOADER", loader_arguments(source))}

def make_accelerator() -> Accelerator:
    return Accelerator(
{inner}    )
"""


def _precision(source: Source) -> str:
    return "no" if source.config.amp_dtype == "none" else source.config.amp_dtype


def _exceptions(source: Source) -> dict[str, str]:
    if source.config.amp_dtype == "fp16" and source.on_cpu:
        return {"amp_dtype": "accelerate ignores amp_dtype fp16 on the CPU: search again with amp_dtype bf16 or none."}
    return {}


def _remarks(source: Source) -> list[str]:
    given = ", ".join(arguments(loader_arguments(source)))
    found = [f"accelerate makes no DataLoader and sets no num_workers: give yours {given}."]
    clip = source.spec.training.clip_grad_norm if source.spec else None
    if clip is not None:
        norm = f"accelerator.clip_grad_norm_(model.parameters(), {clip:g})"
        found.append(f"accelerate does not clip by itself: {norm} where accelerator.sync_gradients.")
    return found


TARGET = Target(
    name="accelerate",
    gives="accelerate's configuration",
    render=_render,
    expresses=LOADER_KNOBS | {"grad_accum_steps", "amp_dtype", "compile"},
    exceptions=_exceptions,
    remarks=_remarks,
)
