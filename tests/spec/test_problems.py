"""Each mistake in a spec: one problem, at its place, in words that say how to mend it."""

from pathlib import Path

import pytest

from autotune.errors import SpecError
from autotune.spec import load_spec

GOOD = {"model": "model: {timm: resnet18}", "data": "data: {synthetic: {}}", "budget": "budget: 10m"}


def problems(folder: Path, text: str, *overrides: str, **options: str) -> list[str]:
    path = folder / "spec.yaml"
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        load_spec(path, overrides, **options)
    return [problem.removeprefix(f"{path}:") for problem in caught.value.problems]


def with_good(text: str) -> str:
    """`text` from line 4 on, below the required keys that it does not bring itself."""
    own = {line.split(":")[0] for line in text.splitlines()}
    return "\n".join([line for key, line in GOOD.items() if key not in own] + [text])


WRONG_VALUES = [
    ("search: {amp_dtype: [no, bf16]}", "4:22: search.amp_dtype.0: ", "write none (quoted or not) for no AMP"),
    ("search: {amp_dtype: off}", "4:21: search.amp_dtype: ", "write none (quoted or not) for no AMP"),
    ("search: {amp_dtype: false}", "4:21: search.amp_dtype: ", "not false; write none (quoted or not) for no AMP"),
    ("search: {amp_dtype: fp32}", "4:21: search.amp_dtype: ", "write none (quoted or not) for no AMP"),
    ("search: {amp_dtype: float16}", "4:21: search.amp_dtype: ", "did you mean fp16?"),
    ("search: {amp_dtype: half}", "4:21: search.amp_dtype: ", "did you mean fp16?"),
    ("search: {amp_dtype: [bfloat16]}", "4:22: search.amp_dtype.0: ", "did you mean bf16?"),
    ("search: {amp_dtype: true}", "4:21: search.amp_dtype: ", "write bf16 or fp16"),
    ("search: {amp_dtype: xyz}", "4:21: search.amp_dtype: ", "must be one of none, bf16, fp16, not 'xyz'"),
    ("search: {amp_dtype: {a: 1}}", "4:10: search.amp_dtype: ", "must be a value or a list of values, not a mapping"),
    ("search: {num_workers: a}", "4:23: search.num_workers: ", "must be a whole number, not 'a'"),
    ("search: {num_workers: '4'}", "4:23: search.num_workers: ", "write 4 without quotes"),
    ("search: {num_workers: 1_0}", "4:23: search.num_workers: ", "write 10"),
    ("search: {num_workers: []}", "4:23: search.num_workers: ", "give at least one value"),
    ("search: {num_workers: [0, -1]}", "4:27: search.num_workers.1: ", "must be at least 0, not -1"),
    ("search: {micro_batch_size: [8, 16.0]}", "4:32: search.micro_batch_size.1: ", "not 16.0; write 16"),
    ("search: {micro_batch_size: {min: 64, max: 8}}", "4:10: search.micro_batch_size: ", "min 64 is above max 8"),
    ("search: {micro_batch_size: {min: 5, max: 7}}", "4:10: search.micro_batch_size: ", "no power of two"),
    ("search: {micro_batch_size: {min: 5}}", "4:10: search.micro_batch_size.max: ", "is missing"),
    ("search: {micro_batch_size: {min: 0, max: 8}}", "4:34: search.micro_batch_size.min: ", "at least 1, not 0"),
    ("search: {num_threads: {min: 1, max: 8, step: 0}}", "4:46: search.num_threads.step: ", "must be pow2, or"),
    ("search: {num_threads: {min: 1, max: 8, step: a}}", "4:46: search.num_threads.step: ", "must be pow2, or"),
    ("search: {num_threads: {min: 1, max: 99999999999, step: 1}}", "4:10: search.num_threads: ", "more than 1000"),
    ("search: {pin_memory: [no]}", "4:23: search.pin_memory.0: ", "must be true or false, not 'no'; write false"),
    ("search: {pin_memory: 1}", "4:22: search.pin_memory: ", "must be true or false, not 1; write true"),
    ("search: {compile: true}", "4:19: search.compile: ", "did you mean default?"),
    ("search: {compile: max_autotune}", "4:19: search.compile: ", "did you mean max-autotune?"),
    ("search: {memory_format: NHWC}", "4:25: search.memory_format: ", "did you mean channels_last?"),
    ("search: []", "4:9: search: ", "must be a mapping of keys to values, not a list"),
    ("baseline: {micro_batch_size: true}", "4:30: baseline.micro_batch_size: ", "must be a whole number, not true"),
    ("baseline: {micro_batch_size: [8]}", "4:30: baseline.micro_batch_size: ", "must be a whole number, not a list"),
    ("baseline: {prefetch_factor: 2}", "4:29: baseline.prefetch_factor: ", "needs workers"),
    ("training: {effective_batch_size: fre}", "4:34: training.effective_batch_size: ", "did you mean free?"),
    ("training: {effective_batch_size: auto}", "4:34: training.effective_batch_size: ", "did you mean free?"),
    ("training: {effective_batch_size: 0}", "4:34: training.effective_batch_size: ", "must be at least 1, not 0"),
    ("training: {effective_batch_size: true}", "4:34: training.effective_batch_size: ", "not true"),
    ("training: {effective_batch_size: [1]}", "4:34: training.effective_batch_size: ", "baseline or free, not a list"),
    ("training: {effective_batch_size: {min: 3, max: 2}}", "4:12: training.effective_batch_size: ", "above max 2"),
    ("training: {optimizer: adam}", "4:23: training.optimizer: ", "write {name: adam}"),
    ("training: {optimizer: {lr: '1e-3'}}", "4:28: training.optimizer.lr: ", "write 0.001 without quotes"),
    ("training: {optimizer: {lr: 'nan'}}", "4:28: training.optimizer.lr: ", "must be a number, not 'nan'"),
    ("training: {optimizer: {lr: 0}}", "4:28: training.optimizer.lr: ", "must be above 0, not 0"),
    ("training: {optimizer: {lr: .nan}}", "4:28: training.optimizer.lr: ", "must be a finite number, not .nan"),
    ("training: {optimizer: {eps: .inf}}", "4:29: training.optimizer.eps: ", "must be a finite number, not .inf"),
    ("training: {loss: ce}", "4:18: training.loss: ", "did you mean cross_entropy?"),
    ("training: {loss: mse}", "4:18: training.loss: ", "a callable, as package.module:name"),
    ("training: {seed: 99999999999}", "4:18: training.seed: ", "must be at most 4294967295"),
    ("training: {seed: }", "4:17: training.seed: ", "not empty; leave the key out for its default"),
    ("stability: {memory_headroom: 10}", "4:30: stability.memory_headroom: ", "a share: 10 % is 0.1"),
    ("strategy: tpe", "4:11: strategy: ", "write {name: tpe}"),
    ("strategy: {name: factory}", "4:18: strategy.name: ", "needs strategy.factory"),
    (
        "strategy: {name: tpe, factory: 'a:b'}",
        "4:18: strategy.name: ",
        "give either a name or a factory, not both; it is tpe",
    ),
    ("strategy: {factory: build}", "4:21: strategy.factory: ", "a callable, as package.module:name"),
    ("strategy: {args: 3}", "4:18: strategy.args: ", "must be a mapping"),
    ("device: gpu", "4:9: device: ", "did you mean cuda?"),
    ("objective: speed", "4:12: objective: ", "did you mean throughput?"),
    ("name: a/b", "4:7: name: ", "it names a folder"),
    ("name: 2024", "4:7: name: ", "put it in quotes: '2024'"),
    ("budget: 12:30", "3:9: budget: ", "write 12m30s"),
    ("budget: 10", "3:9: budget: ", "needs a unit: 10s, 10m or 10h"),
    ("budget: 1s", "3:9: budget: ", "too short"),
    ("model: resnet18", "3:8: model: ", "write {timm: resnet18}"),
    ("model: a.b:build", "3:8: model: ", "write {factory: a.b:build}"),
    ("model: {}", "3:8: model: ", "give exactly one of timm, factory; found none"),
    ("model: {timm: a, factory: 'b:c'}", "3:1: model: ", "found timm and factory"),
    ("model: {timm: 18}", "3:15: model.timm: ", "put it in quotes"),
    ("data: ~/x", "3:7: data: ", "write {image_folder: {path: ~/x}}"),
    ("data: {synthetic: {}, args: {a: 1}}", "3:23: data.args: ", "goes with `factory` only"),
    ("data: {synthetic: {classes: 1}}", "3:29: data.synthetic.classes: ", "must be at least 2, not 1"),
    ("data: {image_folder: }", "3:8: data.image_folder.path: ", "is missing"),
    ("data: {image_folder: {path: ''}}", "3:29: data.image_folder.path: ", "must be the path of a folder"),
    ("data: {image_folder: {path: ~nobody-here/x}}", "3:29: data.image_folder.path: ", "home directory"),
    ("data: {image_folder: {path: gone}}", "3:29: data.image_folder.path: ", "no such folder"),
    ("data: {image_folder: {path: spec.yaml}}", "3:29: data.image_folder.path: ", "this is not a folder"),
    ("data: {timm: {name: a, root: /gone}}", "3:30: data.timm.root: ", "add args: {download: true}"),
]


