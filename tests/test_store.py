"""The study folder: files that appear whole or not at all, one owner, and errors that say what to do."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.facts import cpu_facts, cuda_facts
from support.hostile import changed
from support.results import result

from autotune.config import TrainConfig
from autotune.errors import EnvironmentFailure, StudyMismatch
from autotune.records import (
    Block,
    Failure,
    Memory,
    OptimizerSteps,
    Purpose,
    TrialRecord,
    TrialResult,
    TrialStatus,
    WarmUp,
)
from autotune.store import StudyFolder, find_study, write_atomically

DOCUMENT: dict[str, Any] = result()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[StudyFolder]:
    folder = StudyFolder(tmp_path / "studies" / "mine")
    folder.open()
    yield folder
    folder.close()


def ok_record(number: int) -> TrialRecord:
    return TrialRecord(
        number=number,
        purpose=Purpose.SEARCH,
        optuna_trial=number,
        elapsed_s=1.5,
        started="2026-01-31T12:00:00+00:00",
        environment=cuda_facts(),
        result=TrialResult(
            config=TrainConfig(num_workers=2, prefetch_factor=4, amp_dtype="fp16"),
            status=TrialStatus.OK,
            seed=7,
            blocks=(Block(steps=3, samples=96, seconds=0.123456789, phases={}),),
            warm_up=WarmUp(steps=2, seconds=0.3, first_step_s=0.2, settled=True),
            steps=OptimizerSteps(losses=[2.3, 0.1 + 0.2], samples=[32, 32], skipped=[True, False]),
            memory=Memory(allocated_bytes=1, reserved_bytes=2, resident_bytes=3 << 40, resident_growth_bytes=4),
            start_up_s=0.4,
            wall_s=2.0,
            unreadable_samples=("a/ü.jpg",),
            output_tail="\x1b[31mred\x1b[0m \ufffd\n",
        ),
    )


def diverged_record(number: int, losses: list[float]) -> TrialRecord:
    return TrialRecord(
        number=number,
        purpose=Purpose.CONFIRM,
        round=2,
        elapsed_s=1.0,
        started="2026-01-31T12:00:00+00:00",
        environment=cpu_facts(),
        result=TrialResult(
            config=TrainConfig(),
            status=TrialStatus.DIVERGED,
            seed=0,
            steps=OptimizerSteps(losses=losses, samples=[32] * len(losses), skipped=[False] * len(losses)),
            wall_s=1.0,
            failure=Failure(reason="the loss is nan at optimizer step 1", traceback="Traceback …"),
        ),
    )


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def fails(code: int) -> Any:
    def failing(*_arguments: Any, **_options: Any) -> Any:
        raise OSError(code, os.strerror(code))

    return failing


def test_writing_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_atomically(path, "a long first text\n" * 100)
    write_atomically(path, "short ✓\n")
    assert path.read_text(encoding="utf-8") == "short ✓\n"
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(("owner", "step"), [(os, "fsync"), (Path, "replace")])
def test_the_old_file_survives_a_write_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, step: str
) -> None:
    path = tmp_path / "file.txt"
    write_atomically(path, "old")
    monkeypatch.setattr(owner, step, fails(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert leftovers(tmp_path) == []


def test_a_write_interrupted_by_ctrl_c_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_descriptor: int) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "file.txt"
    write_atomically(path, "old")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert leftovers(tmp_path) == []


def test_the_text_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power cut could leave an empty file under the name of the old one."""
    path = tmp_path / "file.txt"
    synced: list[tuple[int, bool]] = []

    def record(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_size, path.exists()))

    monkeypatch.setattr(os, "fsync", record)
    write_atomically(path, "12345")
    assert synced == [(5, False)]


def test_opening_makes_the_folder_but_no_study(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "deep" / "er" / "mine")
    assert not folder.exists()
    folder.open()
    folder.close()
    assert folder.trials.is_dir()
    assert not folder.exists(), "a study begins with its database"
    folder.database.touch()
    assert folder.exists()


def test_a_second_controller_is_refused_until_the_first_is_done(folder: StudyFolder) -> None:
    second = StudyFolder(folder.path)
    with pytest.raises(StudyMismatch, match="another autotune is running this study; wait for it, or use --out"):
        second.open()
    folder.close()
    second.open()
    second.close()


def test_a_refused_controller_does_not_end_the_firsts_ownership(folder: StudyFolder) -> None:
    for _ in range(2):
        with pytest.raises(StudyMismatch):
            StudyFolder(folder.path).open()


