"""Ctrl-C at moments at which something is half done."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from support.bench import Bench

from autotune.search import Interrupted, ledger
from autotune.search.interrupts import uninterrupted


@pytest.fixture(autouse=True)
def _heard() -> Iterator[None]:
    """A shell has its background jobs ignore Ctrl-C, and what they start, these tests among it, inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_what_is_begun_is_done_before_the_interruption() -> None:
    done = False
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        press_ctrl_c()
        done = True
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_inside_another_it_waits_for_the_outer_end() -> None:
    done = False
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        with uninterrupted():
            press_ctrl_c()
        done = True
    assert done


def test_a_second_ctrl_c_does_not_wait() -> None:
    done = False
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        press_ctrl_c()
        press_ctrl_c()
        done = True
    assert not done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_inside_is_the_context_of_the_interruption() -> None:
    with pytest.raises(KeyboardInterrupt) as caught, uninterrupted():
        press_ctrl_c()
        raise ValueError("of its own")
    assert isinstance(caught.value.__context__, ValueError)


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with uninterrupted():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_in_another_thread_handlers_are_left_alone() -> None:
    seen: list[Any] = []

    def look() -> None:
        with uninterrupted():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


@pytest.mark.parametrize("step", ["ask", "tell"])
def test_optuna_keeps_no_running_trial_and_nothing_is_lost(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Ctrl-C when the fifth trial has been asked for, and nobody knows of it yet; and before it is told."""
    calls, original = 0, getattr(ledger, step)

    def interrupted(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5 and step == "tell":
            press_ctrl_c()
        result = original(*arguments, **options)
        if calls == 5 and step == "ask":
            press_ctrl_c()
        return result

    monkeypatch.setattr(ledger, step, interrupted)
    with pytest.raises(Interrupted):
        bench.search(bench.backend())
    states = [trial.state.name for trial in bench.optuna_trials()]
    assert states == ["COMPLETE"] * 4 + ["FAIL" if step == "ask" else "COMPLETE"]
    trials = [record for record in bench.folder.read_trials() if record.optuna_trial is not None]
    assert len(trials) == states.count("COMPLETE")
    assert calls == 5, "what was begun was done, and not left to the end"
