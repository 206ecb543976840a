"""What an exception inside a trial says about its configuration."""

from __future__ import annotations

import errno
import runpy
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from autotune.config import TrainConfig
from autotune.records import TrialStatus
from autotune.training import TrainStep, build_dataloader
from autotune.trial.failure import Diverged, classify, describe, poisons
from autotune.trial.observed_loader import ObservedLoader

OUT_OF_MEMORY: list[BaseException] = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    MemoryError(),
    MemoryError("Caught MemoryError in DataLoader worker process 0.\nOriginal Traceback (most recent call last): …"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError(
        "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a non-contiguous input"
    ),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory: you tried to allocate"
    ),
    RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"),
    RuntimeError("DataLoader worker (pid 4711) is killed by signal: Killed. "),
    RuntimeError(
        "DataLoader worker (pid 4711) is killed by signal: Bus error. It is possible that dataloader's workers are out "
        "of shared memory. Please try to raise your shared memory limit."
    ),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    BlockingIOError(errno.ENOMEM, "Cannot allocate memory"),
]
OF_ITS_OWN: list[BaseException] = [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (32x10 and 20x5)"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("DataLoader worker (pid 4711) is killed by signal: Segmentation fault. "),
    RuntimeError("DataLoader worker (pid(s) 4711) exited unexpectedly"),
    ValueError("out of memory slots in my own cache"),
    KeyError("label"),
    FileNotFoundError(errno.ENOENT, "No such file or directory", "a.jpg"),
    SystemExit(3),
]


def shown(error: BaseException) -> str:
    return f"{type(error).__name__}-{str(error)[:40]}"


def raised(
    error: Exception, *, cause: BaseException | None = None, context: BaseException | None = None
) -> BaseException:
    """`error` as it arrives after `raise error from cause`, or after it was raised while `context` was handled."""
    with pytest.raises(type(error)) as caught:
        if context is None:
            raise error from cause
        try:
            raise context
        finally:
            raise error
    return caught.value


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=shown)
def test_out_of_memory_in_all_its_words(error: BaseException) -> None:
    assert classify(error) is TrialStatus.OOM


@pytest.mark.parametrize("error", OF_ITS_OWN, ids=shown)
def test_other_errors_are_failures_of_the_workload(error: BaseException) -> None:
    assert classify(error) is TrialStatus.FAILED


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=shown)
def test_memory_that_ran_out_further_down_is_still_the_reason(error: BaseException) -> None:
    """As Lightning, Hydra and users' own code wrap what they catch."""
    assert classify(raised(ValueError("the step failed"), cause=error)) is TrialStatus.OOM
    assert classify(raised(ValueError("the step failed"), context=error)) is TrialStatus.OOM
    deep = raised(ValueError("outer"), cause=raised(KeyError("middle"), context=error))
    assert classify(deep) is TrialStatus.OOM


@pytest.mark.parametrize(("how", "number"), [("Killed", signal.SIGKILL), ("Bus error", None)])
def test_a_loader_process_that_somebody_killed_is_told_by_its_signal(how: str, number: int | None) -> None:
    inner = RuntimeError(f"DataLoader worker (pid 4711) is killed by signal: {how}. ")
    assert describe(raised(ValueError("no batch"), context=inner)).signal == number


def test_a_chain_without_memory_in_it_is_a_failure() -> None:
    assert classify(raised(ValueError("outer"), cause=KeyError("inner"))) is TrialStatus.FAILED


def test_a_chain_that_bites_its_tail_ends() -> None:
    first, second = ValueError("first"), KeyError("second")
    first.__context__, second.__context__ = second, first
    assert classify(first) is TrialStatus.FAILED


def test_divergence_is_its_own_status() -> None:
    assert classify(Diverged("the loss is nan at optimizer step 3")) is TrialStatus.DIVERGED


def test_a_divergence_reads_without_its_class() -> None:
    assert describe(Diverged("the loss is nan at optimizer step 3")).reason == "the loss is nan at optimizer step 3"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("the 7th layer is missing"), "ValueError: the 7th layer is missing"),
        (ValueError(), "ValueError: (no message)"),
        (ValueError("  \n \n"), "ValueError: (no message)"),
        (KeyError("label"), "KeyError: 'label'"),
        (SystemExit(3), "SystemExit: 3"),
        (
            RuntimeError("Caught ValueError in worker 0.\nTraceback:\nValueError: broken\n\n"),
            "RuntimeError: ValueError: broken",
        ),
        (ValueError("Caught ValueError in worker 0.\nTraceback:\nValueError: broken\n"), "ValueError: broken"),
        (OSError("Caught OSError in worker 0.\nTraceback:\nh5py.OSError: broken\n"), "h5py.OSError: broken"),
        (
            RuntimeError("\nCUDA error: launch failed\nSet CUDA_LAUNCH_BLOCKING=1"),
            "RuntimeError: CUDA error: launch failed",
        ),
        (ValueError("\x1b[1;31mred\x1b[0m and \x1b]8;;http://x\x07linked\x1b]8;;\x1b\\"), "ValueError: red and linked"),
        (ValueError("a bell\x07, a return\r\x08, a C1 \x9b2J"), "ValueError: a bell, a return, a C1 2J"),
        (ValueError("\x1b[2J\n\x00\nwhat it says"), "ValueError: what it says"),
        (Diverged("the loss is \x1b[5mnan"), "the loss is nan"),
    ],
)
def test_the_reason_is_the_first_line_that_says_anything_of_a_loader_process_the_last(
    error: BaseException, reason: str
) -> None:
    assert describe(error).reason == reason


