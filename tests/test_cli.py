"""The command line: what goes where, and which code it ends with."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest
import yaml
from optuna_dashboard import get_note
from support.facts import cpu_facts
from support.results import result
from support.simulation import Clock, FormulaBackend

import autotune
from autotune import ablation, cli, execution, search
from autotune.bench import sweep
from autotune.cli.shared import BEGAN_S, print_json
from autotune.errors import EnvironmentFailure, NoStableConfiguration
from autotune.records import Ablation, Facts, SearchResult, TrialStatus, Verification
from autotune.search import Interrupted
from autotune.search.build_space import build_space
from autotune.search.space import Space
from autotune.search.storage import stored_study
from autotune.spec import LoadedSpec, json_schema, load_spec
from autotune.store import AblationFolder, StudyFolder
from autotune.tables import read_table

SPEC = {
    "model": {"timm": "resnet18"},
    "data": {"synthetic": {"image_size": 64}},
    "training": {"effective_batch_size": 32},
    "budget": "1m",
    "search": {
        "micro_batch_size": 32,
        "amp_dtype": ["none", "bf16"],
        "num_workers": 0,
        "memory_format": ["contiguous", "channels_last"],
        "compile": "none",
        "fused_optimizer": False,
        "num_threads": 4,
    },
    "stability": {"soak_steps": 5},
    "strategy": {"name": "random"},
}
BROKEN = """\
model: {timm: resnet18}
data: {synthetic: {image_sise: 64}}
budget: 10
strategy: {name: tpi}
"""


class Ended(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`autotune` with those arguments, in this process and in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(signal, "signal", lambda *_arguments: None)
    monkeypatch.setattr(os, "_exit", sys.exit)

    def run(*arguments: str) -> Ended:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["autotune", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = capsys.readouterr()
        return Ended(caught.value.code if isinstance(caught.value.code, int) else -1, out, err)

    return run


@pytest.fixture
def spec(tmp_path: Path) -> str:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(SPEC))
    return "mine.yaml"


@pytest.fixture
def backend() -> FormulaBackend:
    return FormulaBackend(Clock(), cpu_facts(), noise=0.002, busy=0.0)


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch, backend: FormulaBackend) -> None:
    """No search starts a process that loads PyTorch."""
    monkeypatch.setattr(execution, "start_all", lambda _spec, _folder: backend)


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch, backend: FormulaBackend) -> FormulaBackend:
    """`autotune search` runs whole studies on a simulated machine."""
    real = search.search

    def on_its_clock(loaded: LoadedSpec, folder: StudyFolder, *, began_s: float, **options: Any) -> SearchResult:
        assert began_s == BEGAN_S
        return real(loaded, folder, clock=backend._clock, **options)

    real_ablate = ablation.ablate

    def ablated_on_it(loaded: LoadedSpec, folder: AblationFolder, *, began_s: float, **options: Any) -> Ablation:
        return real_ablate(loaded, folder, start_backend=backend, clock=backend._clock, **options)

    monkeypatch.setattr(ablation, "ablate", ablated_on_it)
    real_verify = search.verify

    def verified_on_it(folder: StudyFolder, *, began_s: float, **options: Any) -> Verification:
        assert began_s == BEGAN_S
        return real_verify(folder, start_backend=backend, clock=backend._clock, **options)

    monkeypatch.setattr(search, "search", on_its_clock)
    monkeypatch.setattr(search, "verify", verified_on_it)
    return backend


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("searched") / "mine"


@pytest.fixture
def searched(run: Run, spec: str, simulated: FormulaBackend, once: Path) -> Callable[[], None]:
    """Leaves behind what `autotune search mine.yaml` does, which the first test that asks for it runs."""

    def search_or_copy() -> None:
        if once.exists():
            shutil.copytree(once, "studies/mine")
        else:
            run("search", spec)
            shutil.copytree("studies/mine", once)

    return search_or_copy


def study(tmp_path: Path, name: str = "mine", best: dict[str, Any] | None = None) -> Path:
    folder = tmp_path / "studies" / name
    folder.mkdir(parents=True)
    (folder / "study.db").touch()
    if best is not None:
        (folder / "best.yaml").write_text(yaml.safe_dump(best))
    return folder


def isolated(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python of its own; for the command, `python -m autotune`."""
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_help_imports_nothing_that_takes_its_time() -> None:
    script = """
import os, runpy, sys
os._exit = sys.exit
sys.argv = ["autotune", "--help"]
try:
    runpy.run_module("autotune", run_name="__main__")
except SystemExit as end:
    print(end.code, *sys.modules, file=sys.stderr)
"""
    done = isolated("-c", script)
    code, *modules = done.stderr.split()
    assert code == "0"
    assert "Usage:" in done.stdout
    heavy = {"torch", "torchvision", "timm", "optuna", "pydantic", "scipy", "numpy", "rich", "yaml", "sqlalchemy"}
    assert not heavy & {name.partition(".")[0] for name in modules}


