"""Knobs and constraints of the spec's own: what a document may say of them, and what comes of each mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from autotune.errors import SpecError
from autotune.spec import Spec, json_schema, load_spec, parse_spec, scaffold_text, with_arguments
from autotune.spec.document import parse_document

HEAD = """\
model: {factory: "m:build", args: {impl: b, block: {norm: 1}, deep: 3}}
data: {factory: "m:data"}
budget: 10m
"""
FOREACH = "{values: [null, true], arg: training.optimizer.foreach}"


def problems(folder: Path, text: str, *overrides: str) -> list[str]:
    path = folder / "spec.yaml"
    path.write_text(HEAD + text)
    with pytest.raises(SpecError) as caught:
        load_spec(path, overrides)
    return [problem.removeprefix(f"{path}:") for problem in caught.value.problems]


def spec_of(text: str) -> Spec:
    values: dict[str, Any] = parse_document(HEAD + text).values
    return parse_spec(values, ".")


def knob(written: str, name: str = "mine") -> str:
    return f"search: {{custom: {{{name}: {written}}}}}"


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        (knob("{values: [], arg: model.args.x}"), "4:34: search.custom.mine.values: ", "at least one value"),
        (knob("{values: , arg: model.args.x}"), "4:33: search.custom.mine.values: ", "as a list: [a, b]"),
        (knob("{values: [[1]], arg: model.args.x}"), "4:35: search.custom.mine.values.0: ", "not a list"),
        (knob("{values: [1, 1.0], arg: model.args.x}"), "4:34: search.custom.mine.values: ", "1 and 1.0 count as one"),
        (knob("{values: [1], arg: model.x}"), "4:44: search.custom.mine.arg: ", "must be model.args.KEY"),
        (knob("{values: [1], arg: model.args}"), "4:44: search.custom.mine.arg: ", "must be model.args.KEY"),
        (knob("{values: [1], arg: training.seed}"), "4:44: search.custom.mine.arg: ", "must be model.args.KEY"),
        (knob("{values: [1], arg: 3}"), "4:44: search.custom.mine.arg: ", "must be model.args.KEY"),
        (
            knob("{values: [1], arg: training.optimizer.a.b}"),
            "4:44: search.custom.mine.arg: ",
            "must be model.args.KEY",
        ),
        (knob("{values: [1], arg: training.optimizer.name}"), "4:44: search.custom.mine.arg: ", "held fixed"),
        (knob("{values: [1], arg: training.optimizer.fused}"), "4:44: search.custom.mine.arg: ", "fused_optimizer"),
        (knob("{values: [1], arg: model.args.deep.x}"), "4:44: search.custom.mine.arg: ", "through model.args.deep"),
        (
            knob("{values: [1], arg: model.args.x, value: 2}"),
            "4:58: search.custom.mine.value: ",
            "did you mean values?",
        ),
        (knob("{values: [1]}"), "4:19: search.custom.mine.arg: ", "is missing"),
        (knob("{values: [1], arg: model.args.x}", "a-b"), "4:19: search.custom.a-b: ", "letters, digits and _"),
        (knob("{values: [1], arg: model.args.x}", "compile"), "4:19: search.custom.compile: ", "is a knob already"),
        (knob("{values: [1], arg: model.args.x}", "step_time_s"), "4:19: search.custom.step_time_s: ", "a measure"),
        (knob("{values: [1], arg: model.args.x}", "bf16"), "4:19: search.custom.bf16: ", "a word of constraints"),
        (f"baseline: {{custom: {{min: 1}}}}\n{knob(FOREACH)}", "4:26: baseline.custom.min: ", "did you mean mine?"),
        ("baseline: {custom: {min: 1}}", "4:26: baseline.custom.min: ", "search.custom has none"),
        (f"baseline: {{custom: {{mine: [1]}}}}\n{knob(FOREACH)}", "4:27: baseline.custom.mine: ", "not a list"),
        ("search: {min: {values: [1], arg: model.args.x}}", "4:10: search.min: ", "unknown key"),
        ("constraints: num_worker < 3", "4:14: constraints: ", "did you mean num_workers?"),
        ("constraints: [num_workers < 3, 7]", "4:32: constraints.1: ", "must be text"),
        ("constraints: {a: 1}", "4:1: constraints: ", "must be a value or a list of values"),
        (f"{knob(FOREACH)}\nconstraints: [mine == false, min == 1]", "5:30: constraints.1: ", "did you mean mine?"),
    ],
)
def test_each_mistake_is_one_problem_at_its_place(tmp_path: Path, text: str, place: str, said: str) -> None:
    found = problems(tmp_path, text)
    assert len(found) == 1
    assert found[0].startswith(place)
    assert said in found[0]


def test_args_is_a_slip_for_arg(tmp_path: Path) -> None:
    assert any("args: unknown key; did you mean arg?" in found for found in problems(tmp_path, knob("{args: x}")))


def test_two_knobs_cannot_set_one_argument(tmp_path: Path) -> None:
    text = """\
