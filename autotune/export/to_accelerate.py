"""`accelerate`: a configuration for `accelerate launch`, and the `Accelerator(...)` call. As of accelerate 1.15.

The YAML refuses a top-level `gradient_accumulation_steps`; the call takes it.
"""

from __future__ import annotations

from typing import Any

from autotune.export.notes import comment, header
from autotune.export.python import docstring, keywords, loader_arguments
from autotune.export.target import Source, Target
from autotune.spec import dump_yaml


def _render(source: Source) -> dict[str, str]:
    return {"accelerate_config.yaml": _config(source), "accelerator.py": _call(source)}


def _config(source: Source) -> str:
    values: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "NO",
        "mixed_precision": _precision(source),
        "num_machines": 1,
        "num_processes": 1,
        "machine_rank": 0,
        "use_cpu": source.on_cpu,
    }
    if source.config.compile != "none":
        values["dynamo_config"] = {"dynamo_backend": "INDUCTOR", "dynamo_mode": source.config.compile}
    usage = "accelerate launch --config_file accelerate_config.yaml train.py; accumulation stands in accelerator.py"
    return comment([*header(source), usage]) + dump_yaml(values)


def _call(source: Source) -> str:
    config = source.config
    dynamo = config.compile != "none"
    arguments: dict[str, Any] = {
        "mixed_precision": _precision(source),
        "gradient_accumulation_steps": config.grad_accum_steps,
        "cpu": source.on_cpu,
    }
    imports = "from accelerate import Accelerator\n"
    compiling = ""
    if dynamo:
        imports += "from accelerate.utils import TorchDynamoPlugin\n"
        compiling = f"    dynamo_plugin=TorchDynamoPlugin(backend='inductor', mode={config.compile!r}),\n"
    text = docstring("The Accelerator, and the arguments of the DataLoader that it prepares.", source, TARGET)
    return f"""{text}
{imports}
DATALOADER = dict(
{keywords(loader_arguments(source))})
accelerator = Accelerator(
{keywords(arguments)}{compiling})
"""


def _precision(source: Source) -> str:
    return {"none": "no"}.get(source.config.amp_dtype, source.config.amp_dtype)


def _advice(_source: Source) -> list[str]:
    return ["accelerate makes no DataLoader: build yours with DATALOADER, then accelerator.prepare(…) it."]


TARGET = Target(
    name="accelerate",
    render=_render,
    expresses=frozenset(
        {
            "micro_batch_size",
            "grad_accum_steps",
            "amp_dtype",
            "compile",
            "num_workers",
            "pin_memory",
            "prefetch_factor",
        }
    ),
    advice=_advice,
)