def test_pytorch_is_loaded_before_the_search_is_imported(spec: str, tmp_path: Path) -> None:
    """They take seconds, and are two processes."""
    script = f"""
import os, sys
from autotune import cli, execution
def start(spec, folder):
    print(*sys.modules, file=sys.stderr)
    os._exit(0)
execution.start_all = start
cli.cli.main(["search", {str(tmp_path / spec)!r}])
"""
    modules = isolated("-c", script).stderr.split()
    assert "autotune.execution.local" in modules
    assert not {"optuna", "scipy", "sqlalchemy", "rich"} & set(modules)


def test_a_study_that_is_running_starts_nothing(run: Run, spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "start_all", lambda _spec, _folder: pytest.fail("it started"))
    running = StudyFolder(Path("studies/mine"))
    running.open()
    try:
        ended = run("search", spec, "--quiet")
    finally:
        running.close()
    assert ended.code == 2
    assert "another autotune is running this study" in ended.err


def test_help_names_every_command(run: Run) -> None:
    ended = run("--help")
    assert ended.code == 0
    for command in ("search", "init", "validate", "schema", "doctor", "show", "export", "verify", "sweep", "replay"):
        assert f"\n  {command} " in ended.out


@pytest.mark.parametrize("command", sorted(cli.cli.commands))
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_command_explains_itself(run: Run, command: str, flag: str) -> None:
    ended = run(command, flag)
    assert ended.code == 0
    assert ended.out.startswith("Usage:")


