import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autotune.errors import SpecError, WorkloadError
from autotune.spec import LoadedSpec, Spec, dump_yaml, load_spec, parse_spec, scaffold_text, study_name

SPECS = sorted((Path(__file__).parents[2] / "specs").glob("*.yaml"))
QUICKSTART = next(path for path in SPECS if path.stem == "quickstart")
GENERATED = "data={synthetic: {image_size: 224, storage: jpeg}}"
SMALL = "model: {timm: resnet18}\ndata: {synthetic: {}}\nbudget: 10m\n"


def load(folder: Path, text: str, *overrides: str, **options: str) -> LoadedSpec:
    path = folder / "spec.yaml"
    path.write_text(text)
    return load_spec(path, overrides, **options)


def dumped(spec: Spec) -> dict[str, Any]:
    return spec.model_dump(mode="json", exclude_none=True)


def test_the_quickstart_needs_nothing() -> None:
    spec = load_spec(QUICKSTART).spec
    assert spec.budget == 120
    assert spec.training.effective_batch_size == 32
    assert spec.search.values("micro_batch_size") == (8, 16, 32)
    assert spec.search.values("compile") == ("none",)
    assert spec.search.values("pin_memory") is None


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_every_spec_loads_on_generated_images(path: Path) -> None:
    assert load_spec(path, [GENERATED]).spec.name == path.stem


@pytest.mark.parametrize(
    "path", [path for path in SPECS if "image_folder" in path.read_text()], ids=lambda path: path.stem
)
def test_a_spec_without_its_data_says_how_to_go_on(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{path}:")
    assert "data.image_folder.path: no such folder" in problem
    assert f"--set {GENERATED.replace('=', '=' + chr(39))}'" in problem
    assert f"--set {GENERATED.replace('=', '=' + chr(39))}'" in path.read_text()


EVERYTHING = """
name: all.of_it-1
model: {factory: "pkg.models:build", args: {depth: 18, nothing: null, deep: {list: [1, null, {a: 1e-3}]}, text: "1:2"}}
data: {factory: "pkg:data", args: {on: yes}}
training:
  loss: pkg.losses:loss
  optimizer: {name: adamw, lr: 1e-3, betas: [0.9, 0.999], foreach: null, weight_decay: 5.0e-5}
  clip_grad_norm: 1
  seed: 7
  effective_batch_size: {min: 32, max: 512}
budget: 1h0.1s
device: cuda:1
baseline: {micro_batch_size: 16, amp_dtype: bf16, num_workers: 2, prefetch_factor: 4, compile: reduce-overhead}
search:
  micro_batch_size: {min: 8, max: 512, step: pow2}
  grad_accum_steps: {min: 1, max: 9, step: 4}
  num_workers: [0, 4, 4, 2]
  amp_dtype: none
  pin_memory: [false, true]
stability: {soak_steps: 0, memory_headroom: 0}
strategy: {name: tpe, seed: 3}
"""


@pytest.mark.parametrize("text", [SMALL, EVERYTHING, scaffold_text(), QUICKSTART.read_text()])
def test_round_trips_are_exact(tmp_path: Path, text: str) -> None:
    loaded = load(tmp_path, text)
    wire = json.loads(json.dumps(dumped(loaded.spec)))
    assert parse_spec(wire, loaded.folder) == loaded.spec
    assert dumped(parse_spec(wire, tmp_path / "elsewhere")) == wire
    again = load(tmp_path, dump_yaml(wire))
    assert (again.spec, again.sha256) == (loaded.spec, loaded.sha256)


def test_what_everything_becomes(tmp_path: Path) -> None:
    spec = load(tmp_path, EVERYTHING).spec
    assert spec.model.args == {"depth": 18, "nothing": None, "deep": {"list": [1, None, {"a": 1e-3}]}, "text": "1:2"}
    assert spec.data.args == {"on": "yes"}
    assert spec.training.optimizer.args == {"lr": 1e-3, "betas": [0.9, 0.999], "foreach": None, "weight_decay": 5e-5}
    assert spec.search.values("micro_batch_size") == (8, 16, 32, 64, 128, 256, 512)
    assert spec.search.values("grad_accum_steps") == (1, 5, 9)
    assert spec.search.values("num_workers") == (0, 4, 2)
    assert spec.search.values("amp_dtype") == ("none",)
    assert spec.budget == 3600.1


def test_a_range_from_zero_holds_zero(tmp_path: Path) -> None:
    spec = load(tmp_path, f"{SMALL}search: {{num_workers: {{min: 0, max: 5}}}}").spec
    assert spec.search.values("num_workers") == (0, 1, 2, 4)


def test_an_empty_section_takes_its_defaults(tmp_path: Path) -> None:
    empty = "model: {timm: resnet18}\ndata:\n  synthetic:\nbudget: 10m\nsearch:\nbaseline:\ntraining:\n  optimizer:\n"
    assert load(tmp_path, empty).spec == load(tmp_path, SMALL).spec


def test_paths_start_from_the_specs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    for written in ("images", "~/images", str(tmp_path / "images"), "./images"):
        loaded = load(tmp_path, f"model: {{timm: a}}\nbudget: 1m\ndata: {{image_folder: {{path: {written}}}}}")
        assert loaded.folder == tmp_path
        assert loaded.spec.data.image_folder is not None
        assert loaded.spec.data.image_folder.path == tmp_path / "images"


def test_a_root_to_download_into_need_not_exist(tmp_path: Path) -> None:
    text = "model: {timm: a}\nbudget: 1m\ndata: {timm: {name: torch/cifar10, root: new, args: {download: true}}}"
    spec = load(tmp_path, text).spec
    assert spec.data.timm is not None
    assert spec.data.timm.root == tmp_path / "new"


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("resnet50", "resnet50"),
        ("my spec (2)", "my-spec-2-"),
        (".hidden", "hidden"),
        ("__", "study"),
        ("a" * 200, "a" * 100),
    ],
)
def test_the_name_comes_from_the_file(tmp_path: Path, stem: str, name: str) -> None:
    assert study_name(stem) == name
    assert Spec.model_validate({"name": name, "model": {"timm": "a"}, "data": {"synthetic": {}}, "budget": "1m"})
    (tmp_path / f"{stem[:100]}.yaml").write_text(SMALL)
    assert load_spec(tmp_path / f"{stem[:100]}.yaml").spec.name == name


