from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from autotune.spec import json_schema, scaffold_text
from autotune.spec.document import parse_document

SCHEMA = json_schema()
VALIDATOR = Draft202012Validator(SCHEMA)
SMALL = "model: {timm: resnet18}\ndata: {synthetic: {}}\nbudget: 10m\n"


def errors(text: str) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(parse_document(text).values)]


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert SCHEMA["title"] == "autotune spec"


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "specs").glob("*.yaml")), ids=lambda path: path.stem
)
def test_it_accepts_every_spec(path: Path) -> None:
    assert errors(path.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        scaffold_text(),
        *[f"{SMALL}search: {{micro_batch_size: {form}}}" for form in ("8", "[8, 16]", "{min: 8, max: 64}")],
        *[f"{SMALL}search: {{num_workers: {form}}}" for form in ("0", "[0]", "{min: 0, max: 8, step: 2}")],
        *[f"{SMALL}search: {{amp_dtype: {form}}}" for form in ("none", "[none, bf16]", "")],
        *[f"{SMALL}search: {{pin_memory: {form}}}" for form in ("true", "[false, true]")],
        *[
            f"{SMALL}training: {{effective_batch_size: {form}}}"
            for form in ("baseline", "free", "32", "{min: 8, max: 64}")
        ],
        *[f"{SMALL}training: {{loss: {form}}}" for form in ("cross_entropy", "a.b:c")],
        *[f"{SMALL}{section}:" for section in ("training", "search", "baseline", "strategy")],
        *[SMALL.replace("10m", budget) for budget in ("90s", "1h30m", "1.5h", "1h 30m")],
        f"{SMALL}training: {{optimizer: {{name: adamw, betas: [0.9, 0.99]}}}}",
        f'{SMALL}training: {{optimizer: "a.b:c"}}',
        f'{SMALL}training: {{optimizer: {{factory: "a.b:c", lr: 0.1}}}}',
        f"{SMALL}training: {{optimizer: }}",
        SMALL.replace("{synthetic: {}}", '{synthetic: {}, collate: "a:b"}'),
    ],
)
def test_it_accepts_what_people_may_write(text: str) -> None:
    assert errors(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "model: {timm: a}\ndata: {synthetic: {}}",
        f"{SMALL}zzz: 1",
        SMALL.replace("10m", "10"),
        SMALL.replace("10m", "'10'"),
        f"{SMALL}search: {{micro_batch_size: []}}",
        f"{SMALL}search: {{micro_batch_size: 0}}",
        f"{SMALL}search: {{micro_batch_size: {{min: 0, max: 8}}}}",
        f"{SMALL}search: {{amp_dtype: [no]}}",
        f"{SMALL}search: {{pin_memory: no}}",
        f"{SMALL}training: {{lr: 1}}",
        f"{SMALL}training: {{effective_batch_size: fre}}",
    ],
)
def test_it_refuses_what_the_loader_refuses(text: str) -> None:
    assert errors(text)


def test_knobs_are_described_wherever_they_stand() -> None:
    definitions: dict[str, Any] = SCHEMA["$defs"]
    for section in ("BaselineSpec", "SearchSpec"):
        assert all(field["description"] for field in definitions[section]["properties"].values())