def test_the_version(run: Run) -> None:
    assert run("--version") == Ended(0, f"autotune, version {autotune.__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["serach"],
        ["search"],
        ["search", "a.yaml", "b.yaml"],
        ["search", "--budgett", "1m", "a.yaml"],
        ["show"],
        ["--jsn"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_is_2_and_says_so_on_stderr(run: Run, arguments: list[str]) -> None:
    ended = run(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert "Error: " in ended.err


def test_schema_is_json_that_accepts_a_spec(run: Run) -> None:
    ended = run("schema")
    assert (ended.code, ended.err) == (0, "")
    schema = json.loads(ended.out)
    assert schema == json_schema()
    jsonschema.validate(SPEC, schema)


def test_init_writes_a_spec_that_loads_under_the_files_name(run: Run, tmp_path: Path) -> None:
    assert run("init", "my model.yaml") == Ended(0, "my model.yaml\n", "")
    assert load_spec(tmp_path / "my model.yaml").spec.name == "my-model"


def test_init_has_a_name_of_its_own(run: Run, tmp_path: Path) -> None:
    assert run("init").out == "autotune.yaml\n"
    load_spec(tmp_path / "autotune.yaml")


def test_init_overwrites_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("precious")
    ended = run("init", "mine.yaml")
    assert ended == Ended(2, "", "error: mine.yaml exists already; give another file name\n")
    assert (tmp_path / "mine.yaml").read_text() == "precious"


def test_init_follows_no_link(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").symlink_to(tmp_path / "elsewhere")
    assert run("init", "mine.yaml").code == 2
    assert not (tmp_path / "elsewhere").exists()


def test_init_into_a_folder_that_is_not_there(run: Run) -> None:
    ended = run("init", "nowhere/mine.yaml")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "error: cannot write nowhere/mine.yaml: No such file or directory\n"


@pytest.mark.parametrize("command", ["search", "validate"])
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_every_problem_of_a_spec_is_a_line_on_stderr(run: Run, tmp_path: Path, command: str, more: list[str]) -> None:
    (tmp_path / "broken.yaml").write_text(BROKEN)
    ended = run(command, "broken.yaml", "--set", "nonsense", *more)
    assert (ended.code, ended.out) == (2, "")
    lines = ended.err.splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "broken.yaml:2:20",
        "broken.yaml:3:9",
        "broken.yaml:4:18",
        "--set nonsense",
    ]
    assert all(line.startswith("error: ") for line in lines)
    assert "did you mean" in lines[0]
    assert not (tmp_path / "studies").exists()


@pytest.mark.parametrize("command", ["search", "validate"])
def test_a_spec_that_is_not_there(run: Run, command: str) -> None:
    ended = run(command, "nowhere.yaml")
    assert (ended.code, ended.out) == (2, "")
    assert "nowhere.yaml: no such file; `autotune init nowhere.yaml`" in ended.err


def test_search_prints_the_path_of_its_result_and_the_rest_on_stderr(
    run: Run, spec: str, tmp_path: Path, simulated: FormulaBackend
) -> None:
    ended = run("search", spec)
    assert (ended.code, ended.out) == (0, "studies/mine/best.yaml\n")
    assert yaml.safe_load((tmp_path / "studies/mine/best.yaml").read_text())["study"] == "mine"
    assert "searching  trial 0: " in ended.err
    assert "Stable: no instability seen" in ended.err
    assert 'autotune.load("studies/mine")' in ended.err
    assert simulated.closed


def test_search_as_json_is_one_document(run: Run, spec: str, tmp_path: Path, simulated: FormulaBackend) -> None:
    ended = run("search", spec, "--json", "--out", "elsewhere")
    assert (ended.code, ended.err) == (0, "")
    document = json.loads(ended.out)
    assert document["folder"] == "elsewhere"
    assert document["best"] == yaml.safe_load((tmp_path / "elsewhere/best.yaml").read_text())
    SearchResult.model_validate_json(ended.out)


def test_quiet_shows_the_result_only(run: Run, spec: str, simulated: FormulaBackend) -> None:
    ended = run("search", spec, "--quiet")
    assert ended.out == "studies/mine/best.yaml\n"
    assert "searching" not in ended.err
    assert "Stable: no instability seen" in ended.err


def test_a_finished_study_is_shown_again_and_fresh_keeps_it(
    run: Run, spec: str, tmp_path: Path, simulated: FormulaBackend
) -> None:
    first = run("search", spec)
    trials = len(simulated.requests)
    again = run("search", spec)
    assert again.code == 0
    assert again.out == first.out
    assert "finished already; give a larger --budget to continue it, or --fresh to start over" in again.err
    assert len(simulated.requests) == trials
    fresh = run("search", spec, "--fresh")
    assert "the earlier study is now in studies/mine." in fresh.err
    assert len(simulated.requests) > trials
    assert len([path for path in (tmp_path / "studies").iterdir() if (path / "best.yaml").exists()]) == 2


def test_options_of_search_reach_the_spec(run: Run, spec: str, simulated: FormulaBackend) -> None:
    ended = run(
        "search",
        spec,
        "--json",
        "--budget",
        "2m",
        "--set",
        "name=other",
        "--set",
        "search.amp_dtype=bf16",
        "--device=cpu",
    )
    document = json.loads(ended.out)
    assert document["best"]["study"] == "other"
    assert document["folder"] == "studies/other"
    assert document["best"]["search"]["budget_s"] == 120
    assert {request.config.amp_dtype for request in simulated.requests[1:]} == {"bf16", "none"}


def test_another_spec_in_the_same_folder_is_refused(run: Run, spec: str, searched: Callable[[], None]) -> None:
    searched()
    ended = run("search", spec, "--set", "model.timm=resnet34")
    assert (ended.code, ended.out) == (2, "")
    assert "resnet34" in ended.err
    assert "--fresh" in ended.err


def test_a_search_that_is_interrupted_ends_with_130_and_the_best_so_far(
    run: Run, spec: str, simulated: FormulaBackend
) -> None:
    simulated.interrupt_at = 3
    ended = run("search", spec)
    assert (ended.code, ended.out) == (130, "studies/mine/best.yaml\n")
    assert "Not confirmed" in ended.err
    assert "Run the same command to continue." in ended.err
    assert "Stable" not in ended.err


def test_an_interrupted_search_as_json(run: Run, spec: str, simulated: FormulaBackend) -> None:
    simulated.interrupt_at = 3
    ended = run("search", spec, "--json")
    assert ended.code == 130
    assert json.loads(ended.out)["best"]["stability"]["verdict"] == "unconfirmed"


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_an_interrupt_before_anything_was_measured(
    run: Run, spec: str, simulated: FormulaBackend, more: list[str]
) -> None:
    simulated.interrupt_at = 1
    ended = run("search", spec, *more)
    assert (ended.code, ended.out) == (130, "")
    assert "interrupted before" in ended.err


def test_a_baseline_that_fails_is_3_with_its_reason(run: Run, spec: str, simulated: FormulaBackend) -> None:
    simulated._behaviour = lambda _config: TrialStatus.OOM
    ended = run("search", spec, "--json")
    assert (ended.code, ended.out) == (3, "")
    assert "error: your training code fails with the baseline settings (oom): simulated oom" in ended.err
    assert "trials/0005.json" in ended.err, "after 32, 16, 8, 4 and 2 samples, one does not fit either"


@pytest.mark.parametrize(
    ("error", "code"), [(EnvironmentFailure("the device is gone"), 4), (NoStableConfiguration("no time"), 3)]
)
def test_each_error_has_its_code_and_one_line(
    run: Run, spec: str, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    def failing(*_arguments: Any, **_options: Any) -> SearchResult:
        raise error

    monkeypatch.setattr(search, "search", failing)
    ended = run("search", spec, "--quiet")
    assert ended == Ended(code, "", f"error: {error}\n")


def test_ctrl_c_anywhere_else_is_130(run: Run, spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_arguments: Any, **_options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(search, "look_around", interrupted)
    assert run("validate", spec).code == 130


def test_an_interrupt_without_a_result_writes_no_path(run: Run, spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_arguments: Any, **_options: Any) -> SearchResult:
        raise Interrupted(None)

    monkeypatch.setattr(search, "search", interrupted)
    ended = run("search", spec)
    assert (ended.code, ended.out) == (130, "")


def test_a_bug_is_not_swallowed(spec: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def buggy(*_arguments: Any, **_options: Any) -> SearchResult:
        raise ZeroDivisionError("a bug in autotune")

    monkeypatch.setattr(search, "search", buggy)
    monkeypatch.setattr(sys, "argv", ["autotune", "search", spec])
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_terminate_and_hang_up_end_like_ctrl_c(run: Run, monkeypatch: pytest.MonkeyPatch, spec: str) -> None:
    handlers: dict[int, Any] = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    monkeypatch.setattr(signal, "getsignal", lambda _number: signal.SIG_DFL)  # under nohup it would not be
    run("--version")
    assert set(handlers) == {signal.SIGTERM, signal.SIGHUP}
    for number, handler in handlers.items():
        with pytest.raises(KeyboardInterrupt):
            handler(number, None)


def test_a_hang_up_that_is_ignored_stays_ignored(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under nohup."""
    handlers: dict[int, Any] = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    ignored = {signal.SIGHUP: signal.SIG_IGN}
    monkeypatch.setattr(signal, "getsignal", lambda number: ignored.get(number, signal.SIG_DFL))
    run("--version")
    assert set(handlers) == {signal.SIGTERM}


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether a step was asked for, call by call."""
    asked: list[bool] = []

    def look_around(loaded: LoadedSpec, _deadline_s: float, *, runs: bool) -> tuple[Facts, Space]:
        asked.append(runs)
        return cpu_facts(), build_space(loaded.spec, cpu_facts())

    monkeypatch.setattr(search, "look_around", look_around)
    return asked


def test_validate_shows_the_space_and_what_dropped_out(run: Run, spec: str, looked: list[bool]) -> None:
    ended = run("validate", spec)
    assert (ended.code, ended.err) == (0, "")
    rows = [line.split() for line in ended.out.splitlines()]
    assert ["amp_dtype", "none,", "bf16", "none"] in rows
    assert "pin_memory: no accelerator" in ended.out
    assert "Test CPU" in ended.out


def test_validate_runs_a_step_unless_it_is_told_not_to(run: Run, spec: str, looked: list[bool]) -> None:
    assert "one optimizer step ran" in run("validate", spec).out
    assert "one optimizer step ran" not in run("validate", spec, "--no-run").out
    assert looked == [True, False]


def test_validate_shows_what_is_tried_only_where_loading_waits(run: Run, spec: str, looked: list[bool]) -> None:
    few = ("--set", "search={amp_dtype: [none, bf16]}")
    assert "0, 1, 2, 4; 8, 16, 32 if loading waits" in " ".join(run("validate", spec, *few).out.split())
    assert json.loads(run("validate", spec, *few, "--json").out)["held_back"] == {"num_workers": [8, 16, 32]}


def test_validate_as_json(run: Run, spec: str, looked: list[bool]) -> None:
    ended = run("validate", spec, "--json", "--set", "search.amp_dtype=[none,bf16,fp16]")
    assert (ended.code, ended.err) == (0, "")
    document = json.loads(ended.out)
    assert document["dimensions"]["amp_dtype"] == ["none", "bf16", "fp16"]
    assert document["held_back"] == {}
    assert document["baseline"]["micro_batch_size"] == 32
    assert "pin_memory: no accelerator" in document["dropped"]
    assert document["facts"]["device"]["name"] == "Test CPU"


CONSTRAINED = (
    *("--set", "search.micro_batch_size=[8, 16, 32, 64]"),
    *("--set", "constraints=[micro_batch_size <= 16, peak_memory_bytes <= 20GiB]"),
)


def test_validate_shows_constraints_and_what_they_leave(run: Run, spec: str, looked: list[bool]) -> None:
    knob = "search.custom={shape: {values: [tall, wide], arg: model.args.shape}}"
    ended = run("validate", spec, *CONSTRAINED, "--set", knob)
    assert (ended.code, ended.err) == (0, "")
    text = " ".join(ended.out.split())
    assert "shape tall, wide tall" in text
    assert re.search(r"[\d,]+ of (up to )?[\d,]+ configurations", text)
    assert "micro_batch_size <= 16: violating configurations are not tried; the baseline violates it" in text
    assert "peak_memory_bytes <= 20GiB: measured; violating configurations are never the result" in text


def test_validate_as_json_tells_constraints_apart(run: Run, spec: str, looked: list[bool]) -> None:
    document = json.loads(run("validate", spec, "--json", *CONSTRAINED).out)
    assert document["constraints"] == ["micro_batch_size <= 16"]
    assert document["measured_constraints"] == ["peak_memory_bytes <= 20GiB"]


def test_constraints_that_leave_nothing_are_an_error_of_the_spec(run: Run, spec: str, looked: list[bool]) -> None:
    ended = run("validate", spec, "--set", "constraints=[micro_batch_size > 9999]")
    assert ended.code == 2
    assert "micro_batch_size > 9999" in ended.err


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_doctor(run: Run, monkeypatch: pytest.MonkeyPatch, more: list[str]) -> None:
    facts = cpu_facts()
    asked: list[str] = []

    def look(device: str) -> Any:
        asked.append(device)
        return facts.device, facts.host

    monkeypatch.setattr(execution, "look_at_machine", look)
    ended = run("doctor", "--device", "cpu", *more)
    assert (ended.code, ended.err, asked) == (0, "", ["cpu"])
    if more:
        assert json.loads(ended.out)["device"]["name"] == "Test CPU"
    else:
        assert "Test CPU" in ended.out


def test_verify_ends_with_0_while_the_promise_holds_and_with_1_when_it_does_not(
    run: Run, simulated: FormulaBackend, searched: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    searched()
    kept = run("verify", "mine")
    assert kept.code == 0
    assert "mine: the promise holds" in kept.out
    assert "round 1: " in kept.err
    monkeypatch.setattr(simulated, "_behaviour", lambda _config: 100.0)
    broken = run("verify", "studies/mine", "--quiet")
    assert (broken.code, broken.err) == (1, "")
    assert "the promise does not hold: it is no faster than the baseline" in broken.out
    document = json.loads(run("verify", "mine", "--json").out)
    assert document["holds"] is False
    assert document["promised_ratio"] > 1.5 > 1.02 > document["ratio"]


def test_verify_asks_for_a_budget_that_is_one(run: Run, searched: Callable[[], None]) -> None:
    searched()
    ended = run("verify", "mine", "--budget", "60")
    assert (ended.code, ended.out) == (2, "")
    assert "--budget: a duration needs a unit: 60s, 60m or 60h" in ended.err


def test_verify_of_a_study_without_a_result(run: Run, tmp_path: Path) -> None:
    study(tmp_path)
    ended = run("verify", "mine")
    assert (ended.code, ended.out) == (2, "")
    assert "has no result yet; run the search again" in ended.err


def test_show_gives_the_result_again(run: Run, searched: Callable[[], None]) -> None:
    searched()
    shown = run("show", "mine")
    assert (shown.code, shown.err) == (0, "")
    assert "Stable: no instability seen" in shown.out
    by_folder = run("show", "studies/mine")
    assert by_folder == shown


def test_show_as_json_is_the_document(run: Run, tmp_path: Path) -> None:
    document = result()
    study(tmp_path, best=document)
    ended = run("show", "mine", "--json")
    assert (ended.code, ended.err) == (0, "")
    assert json.loads(ended.out) == document


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_show_of_a_damaged_result_is_4_and_says_what_to_do(run: Run, tmp_path: Path, more: list[str]) -> None:
    study(tmp_path, best={"format": 1, "study": "mine"})
    ended = run("show", "mine", *more)
    assert (ended.code, ended.out) == (4, "")
    assert "error: studies/mine/best.yaml is damaged: config is missing (9 more); delete it" in ended.err


@pytest.mark.parametrize("command", [["export", "--to", "timm"], ["export", "--to", "torch"], ["show"], ["report"]])
@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("config", "num_threads", "1; touch PWNED"),
        ("config", "micro_batch_size", '__import__("os").system("touch PWNED")'),
        ("config", "amp_dtype", "int8"),
        ("environment", "device_kind", "cuda.x(), torch.cuda"),
        ("speedup", "ratio", "fast"),
    ],
)
def test_a_result_that_is_not_what_it_says_is_refused_in_a_line_by_all_that_read_it(
    run: Run, tmp_path: Path, command: list[str], section: str, key: str, value: str
) -> None:
    document = result()
    document[section][key] = value
    folder = study(tmp_path, best=document)
    ended = run(command[0], "mine", *command[1:])
    assert (ended.code in (2, 4), ended.out) == (True, "")
    (line,) = ended.err.splitlines()
    assert line.startswith(f"error: studies/mine/best.yaml is damaged: {section}.{key} must be ")
    assert not (folder / "exports").exists()


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_show_of_a_study_that_is_not_there_names_those_that_are(run: Run, tmp_path: Path, more: list[str]) -> None:
    study(tmp_path, "other")
    ended = run("show", "mine", *more)
    assert ended == Ended(2, "", "error: no study at mine; studies here: other\n")


def test_show_of_a_study_without_a_result(run: Run, tmp_path: Path) -> None:
    study(tmp_path)
    ended = run("show", "mine")
    assert (ended.code, ended.out) == (2, "")
    assert "studies/mine has no result yet" in ended.err


@pytest.fixture
def swept(monkeypatch: pytest.MonkeyPatch, backend: FormulaBackend) -> FormulaBackend:
    """`autotune sweep` measures on a simulated machine."""
    real = sweep.sweep

    def on_the_backend(*arguments: Any, **options: Any) -> Path:
        return real(*arguments, start_backend=backend, **options)

    monkeypatch.setattr(sweep, "sweep", on_the_backend)
    return backend


TABLE = "studies/recorded/test-cpu-4-cores-mine.json.gz"


def test_sweep_prints_the_path_of_its_table_and_its_progress_on_stderr(
    run: Run, spec: str, tmp_path: Path, swept: FormulaBackend
) -> None:
    ended = run("sweep", spec, "--trial", "2s")
    assert (ended.code, ended.out) == (0, f"{TABLE}\n")
    table = read_table(tmp_path / TABLE)
    assert table.trial_s == 2.0
    assert table.command == f"autotune sweep {spec} --trial 2s"
    lines = ended.err.splitlines()
    assert len(lines) == len(table.runs) == 4
    assert lines[-1].startswith("4/4  0s left  ")


def test_sweep_quietly_and_as_json(run: Run, spec: str, swept: FormulaBackend) -> None:
    assert run("sweep", spec, "--quiet") == Ended(0, f"{TABLE}\n", "")
    ended = run("sweep", spec, "--json", "--out", "mine.json.gz")
    assert json.loads(ended.out) == {"table": "mine.json.gz"}


def test_an_interrupted_sweep_ends_with_130_and_goes_on(run: Run, spec: str, swept: FormulaBackend) -> None:
    swept.interrupt_at = 3
    ended = run("sweep", spec)
    assert (ended.code, ended.out) == (130, "")
    assert "Run the same command to continue" in ended.err
    swept.interrupt_at = None
    assert run("sweep", spec).code == 0
    assert len(swept.requests) == 3 + 2


def test_replay_shows_a_row_for_each_strategy(run: Run, spec: str, tmp_path: Path, swept: FormulaBackend) -> None:
    run("sweep", spec)
    ended = run("replay", TABLE, "--strategy", "auto,random", "--seeds", "2", "--budget", "10s", "--plot", "found.svg")
    assert ended.code == 0
    assert [line.split()[0] for line in ended.out.splitlines()[1:3]] == ["mine", "random"]
    assert "score" in ended.out
    assert "</svg>" in (tmp_path / "found.svg").read_text()


def test_replay_as_json(run: Run, spec: str, swept: FormulaBackend) -> None:
    run("sweep", spec)
    options = ("--seeds", "2", "--budget", "10s", "--jobs", "1", "--json", "--strategy")
    document = json.loads(run("replay", TABLE, *options, "auto,random").out)
    assert set(document["strategies"]) == {"auto", "random"}
    assert document["strategies"]["auto"]["seconds_to_2pct"].keys() == {"median", "p90", "reached"}
    assert document["strategies"]["auto"]["oom_trials"] == {"median": 0, "max": 0}
    two = json.loads(run("replay", TABLE, TABLE, *options, "random").out)
    assert [table["table"] for table in two["tables"]] == ["mine", "mine"]
    assert two["tables"][1].keys() == document.keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.json.gz"], "no table at nowhere.json.gz"),
        (["mine.yaml"], "cannot read mine.yaml"),
        (["nowhere.json.gz", "--strategy", "magic"], "no strategy 'magic'"),
        (["nowhere.json.gz", "--budget", "soon"], "--budget: "),
        (["nowhere.json.gz", "--plot", "found.gif"], "--plot: give a file that ends in"),
    ],
)
def test_a_wrong_replay_is_2_and_says_what_to_do(run: Run, spec: str, arguments: list[str], message: str) -> None:
    ended = run("replay", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err


def test_export_writes_into_the_study_and_says_what_is_left(
    run: Run, searched: Callable[[], None], tmp_path: Path
) -> None:
    searched()
    done = run("export", "mine", "--to", "lightning")
    path = tmp_path / "studies" / "mine" / "exports" / "lightning_arguments.py"
    assert done.code == 0
    assert done.out.strip() == str(path.relative_to(tmp_path))
    assert path.exists()
    assert "note: lightning does not set" in done.err
    assert "Effective batch size" in done.err


def test_export_elsewhere_and_as_json(run: Run, searched: Callable[[], None], tmp_path: Path) -> None:
    searched()
    done = run("export", "studies/mine/best.yaml", "--to", "accelerate", "--out", "here", "--json")
    said = json.loads(done.out)
    assert said["files"] == ["here/accelerate_config.yaml", "here/accelerator.py"]
    assert all((tmp_path / file).exists() for file in said["files"])
    assert said["notes"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "mine", "--to", "onnx"], "no target 'onnx'; there are accelerate, deepspeed, json"),
        (["export", "his", "--to", "yaml"], "no result at his; results here: mine"),
        (["verify", "mine", "--export", "timm"], "timm cannot be run here; torch, accelerate, lightning"),
    ],
)
def test_what_cannot_be_exported_is_2_and_says_why(
    run: Run, searched: Callable[[], None], arguments: list[str], message: str
) -> None:
    searched()
    done = run(*arguments)
    assert done.code == 2
    assert message in done.err


def test_a_report_is_written_and_its_path_is_printed(
    run: Run, spec: str, searched: Callable[[], None], tmp_path: Path
) -> None:
    searched()
    done = run("report", "mine")
    assert (done.code, done.out) == (0, "studies/mine/report.html\n")
    assert (tmp_path / "studies/mine/report.html").read_text().startswith("<!doctype html>")
    run("search", spec, "--out", "studies/other")
    said = json.loads(run("report", "mine", "other", "--out", "both.html", "--json").out)
    assert said["path"] == "both.html"
    assert [study["verdict"] for study in said["studies"]] == ["stable", "stable"]
    assert (tmp_path / "both.html").exists()


def test_what_cannot_be_reported_is_said(run: Run, searched: Callable[[], None]) -> None:
    assert "no study at mine" in run("report", "mine").err
    searched()
    assert "give one to report, or two to compare" in run("report", "mine", "mine", "mine").err
    assert run("dashboard", "none").code == 3 or "no study at none" in run("dashboard", "none").err


def test_ablate_prints_where_its_tables_are(run: Run, spec: str, simulated: FormulaBackend, tmp_path: Path) -> None:
    done = run("ablate", spec, "--budget", "5m", "--set", "ablation.rounds=3")
    assert (done.code, done.out) == (0, "studies/ablation/mine/ablation.md\n")
    assert "AMP" in done.err
    found = json.loads(run("ablate", spec, "--budget", "5m", "--set", "ablation.rounds=3", "--json").out)
    assert found["rounds"] == 3
    assert len(found["cells"]) == 4
    assert found["command"].startswith("autotune ablate mine.yaml")


def test_ablations_of_one_name_are_refused(run: Run, spec: str, simulated: FormulaBackend) -> None:
    done = run("ablate", spec, spec)
    assert done.code == 2
    assert "2 of the specs are named mine" in done.err


def test_a_search_leaves_a_note_in_its_study(run: Run, searched: Callable[[], None]) -> None:
    searched()
    with stored_study(StudyFolder(Path("studies/mine")), writable=False) as study:
        note = get_note(study)
    assert note.startswith("# mine: stable")
    assert "| amp\\_dtype | none | **bf16** |" in note


def test_json_says_null_where_a_number_is_not_finite(capsys: pytest.CaptureFixture[str]) -> None:
    """The gain of another configuration after two rounds may have no upper end."""
    print_json({"checks": [{"value": float("inf"), "limit": 1.05}], "pair": (float("nan"), 1)})
    assert json.loads(capsys.readouterr().out) == {"checks": [{"value": None, "limit": 1.05}], "pair": [None, 1]}


HOSTILE_NAME = "a\x1b]0;owned\x07\x1b[2J\u202eb"


def test_names_of_others_reach_no_terminal_as_they_are(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "studies" / HOSTILE_NAME
    folder.mkdir(parents=True)
    (folder / "study.db").touch()
    (folder / "best.yaml").write_text("a: 1")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for command in (
        ["show", "none"],
        ["export", "none", "--to", "torch"],
        ["show", str(folder)],
        ["validate", "--no-run", f"{HOSTILE_NAME}.yaml"],
        ["init", f"{HOSTILE_NAME}.yaml"],
    ):
        ended = run(*command)
        assert all(character.isprintable() or character == "\n" for character in ended.out + ended.err)


def test_doctor_runs_no_python_of_the_folder_it_is_called_in(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", ["", ".", *sys.path])
    for module in ("psutil", "torch", "json"):
        (tmp_path / f"{module}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert run("doctor", "--device", "cpu").code == 0
    assert not (tmp_path / "ran").exists()
