"""Entry of the isolated processes, started by `autotune.execution` by name.

python -m autotune.trial template CONTROL PARENT       serve trials over the socket with that descriptor
python -m autotune.trial job REQUESTS EVENTS OUTPUT PARENT      run the job that stdin describes
python -m autotune.trial machine DEVICE                print what this machine offers, as JSON
python -m autotune.trial exported                      train through the export that stdin describes
"""

from __future__ import annotations

import gc
import json
import os
import socket
import sys

from autotune.interpreter import import_from_here_last
from autotune.trial import isolation


def main(arguments: list[str]) -> None:
    import_from_here_last()
    role, *numbers = arguments
    if role in ("machine", "exported"):
        if role == "machine":
            _describe_machine(*numbers)
        else:
            from autotune.trial import exported

            exported.main()
        gc.freeze()  # otherwise Python would unload PyTorch at its end, which takes a second
        return
    *descriptors, parent = (int(number) for number in numbers)
    isolation.die_with_parent(parent)
    # Asked through NVML, `torch.cuda.is_available` leaves the driver alone; otherwise no fork could use CUDA any more.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    if role == "template":
        from autotune.trial.template import serve

        serve(socket.socket(fileno=descriptors[0]))
        os._exit(0)  # unloading PyTorch in order would take a second of the budget
    else:
        from autotune.trial.job import Job, Pipes

        Job.from_json(sys.stdin.read()).run_and_exit(None, Pipes(*descriptors), parent=parent)


def _describe_machine(device_name: str) -> None:
    from autotune.errors import EnvironmentFailure
    from autotune.trial.device import resolve_device
    from autotune.trial.facts import device_facts, host_facts

    try:
        device = resolve_device(device_name)
    except (EnvironmentFailure, RuntimeError) as error:
        sys.exit(str(error))
    facts = {"device": device_facts(device).model_dump(mode="json"), "host": host_facts(device).model_dump(mode="json")}
    sys.stdout.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
