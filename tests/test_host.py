"""Usable cores: the affinity mask, and the CPU quota of control groups as containers show them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autotune import host
from autotune.host import allowed_cpus, cpu_quota, usable_cores

V2_MOUNT = "29 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1_MOUNT = "33 32 0:28 {top} /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:15 - cgroup cgroup rw,cpu,cpuacct"


def tree(root: Path, *, own: str, mounts: str, files: dict[str, str]) -> Path:
    """A root folder with /proc/self and control groups in it."""
    for name, text in {"proc/self/cgroup": own, "proc/self/mountinfo": mounts, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def v1_files(folder: str, quota: int, period: int = 100_000) -> dict[str, str]:
    return {f"{folder}/cpu.cfs_quota_us": str(quota), f"{folder}/cpu.cfs_period_us": str(period)}


@pytest.mark.parametrize(
    ("text", "kills"), [("pgfault 3\noom_kill 12\noom_kill_other 7\n", 12), ("pgfault 3\n", None), (None, None)]
)
def test_what_the_kernel_killed_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, kills: int | None
) -> None:
    if text is not None:
        (tmp_path / "vmstat").write_text(text)
    monkeypatch.setattr(host, "_VMSTAT", tmp_path / "vmstat")
    assert host.oom_kills() == kills


def test_a_container_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/cpu.max": "250000 100000"}
    assert cpu_quota(tree(tmp_path, own="0::/", mounts=V2_MOUNT, files=files)) == 2.5


def test_no_limit_is_none(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/cpu.max": "max 100000"}
    assert cpu_quota(tree(tmp_path, own="0::/", mounts=V2_MOUNT, files=files)) is None


@pytest.mark.parametrize(
    ("outer", "inner", "granted"), [("max", "400000", 4), ("300000", "max", 3), ("2000", "4000", 0.02)]
)
def test_of_a_group_and_its_ancestors_the_tightest_counts(
    tmp_path: Path, outer: str, inner: str, granted: float
) -> None:
    files = {
        "sys/fs/cgroup/cgroup.procs": "1",  # the root itself has no limit file
        "sys/fs/cgroup/kubepods/cpu.max": f"{outer} 100000",
        "sys/fs/cgroup/kubepods/pod1/box/cpu.max": f"{inner} 100000",
    }
    assert cpu_quota(tree(tmp_path, own="0::/kubepods/pod1/box", mounts=V2_MOUNT, files=files)) == granted


def test_cgroup_v1(tmp_path: Path) -> None:
    own = "12:memory:/jobs\n4:cpu,cpuacct:/jobs/7\n3:cpuset:/\n1:name=systemd:/"
    files = v1_files("sys/fs/cgroup/cpu,cpuacct/jobs/7", -1) | v1_files(
        "sys/fs/cgroup/cpu,cpuacct/jobs", 75_000, 50_000
    )
    assert cpu_quota(tree(tmp_path, own=own, mounts=V1_MOUNT.format(top="/"), files=files)) == 1.5


def test_a_v1_container_shows_the_hosts_path_of_what_it_has_mounted(tmp_path: Path) -> None:
    """Without a namespace of its own, /proc names the whole path, and the mount begins at its end."""
    files = v1_files("sys/fs/cgroup/cpu,cpuacct", 200_000)
    mounts = V1_MOUNT.format(top="/docker/abc")
    assert cpu_quota(tree(tmp_path, own="4:cpu,cpuacct:/docker/abc", mounts=mounts, files=files)) == 2


def test_a_mount_of_another_part_of_the_hierarchy_still_gives_its_own_limit(tmp_path: Path) -> None:
    files = v1_files("sys/fs/cgroup/cpu,cpuacct", 200_000)
    mounts = V1_MOUNT.format(top="/docker/abc")
    assert cpu_quota(tree(tmp_path, own="4:cpu,cpuacct:/", mounts=mounts, files=files)) == 2


def test_where_both_versions_are_mounted_the_one_with_the_controller_counts(tmp_path: Path) -> None:
    """A hybrid: systemd keeps its groups in v2, the CPU controller is v1's."""
    mounts = f"{V1_MOUNT.format(top='/')}\n30 23 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"
    files = v1_files("sys/fs/cgroup/cpu,cpuacct/x", 300_000) | {"sys/fs/cgroup/unified/x/cgroup.procs": "1"}
    assert cpu_quota(tree(tmp_path, own="4:cpu,cpuacct:/x\n0::/x", mounts=mounts, files=files)) == 3


@pytest.mark.parametrize("mounts", ["", "not a line of mountinfo", "1 2 0:1 / - "])
def test_what_cannot_be_read_limits_nothing(tmp_path: Path, mounts: str) -> None:
    assert cpu_quota(tree(tmp_path, own="0::/", mounts=mounts, files={})) is None
    assert cpu_quota(tmp_path / "no /proc at all") is None


@pytest.mark.parametrize(
    ("allowed", "quota", "cores"),
    [
        (8, None, 8),
        (8, "max", 8),
        (8, "400000", 4),
        (2, "400000", 2),
        (8, "150000", 2),
        (8, "205000", 2),
        (8, "9000", 1),
    ],
)
def test_usable_cores_are_the_fewer_of_mask_and_quota_a_part_counting_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: int, quota: str | None, cores: int
) -> None:
    files = {} if quota is None else {"sys/fs/cgroup/cpu.max": f"{quota} 100000"}
    monkeypatch.setattr(host, "_ROOT", tree(tmp_path, own="0::/", mounts=V2_MOUNT, files=files))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(allowed)))
    assert usable_cores() == cores
    assert len(allowed_cpus()) == allowed


def test_here_there_is_at_least_one() -> None:
    assert 1 <= usable_cores() <= len(allowed_cpus())
