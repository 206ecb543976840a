"""Which devices and which CPU cores each of several slots has."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.errors import EnvironmentFailure, SpecError
from autotune.execution import place
from autotune.execution.place import ANYWHERE, places, shares_of, usable_cpus


def spec(**execution: Any) -> dict[str, Any]:
    return {"execution": execution}


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "usable_cpus", lambda: list(range(8)))
    for variable in ("CUDA_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"):
        monkeypatch.delenv(variable, raising=False)


def test_without_devices_there_is_one_slot_with_all_there_is() -> None:
    assert places({}) == places(spec(backend="local", ranks_per_trial=4)) == [ANYWHERE]


def test_each_device_has_its_share_of_the_cores() -> None:
    slots = places(spec(devices=[0, 1, 3]))
    assert [slot.devices for slot in slots] == [(0,), (1,), (3,)]
    assert [slot.cores for slot in slots] == [(0, 1), (2, 3), (4, 5)]
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["0", "1", "3"]


def test_a_slot_has_a_device_for_each_rank() -> None:
    slots = places(spec(devices=[0, 1, 2, 3], ranks_per_trial=2))
    assert [slot.devices for slot in slots] == [(0, 1), (2, 3)]
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["0,1", "2,3"]


def test_devices_are_counted_among_those_that_are_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, GPU-1234,6")
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in places(spec(devices=[1, 2]))] == ["GPU-1234", "6"]
    with pytest.raises(SpecError, match=r"execution\.devices: there is no device 3.*4, GPU-1234,6"):
        places(spec(devices=[3]))


def test_fewer_cores_than_slots_are_said_so() -> None:
    with pytest.raises(EnvironmentFailure, match=r"9 trials at once.*there are 8"):
        places(spec(devices=list(range(9))))


@given(st.lists(st.integers(0, 200), min_size=1, max_size=64, unique=True), st.integers(1, 64))
def test_shares_are_equal_and_apart(cores: list[int], slots: int) -> None:
    if len(cores) < slots:
        return
    shares = shares_of(cores, slots)
    assert {len(share) for share in shares} == {len(cores) // slots}
    together = [core for share in shares for core in share]
    assert len(together) == len(set(together))
    assert set(together) <= set(cores)


def test_the_cores_are_those_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "usable_cores", lambda: len(os.sched_getaffinity(0)))
    assert sorted(usable_cpus()) == sorted(os.sched_getaffinity(0))


def test_slots_share_what_a_containers_quota_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "allowed_cpus", lambda: list(range(64)))
    monkeypatch.setattr(place, "usable_cores", lambda: 8)
    monkeypatch.setattr(place, "_position", lambda cpu: (0, cpu))
    assert usable_cpus() == list(range(8))