def test_closing_twice_or_without_opening_is_fine(tmp_path: Path, folder: StudyFolder) -> None:
    folder.close()
    folder.close()
    StudyFolder(tmp_path).close()


def test_the_log_takes_lines_while_the_folder_is_open_and_goes_on_at_the_next_session(folder: StudyFolder) -> None:
    logger = logging.getLogger("autotune.test")
    logger.info("first session")
    folder.close()
    logger.info("between sessions")
    folder.open()
    logger.info("second session")
    logging.getLogger("optuna").warning("from optuna")
    folder.close()
    lines = folder.log.read_text(encoding="utf-8").splitlines()
    assert [line.split(": ", 1)[1] for line in lines] == ["first session", "second session", "from optuna"]
    assert "INFO autotune.test" in lines[0]


@pytest.mark.parametrize("record", [ok_record(0), diverged_record(1, [2.3])], ids=["ok", "diverged"])
def test_a_record_comes_back_as_it_was(folder: StudyFolder, record: TrialRecord) -> None:
    folder.write_trial(record)
    assert folder.read_trials() == [record]


def test_losses_that_are_no_numbers_come_back(folder: StudyFolder) -> None:
    folder.write_trial(diverged_record(0, [2.5, math.inf, -math.inf, math.nan]))
    steps = folder.read_trials()[0].result.steps
    assert steps is not None
    assert steps.losses[:3] == [2.5, math.inf, -math.inf]
    assert math.isnan(steps.losses[3])


def test_records_are_read_in_the_order_of_their_numbers(folder: StudyFolder) -> None:
    for number in (11, 0, 2):
        folder.write_trial(ok_record(number))
    assert [record.number for record in folder.read_trials()] == [0, 2, 11]
    assert sorted(path.name for path in folder.trials.iterdir()) == ["0000.json", "0002.json", "0011.json"]


def test_what_a_killed_write_left_behind_is_no_record(folder: StudyFolder) -> None:
    folder.write_trial(ok_record(0))
    (folder.trials / ".0001.json.4711").write_text('{"number": 1, "purp')
    assert [record.number for record in folder.read_trials()] == [0]


@pytest.mark.parametrize("damage", [b"", b'{"number": 1, "purp', b'{"number": 1}', b"\xff\xfe"])
def test_a_record_that_something_else_has_damaged_is_named_with_ways_out(folder: StudyFolder, damage: bytes) -> None:
    folder.write_trial(ok_record(0))
    (folder.trials / "0001.json").write_bytes(damage)
    with pytest.raises(EnvironmentFailure, match=r"cannot read .*0001\.json.*delete the file.*--fresh") as caught:
        folder.read_trials()
    assert len(str(caught.value).splitlines()) == 1


def test_no_records_yet(tmp_path: Path) -> None:
    assert StudyFolder(tmp_path / "nowhere").read_trials() == []


def test_the_best_document_comes_back(folder: StudyFolder) -> None:
    assert folder.read_best() is None
    folder.write_best(DOCUMENT)
    assert folder.read_best() == DOCUMENT
    assert list(yaml.safe_load(folder.best.read_text())) == list(DOCUMENT), "keys keep their order"


def test_the_resolved_spec_is_kept(folder: StudyFolder) -> None:
    folder.write_spec({"model": {"timm": "resnet18"}, "budget": "10m"})
    assert yaml.safe_load(folder.spec.read_text()) == {"model": {"timm": "resnet18"}, "budget": "10m"}


@pytest.mark.parametrize(
    "damage",
    [b"", b"[1, 2]", b"config: {amp_dtype: [", b"\xff\xfe", b"format: 1\nstudy: mine\n", b"a: b: c"],
)
def test_a_best_document_that_something_has_damaged_is_named_with_a_way_out(folder: StudyFolder, damage: bytes) -> None:
    folder.best.write_bytes(damage)
    with pytest.raises(EnvironmentFailure, match=r"best\.yaml is damaged: .+; delete it and run the same search"):
        folder.read_best()


@pytest.mark.parametrize("section", [name for name in DOCUMENT if name != "settings"])
def test_a_best_document_without_one_of_its_sections_is_damaged(folder: StudyFolder, section: str) -> None:
    folder.write_best({name: value for name, value in DOCUMENT.items() if name != section})
    with pytest.raises(EnvironmentFailure, match="is damaged"):
        folder.read_best()


def write_study(folder: StudyFolder) -> None:
    folder.database.touch()
    folder.write_trial(ok_record(0))
    folder.write_best(DOCUMENT)