def test_the_reason_is_one_line_of_bounded_length() -> None:
    reason = describe(ValueError("first\x0b" + "x" * 10_000 + "\r\nsecond")).reason
    assert len(reason) == 500
    assert len(reason.splitlines()) == 1
    assert describe(ValueError("first\r\nsecond")).reason == "ValueError: first"


def test_the_traceback_is_whole_with_its_causes() -> None:
    error = raised(ValueError("outer"), cause=raised(KeyError("inner")))
    traceback = describe(error).traceback
    assert "KeyError: 'inner'" in traceback
    assert "The above exception was the direct cause" in traceback
    assert traceback.rstrip().endswith("ValueError: outer")
    assert "test_failure.py" in traceback


def test_of_an_endless_traceback_the_end_is_kept() -> None:
    failure = describe(ValueError("x" * 50_000 + "the end"))
    assert len(failure.traceback) == 20_000
    assert failure.traceback.rstrip().endswith("the end")


@pytest.mark.parametrize(
    ("error", "stays"),
    [
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (32x10 and 20x5)"), False),
        (ValueError("CUDA error: as somebody quotes it"), False),
    ],
)
def test_errors_that_stay_with_the_device(error: BaseException, stays: bool) -> None:
    assert poisons(error) is stays


@pytest.mark.skipif(not hasattr(torch, "AcceleratorError"), reason="PyTorch before 2.8")
def test_an_accelerators_error_stays_with_it() -> None:
    wrapped = ValueError("while training")
    wrapped.__cause__ = torch.AcceleratorError("misaligned address")
    assert poisons(wrapped)


class Unspeakable(RuntimeError):
    """Asked for its message, it raises what it was given."""

    def __str__(self) -> str:
        raise self.args[0]


class Wordless(RuntimeError):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]


class Unequal(RuntimeError):
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise ValueError("nothing is equal to me")


@pytest.mark.parametrize("inner", [ValueError("no"), KeyboardInterrupt(), SystemExit(0)], ids=repr)
@pytest.mark.parametrize("wrap", [False, True])
def test_an_exception_that_cannot_say_what_it_means_keeps_its_name(inner: BaseException, wrap: bool) -> None:
    error: BaseException = Unspeakable(inner)
    name = "Unspeakable"
    if wrap:
        error, name = raised(ValueError("the step failed"), cause=error), "ValueError"
    assert classify(error) is TrialStatus.FAILED
    assert not poisons(error)
    failure = describe(error)
    assert failure.reason.startswith(f"{name}: ")
    assert wrap or failure.reason == (
        f"Unspeakable: (its message cannot be read: __str__ raised {type(inner).__name__})"
    )


@pytest.mark.parametrize("error", [Wordless("x"), Unequal("x")], ids=["no text", "no equality"])
def test_exceptions_with_odd_methods_are_failures_like_others(error: BaseException) -> None:
    for each in (error, raised(ValueError("outer"), cause=error)):
        assert classify(each) is TrialStatus.FAILED
        assert not poisons(each)
        assert describe(each).reason


def test_half_a_character_fits_into_the_record() -> None:
    failure = describe(ValueError("a name \udcff of a file"))
    assert failure.reason == "ValueError: a name ? of a file"
    failure.model_dump_json()


USERS = """
import torch

def loss(model, batch):
    return model(batch["inputs"]) + batch["labels"]

def pad(samples):
    return torch.stack([sample["nothing"] for sample in samples])
"""


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    path = tmp_path / "proj.py"
    path.write_text(USERS)
    monkeypatch.chdir(tmp_path)
    return runpy.run_path(str(path))


def test_a_loss_that_fails_is_told_by_its_line_and_its_section(users: dict[str, Any]) -> None:
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step = TrainStep(model, optimizer, users["loss"], TrainConfig(), device=torch.device("cpu"))
    with pytest.raises(KeyError) as caught:
        step({"inputs": torch.zeros(4, 1)})
    failure = describe(caught.value)
    assert failure.reason == "KeyError: 'labels' (proj.py:5, in loss)"
    assert failure.section == "training.loss"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_that_cannot_be_made_is_told_in_whatever_process_it_was(users: dict[str, Any], workers: int) -> None:
    config = TrainConfig(micro_batch_size=2, num_workers=workers)
    loader = build_dataloader([{"a": 1}] * 4, config, device=torch.device("cpu"), collate_fn=users["pad"])  # type: ignore[arg-type]
    with pytest.raises(KeyError) as caught:
        next(ObservedLoader(config).batches(loader))
    failure = describe(caught.value)
    assert "(proj.py:8" in failure.reason
    assert failure.section == "data"


def test_the_place_stands_behind_a_long_reason_too(users: dict[str, Any]) -> None:
    def fail() -> None:
        users["pad"]([{}])

    with pytest.raises(KeyError) as caught:
        fail()
    caught.value.args = ("x" * 2000,)
    reason = describe(caught.value).reason
    assert len(reason) <= 500
    assert reason.endswith(")")


def test_what_comes_of_no_code_of_the_users_has_no_place() -> None:
    failure = describe(ValueError("broken"))
    assert (failure.reason, failure.section) == ("ValueError: broken", None)