@pytest.mark.parametrize(("text", "place", "words"), WRONG_VALUES, ids=[row[0] for row in WRONG_VALUES])
def test_one_wrong_value_is_one_problem(tmp_path: Path, text: str, place: str, words: str) -> None:
    (problem,) = problems(tmp_path, with_good(text))
    assert problem.startswith(place)
    assert words in problem
    assert "nput should" not in problem


UNKNOWN_KEYS = [
    ("bugdet: 1m", "4:1: bugdet: ", "did you mean budget?"),
    ("Search: {}", "4:1: Search: ", "did you mean search?"),
    ("timm: x", "4:1: timm: ", "it belongs at model.timm or data.timm"),
    ("training: {lr: 0.1}", "4:12: training.lr: ", "it belongs at training.optimizer.lr"),
    ("training: {learning_rate: 0.1}", "4:12: training.learning_rate: ", "did you mean training.optimizer.lr?"),
    ("training: {sed: 1}", "4:12: training.sed: ", "did you mean seed?"),
    ("search: {batch_size: 1}", "4:10: search.batch_size: ", "did you mean micro_batch_size?"),
    ("search: {num_threads: {min: 1, max: 2, stp: 1}}", "4:40: search.num_threads.stp: ", "did you mean step?"),
    ("strategy: {zzz: 1}", "4:12: strategy.zzz: ", "strategy takes name, seed"),
    ("zzz: 1", "4:1: zzz: ", "the top level takes name, model, data"),
    ("data: {synthetic: {sampels: 1}}", "3:20: data.synthetic.sampels: ", "did you mean samples?"),
    ("model: {tim: resnet18}", "3:9: model.tim: ", "did you mean timm?"),
]