search:
  custom:
    one: {values: [1], arg: model.args.x}
    same: {values: [1], arg: model.args.x}
    inside: {values: [1], arg: model.args.x.y}
    beside: {values: [1], arg: model.args.xy}
"""
    first, second = problems(tmp_path, text)
    assert first.startswith("7:30: search.custom.same.arg: sets model.args.x, which one sets already")
    assert second.startswith("8:32: search.custom.inside.arg: sets model.args.x.y")


def test_data_args_need_a_factory(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, knob("{values: [1], arg: data.args.x}"), "data={synthetic: {}}")
    assert "goes with data.factory only" in found


def test_all_mistakes_are_said_at_once(tmp_path: Path) -> None:
    text = "training: {sed: 1}\nconstraints: [num_worker < 3, micro_batch_size]\n" + knob(FOREACH, "a-b")
    assert [found.split(":")[0] for found in problems(tmp_path, text)] == ["4", "5", "5"]


SOUND = """\
baseline: {custom: {foreach: null}}
search:
  custom:
    foreach: {values: [true, null], arg: training.optimizer.foreach}
    impl: {values: [a, b, two-pass], arg: model.args.impl}
    norm: {values: [1.5, 2], arg: model.args.block.norm}
    size: {values: 8, arg: data.args.size}
constraints: ["norm * size <= 12", impl == two-pass or foreach == none, peak_memory_bytes <= 20GiB]
"""


def test_they_survive_the_way_to_a_trials_process() -> None:
    spec = spec_of(SOUND)
    written = spec.model_dump(mode="json", exclude_none=True)
    assert written["constraints"] == [
        "norm * size <= 12",
        "impl == two-pass or foreach == none",
        "peak_memory_bytes <= 20GiB",
    ]
    assert parse_spec(written, ".") == spec
    assert [constraint.on_knobs for constraint in spec.parsed_constraints()] == [True, True, False]
    assert spec.search.values("norm") == (1.5, 2)


def test_a_spec_that_is_silent_on_them_is_written_as_before() -> None:
    written = spec_of("search: {custom: }\nconstraints:").model_dump(mode="json", exclude_none=True)
    assert written["search"] == written["baseline"] == {}
    assert spec_of("").constraints == ()


def test_the_baseline_takes_what_is_given_then_what_the_spec_has_then_the_first_value() -> None:
    assert spec_of(SOUND).custom_baseline() == {"foreach": None, "impl": "b", "norm": 1, "size": 8}


def test_values_go_to_their_arguments_and_nothing_else_changes() -> None:
    spec = spec_of(SOUND)
    tuned = with_arguments(spec, {"foreach": None, "impl": "a", "norm": 2, "size": 4})
    assert tuned.model.args == {"impl": "a", "block": {"norm": 2}, "deep": 3}
    assert tuned.data.args == {"size": 4}
    assert tuned.training.optimizer.args == {"lr": 0.05, "foreach": None}
    assert spec == spec_of(SOUND), "the spec itself stays"
    assert with_arguments(spec, {}) == spec
    with pytest.raises(KeyError):
        with_arguments(spec, {"nobody": 1})


def test_the_schema_knows_them() -> None:
    validator = Draft202012Validator(json_schema())
    assert list(validator.iter_errors(parse_document(HEAD + SOUND).values)) == []
    for wrong in (
        knob("{values: [1], arg: nowhere}"),
        knob("{arg: model.args.x}"),
        knob("{values: [[1]], arg: model.args.x}"),
    ):
        assert list(validator.iter_errors(parse_document(HEAD + wrong).values))


def test_the_examples_of_the_scaffold_are_sound() -> None:
    text = scaffold_text()
    begin, end = text.index("  # custom:"), text.index("stability:")
    examples = "\n".join(line.replace("# ", "", 1) for line in text[begin:end].splitlines())
    spec = parse_spec(parse_document(text[:begin] + examples + "\n" + text[end:]).values, ".")
    assert list(spec.search.custom) == ["foreach"]
    assert [constraint.on_knobs for constraint in spec.parsed_constraints()] == [True, False]