def test_overrides_replace_and_make_what_is_on_the_way(tmp_path: Path) -> None:
    overrides = [
        "training.optimizer={name: adamw, lr: 1e-3}",
        "training.optimizer.lr=0.5",
        "model.args.num_classes=100",
        "search.amp_dtype=[none, bf16, fp16]",
        "search.amp_dtype.1=fp16",
        "training.seed=1",
        "training.seed=2",
        "device=cuda:1",
        "name=",
        'model.timm="a=b"',
    ]
    spec = load(
        tmp_path, f"{SMALL}training: {{optimizer: {{momentum: 0.9}}}}", *overrides, budget="5m", device="cpu"
    ).spec
    assert spec.training.optimizer.args == {"lr": 0.5}
    assert spec.model.args == {"num_classes": 100}
    assert spec.search.values("amp_dtype") == ("none", "fp16")
    assert spec.training.seed == 2
    assert (spec.name, spec.device, spec.budget, spec.model.timm) == ("spec", "cpu", 300, "a=b")


def test_an_override_mends_what_the_file_has_wrong(tmp_path: Path) -> None:
    assert load(tmp_path, SMALL.replace("10m", "10"), budget="10m").spec.budget == 600


def test_the_hash_is_of_what_the_spec_says_not_how(tmp_path: Path) -> None:
    first = load(tmp_path, SMALL)
    assert load(tmp_path, f"# other\n{SMALL}device: auto").sha256 == first.sha256
    assert load(tmp_path, SMALL, "training.seed=1").sha256 != first.sha256