@pytest.mark.parametrize(("text", "place", "words"), UNKNOWN_KEYS, ids=[row[0] for row in UNKNOWN_KEYS])
def test_an_unknown_key_is_told_where_to_go(tmp_path: Path, text: str, place: str, words: str) -> None:
    (problem,) = problems(tmp_path, with_good(text))
    assert problem.startswith(f"{place}unknown key; ")
    assert words in problem


BATCHES = [
    (
        "baseline: {micro_batch_size: 32, grad_accum_steps: 4}",
        "256",
        "5:30: baseline.micro_batch_size: ",
        "is 128, but",
    ),
    (
        "baseline: {micro_batch_size: 48}",
        "256",
        "5:30: baseline.micro_batch_size: ",
        "256 is not divisible by micro_batch_size 48; use 32, 64 or 128",
    ),
    (
        "baseline: {grad_accum_steps: 3}",
        "256",
        "5:30: baseline.grad_accum_steps: ",
        "256 is not divisible by grad_accum_steps 3; use 2, 4 or 8",
    ),
    ("baseline: {micro_batch_size: 64}", "{min: 8, max: 32}", "5:30: baseline.micro_batch_size: ", "8 to 32"),
    ("search: {micro_batch_size: [8, 16], grad_accum_steps: [1, 2]}", "64", "4:34: ", "`search` gives 64"),
    ("search: {micro_batch_size: {min: 8, max: 64}}", "100", "4:34: ", "`search` gives 100"),
    ("search: {micro_batch_size: 64, grad_accum_steps: [1, 3]}", "{min: 100, max: 120}", "4:12: ", "100 to 120"),
    ("search: {grad_accum_steps: 3}", "{min: 100, max: 101}", "4:12: ", "100 to 101"),
]