def test_starting_over_keeps_the_study_aside_and_loses_nothing(folder: StudyFolder) -> None:
    write_study(folder)
    folder.start_over()
    assert folder.aside is not None
    assert folder.aside.parent == folder.path.parent
    assert folder.aside.name.startswith("mine.")
    assert StudyFolder(folder.aside).exists()
    assert StudyFolder(folder.aside).read_best() == DOCUMENT
    assert StudyFolder(folder.aside).read_trials() == [ok_record(0)]
    assert not folder.exists()
    assert (folder.read_best(), folder.read_trials()) == (None, [])


def test_who_starts_over_owns_and_logs_to_the_new_folder(folder: StudyFolder) -> None:
    write_study(folder)
    logging.getLogger("autotune.test").info("of the old study")
    folder.start_over()
    logging.getLogger("autotune.test").info("of the new study")
    with pytest.raises(StudyMismatch, match="another autotune is running"):
        StudyFolder(folder.path).open()
    assert folder.aside is not None
    assert [line.split(": ", 1)[1] for line in folder.log.read_text().splitlines()] == ["of the new study"]
    assert "of the old study" in StudyFolder(folder.aside).log.read_text()
    assert "of the new study" not in StudyFolder(folder.aside).log.read_text()


def test_starting_over_several_times_within_a_second_keeps_them_all(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "strftime", lambda *_arguments: "20260131-120000")
    kept = []
    for _ in range(3):
        write_study(folder)
        folder.start_over()
        kept.append(folder.aside)
    names = [f"mine.20260131-120000{suffix}" for suffix in ("", "-2", "-3")]
    assert kept == [folder.path.with_name(name) for name in names]
    assert all(StudyFolder(path).read_trials() == [ok_record(0)] for path in kept if path)


def test_without_an_earlier_study_starting_over_moves_nothing(folder: StudyFolder) -> None:
    folder.start_over()
    assert folder.aside is None
    assert [path.name for path in folder.path.parent.iterdir()] == ["mine"]


def make_study(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "study.db").touch()
    return path


def test_a_study_is_found_by_its_folder_or_its_name(tmp_path: Path) -> None:
    studies = tmp_path / "studies"
    inside, elsewhere = make_study(studies / "mine"), make_study(tmp_path / "elsewhere")
    assert find_study("mine", studies).path == inside
    assert find_study(str(elsewhere), studies).path == elsewhere
    assert find_study(str(inside), studies).path == inside


def test_a_study_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    studies = tmp_path / "studies"
    with pytest.raises(StudyMismatch, match=r"no study at mine; there are no studies under .*studies/ yet"):
        find_study("mine", studies)
    for name in ("zebra", "ant"):
        make_study(studies / name)
    (studies / "empty").mkdir()
    with pytest.raises(StudyMismatch, match=r"no study at mine; studies here: ant, zebra$"):
        find_study("mine", studies)


HINTS = [
    (errno.ENOSPC, "the disk is full; free some space and run the same command"),
    (errno.EDQUOT, "the disk quota is used up"),
    (errno.EACCES, "no permission to write there; choose another folder with --out"),
    (errno.EROFS, "the file system is read-only; choose another folder with --out"),
    (errno.EIO, os.strerror(errno.EIO)),
]


@pytest.mark.parametrize(("code", "hint"), HINTS)
def test_a_write_that_fails_says_which_file_and_what_to_do(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch, code: int, hint: str
) -> None:
    folder.write_best(DOCUMENT)
    folder.write_trial(ok_record(0))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails(code))
        with pytest.raises(EnvironmentFailure) as caught:
            folder.write_best({"format": 2})
        assert str(caught.value).startswith(f"cannot write {folder.best}: {hint}")
        with pytest.raises(EnvironmentFailure, match=r"cannot write .*trials"):
            folder.write_trial(ok_record(1))
        with pytest.raises(EnvironmentFailure, match=r"cannot write .*spec\.yaml"):
            folder.write_spec({})
    assert folder.read_best() == DOCUMENT
    assert folder.read_trials() == [ok_record(0)]
    assert leftovers(folder.path) == leftovers(folder.trials) == []