def test_parse_spec_names_the_place(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec({"model": {"timm": "a"}, "data": {"synthetic": {"sampels": 3}}}, tmp_path)
    assert [problem.split(";")[0] for problem in caught.value.problems] == [
        "spec: budget: is missing: Wall-clock time of the whole command: `90s`, `10m`, `1h30m`.",
        "spec: data.synthetic.sampels: unknown key",
    ]


@pytest.mark.parametrize("name", ["x", "123", "true", "1e5"])
def test_the_scaffold_validates_under_any_name(tmp_path: Path, name: str) -> None:
    assert load(tmp_path, scaffold_text(name)).spec.name == name


def test_what_the_scaffold_comments_out_is_right_too(tmp_path: Path) -> None:
    lines = scaffold_text().replace("\n  # ", "\n  ").split("\n")
    first, last = (next(n for n, line in enumerate(lines) if line.startswith(key)) for key in ("search", "stability"))
    knobs = load(tmp_path, "\n".join([SMALL, *lines[first:last]])).spec.search
    assert all(knobs.values(name) for name in type(knobs).model_fields)


PLACED = """\
model:
  timm: resnet5
data: {synthetic: {}}
training:
  optimizer: {name: adamv}
budget: 1m
"""


@pytest.mark.parametrize(
    ("problem", "where"),
    [
        ("model.timm: unknown model", "2:9: model.timm: unknown model"),
        ("training.optimizer: unknown: b", "5:3: training.optimizer: unknown: b"),
        ("training.loss: it fails", "4:1: training.loss: it fails"),
        ("data.factory: it fails", "3:1: data.factory: it fails"),
        ("model: 3 outputs", "1:1: model: 3 outputs"),
    ],
)
def test_what_is_wrong_with_the_workload_is_told_with_its_place(tmp_path: Path, problem: str, where: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(PLACED)
    loaded = load_spec(path)
    with pytest.raises(WorkloadError) as caught, loaded.placing_problems():
        raise WorkloadError([problem, "something else: is wrong"])
    assert caught.value.problems == (f"{path}:{where}", "something else: is wrong")


def test_what_was_set_on_the_command_line_is_told_by_its_option(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(PLACED)
    loaded = load_spec(path, ["model.timm=resnet6"])
    assert loaded.at_its_place("model.timm: unknown") == "--set model.timm=resnet6: model.timm: unknown"


def test_a_spec_that_was_no_file_has_no_places(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(PLACED)
    assert replace(load_spec(path), places=None).at_its_place("model.timm: unknown") == "model.timm: unknown"


@pytest.mark.parametrize("optimizer", ['"pkg:build"', '{factory: "pkg:build", lr: 0.1, foreach: null}'])
def test_a_factory_of_optimizers_comes_back_as_it_was_given(tmp_path: Path, optimizer: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(PLACED.replace("{name: adamv}", optimizer))
    spec = load_spec(path).spec
    again = parse_spec(spec.model_dump(mode="json", exclude_none=True), tmp_path)
    assert again.training.optimizer.args == spec.training.optimizer.args
    assert again == spec
    given = {"lr": 0.1, "foreach": None} if "lr" in optimizer else {}
    assert spec.training.optimizer.args == given
    assert spec.training.optimizer.called == "pkg:build"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "training.scheduler=cosine",
            "training.scheduler: is left to your own code: trials train at one learning rate",
        ),
        ("training.ema=0.99", "trials keep no average of the weights"),
        ("training.epochs=90", "your own loop decides how long you train"),
        ('training.optimizer={factory: "a:b", name: sgd}', "give either a name or a factory, not both"),
        ("training.optimizer={name: factory}", "needs training.optimizer.factory"),
        ("training.optimizer=a:import", "'import' is not a name in Python"),
        ("data.collate=pad", "must be a callable, as package.module:name"),
    ],
)
def test_what_a_users_own_training_has(tmp_path: Path, override: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(PLACED)
    with pytest.raises(SpecError) as caught:
        load_spec(path, [override])
    assert message in str(caught.value)