@pytest.mark.parametrize(("text", "batch", "place", "words"), BATCHES)
def test_batch_sizes_that_no_point_can_have(tmp_path: Path, text: str, batch: str, place: str, words: str) -> None:
    text = f"training: {{effective_batch_size: {batch}}}\n{text}"
    (problem,) = problems(tmp_path, with_good(text))
    assert problem.startswith(place)
    assert words in problem
    assert len(problems(tmp_path, with_good(f"{text}\nzzz: 1"))) == 2, "told with the other problems, not after them"


def test_all_problems_come_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = "training: {seed: -1, seed: 2}\nbudget: 10\nzzz: 1\nbudget: 5m\nsearch: {num_workers: [a, 0, b]}"
    assert [
        problem.split(" ")[0] for problem in problems(tmp_path, text, "device=gpu", "training", "strategy.seed=x")
    ] == [
        "1:1:",
        "1:1:",
        "1:18:",
        "1:22:",
        "2:9:",
        "3:1:",
        "4:1:",
        "5:24:",
        "5:30:",
        "--set",
        "--set",
        "--set",
    ]


def test_required_keys_are_missing_at_their_parent(tmp_path: Path) -> None:
    found = problems(tmp_path, "# a comment\nname: x\ndata:\n  image_folder: {image_size: 64}\n")
    assert [problem.split(" is missing")[0] for problem in found] == [
        "2:1: budget:",
        "2:1: model:",
        "4:3: data.image_folder.path:",
    ]


OVERRIDES = [
    ("foo", "--set foo: write it as path=value"),
    ("=1", "--set =1: write it as path=value"),
    ("a..b=1", "--set a..b=1: write it as path=value"),
    ("name.x=1", "--set name.x=1: name holds no x; set name itself"),
    (
        "search.amp_dtype=[no]",
        "--set search.amp_dtype=[no]: search.amp_dtype.0: must be one of none, bf16, fp16, not 'no'",
    ),
    ("search.amp_dtype=[bf16", "--set search.amp_dtype=[bf16: search.amp_dtype: the list opened with ["),
    ("trainig.seed=1", "--set trainig.seed=1: trainig: unknown key; did you mean training?"),
    ("search.num_workers.7=1", "--set search.num_workers.7=1: search.num_workers is a list whose items are"),
    ("search.num_threads.0=1", "--set search.num_threads.0=1: search.num_threads holds no 0"),
    ("search.num_workers.1=x", "--set search.num_workers.1=x: search.num_workers.1: must be a whole number, not 'x'"),
    ("training={seed: 1, seed: 2}", "--set training={seed: 1, seed: 2}: training.seed: duplicate key"),
    ("budget=5", "--set budget=5: budget: a duration needs a unit"),
    ("a\nb=1", "--set a b=1: a b: unknown key"),
    (
        "data={image_folder: {path: /gone}}",
        "--set data={image_folder: {path: /gone}}: data.image_folder.path: no such folder",
    ),
]


@pytest.mark.parametrize(("override", "problem"), OVERRIDES)
def test_a_wrong_override_is_located_on_the_command_line(tmp_path: Path, override: str, problem: str) -> None:
    text = with_good("name: x\nsearch: {num_workers: [0, 2]}")
    (found,) = problems(tmp_path, text, override)
    assert found.startswith(problem)
    assert "\n" not in found


def test_options_are_located_too(tmp_path: Path) -> None:
    found = problems(tmp_path, with_good(""), budget="5", device="gpu")
    assert found[0].startswith("--budget 5: budget: a duration needs a unit")
    assert found[1].startswith("--device gpu: device: must be auto")