def test_a_disk_that_fills_up_inside_the_text_leaves_the_old_file(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write_best(DOCUMENT)
    opened = Path.open

    def with_little_room(path: Path, *arguments: Any, **options: Any) -> Any:
        file = opened(path, *arguments, **options)
        if path.name.startswith(".best"):
            monkeypatch.setattr(file, "flush", fails(errno.ENOSPC), raising=False)
        return file

    monkeypatch.setattr(Path, "open", with_little_room)
    with pytest.raises(EnvironmentFailure, match="the disk is full"):
        folder.write_best({"format": 2})
    assert folder.read_best() == DOCUMENT


@pytest.mark.parametrize(("code", "hint"), HINTS[2:4])
def test_a_folder_that_cannot_be_made_says_so_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, hint: str
) -> None:
    monkeypatch.setattr(Path, "mkdir", fails(code))
    with pytest.raises(EnvironmentFailure) as caught:
        StudyFolder(tmp_path / "mine").open()
    assert str(caught.value) == f"cannot write {tmp_path / 'mine'}: {hint}"


def test_a_file_in_the_way_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("no folder")
    with pytest.raises(StudyMismatch, match=r"mine is a file; choose a folder for the study with --out"):
        StudyFolder(tmp_path / "mine").open()
    assert (tmp_path / "mine").read_text() == "no folder"


def test_a_folder_with_other_peoples_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    for name in ("train.py", "log.txt"):
        (tmp_path / name).write_text("precious")
    with pytest.raises(StudyMismatch, match=r"is not a study: it holds train\.py; choose another folder with --out"):
        StudyFolder(tmp_path).open()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "train.py": "precious",
        "log.txt": "precious",
    }


def test_what_a_session_left_that_ended_before_its_study_began_is_no_hindrance(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "mine")
    for _ in range(2):
        folder.open()
        folder.write_spec({})
        folder.close()


def test_a_study_may_hold_other_files_too(folder: StudyFolder) -> None:
    folder.database.touch()
    (folder.path / "notes.md").write_text("mine")
    folder.close()
    folder.open()


def test_a_full_disk_neither_stops_closing_nor_keeps_the_folder_owned(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert folder._handler is not None
    monkeypatch.setattr(folder._handler, "flush", fails(errno.ENOSPC))
    folder.close()
    assert not [
        handler for handler in logging.getLogger("autotune").handlers if isinstance(handler, logging.FileHandler)
    ]
    second = StudyFolder(folder.path)
    second.open()
    second.close()


def test_a_log_line_that_finds_no_room_is_dropped_in_silence(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(folder._handler, logging.FileHandler)
    monkeypatch.setattr(folder._handler.stream, "write", fails(errno.ENOSPC), raising=False)
    logging.getLogger("autotune.test").info("no room for this")
    assert capsys.readouterr().err == ""


def test_a_log_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    (tmp_path / "log.txt").mkdir()
    with pytest.raises(EnvironmentFailure, match="cannot write"):
        StudyFolder(tmp_path).open()


def test_a_study_that_cannot_be_renamed_says_so(folder: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    write_study(folder)
    monkeypatch.setattr(Path, "rename", fails(errno.EACCES))
    with pytest.raises(EnvironmentFailure, match="no permission to write there"):
        folder.start_over()
    assert folder.aside is None
    assert folder.read_trials() == [ok_record(0)]


@pytest.mark.parametrize(
    ("where", "value", "problem"),
    [
        (("result", "config", "num_threads"), "1; touch P", "result.config num_threads must be a whole number"),
        (("result", "config", "micro_batch_size"), 0, "result.config micro_batch_size must be at least 1, not 0"),
        (("result", "steps", "samples"), [32], "result.steps must have as many losses as samples and skipped"),
        (("result", "status"), "fine", "result.status must be 'ok', "),
        (
            ("environment", "device", "kind"),
            "cuda.x()",
            "environment.device.kind must be 'cpu', 'cuda', 'mps' or 'xpu'",
        ),
    ],
)
def test_a_record_says_which_of_its_values_is_none(
    folder: StudyFolder, where: tuple[str, ...], value: Any, problem: str
) -> None:
    folder.write_trial(ok_record(0))
    path = folder.trials / "0000.json"
    path.write_text(json.dumps(changed(json.loads(path.read_text()), where, value, None)))
    with pytest.raises(EnvironmentFailure) as caught:
        folder.read_trials()
    assert problem in str(caught.value) and "delete the file" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_the_traceback_of_a_failure_is_a_file_to_read(folder: StudyFolder) -> None:
    record = diverged_record(7, [])
    printed = record.result.model_copy(update={"output_tail": "epoch 1\n"})
    folder.write_trial(record.model_copy(update={"result": printed}))
    assert folder.traceback(7) == folder.trials / "0007.txt"
    assert folder.traceback(7).read_text() == "Traceback …\n\nWhat it printed:\n\nepoch 1\n"
    assert [each.number for each in folder.read_trials()] == [7]
