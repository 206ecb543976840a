from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.spec.document import MAX_NODES, DocPath, DocumentError, parse_document
from autotune.spec.scalars import dump_yaml


@pytest.mark.parametrize(
    ("written", "value"),
    [
        *[(word, word) for word in ("no", "No", "off", "yes", "on", "y", "n", "none", "NONE")],
        *[("true", True), ("True", True), ("false", False), ("FALSE", False)],
        *[("1e-3", 1e-3), ("5.0e-5", 5e-5), ("1E5", 1e5), ("1e5", 1e5), ("-.5", -0.5), ("1.", 1.0), ("+3.0", 3.0)],
        *[("010", 10), ("0o17", 15), ("0x1F", 31), ("-3", -3), ("+3", 3)],
        *[("12:30", "12:30"), ("2026-01-31", "2026-01-31"), ("1_000", "1_000"), ("0b11", "0b11"), ("1.2.3", "1.2.3")],
        *[
            ("null", None),
            ("~", None),
            ("", None),
            ("'1'", "1"),
            ('"true"', "true"),
            ("!!str 1", "1"),
            ("!!int '7'", 7),
        ],
    ],
)
def test_scalars_follow_the_core_schema(written: str, value: object) -> None:
    found = parse_document(f"a: {written}").values["a"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("a:\n\t- b", 2, 1, "tab"),
        ("a: 1\n\tb: 2", 2, 1, "tab"),
        ("a: [1, 2", 1, 9, "the list opened with [ at line 1, column 4 is not closed"),
        ("a: {b: 1\nc: 2", 2, 2, "the mapping opened with { at line 1, column 4 is not closed"),
        ("a: b: c", 1, 5, "':' too many"),
        ("a: 'x", 1, 6, "quoted text at line 1, column 4 is not closed"),
        ("a:\n  b: 1\n c: 2", 3, 2, "check the indent"),
        ("a: 1\n- b", 2, 1, "list item"),
        ("a: 1\nb", 2, 2, "without its ': '"),
        ("a: 1\n---\nb: 2", 2, 1, "second document"),
        ("a: *x", 1, 4, "no anchor"),
        ("a: @x", 1, 4, "quote it"),
        ("a: ]", 1, 4, "value is missing"),
        ("a: 1\nb: x\x00", 2, 5, "U+0000"),
        ("a: &a [*a]", 1, 4, "contains it"),
        ("a: &a {b: {<<: *a}}", 1, 4, "contains it"),
        ("a: " + "[" * 60 + "]" * 60, 1, 54, "nested too deeply"),
        ("[" * 1500, 1, 1, "nested too deeply"),
        ('a: "\\q"', 1, 6, "not YAML: found unknown escape character"),
    ],
)
def test_broken_yaml_is_located_and_explained(text: str, line: int, column: int, words: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_document(text)
    assert caught.value.position == (line, column)
    assert words in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("join", ["[{}]", "{{<<: [{}]}}"], ids=["lists", "merges"])
def test_an_alias_bomb_is_refused_at_once(join: str) -> None:
    first = "b0: &b0 {k: 1}" if "<<" in join else "b0: &b0 [1]"
    lines = [f"b{n}: &b{n} " + join.format(", ".join([f"*b{n - 1}"] * 10)) for n in range(1, 12)]
    with pytest.raises(DocumentError, match=f"more than {MAX_NODES:,} values"):
        parse_document("\n".join([first, *lines]))


def flaws(text: str) -> list[tuple[int, int, DocPath, str]]:
    found = parse_document(text).flaws
    return [(*flaw.position, flaw.path, flaw.message) for flaw in found if flaw.position]


def test_all_duplicate_keys_are_reported_with_both_places_and_the_first_counts() -> None:
    text = "a: 1\nb:\n  c: 1\n  'c': 2\n  c: 3\na: 2\n"
    assert parse_document(text).values == {"a": 1, "b": {"c": 1}}
    assert flaws(text) == [
        (4, 3, ("b", "c"), "duplicate key; it is already at line 3, column 3"),
        (5, 3, ("b", "c"), "duplicate key; it is already at line 3, column 3"),
        (6, 1, ("a",), "duplicate key; it is already at line 1, column 1"),
    ]


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ("1: a", ("1",), "write '1' with quotes"),
        ("? [a]\n: b", ("?",), "not a list or a mapping"),
        ("a: .nan", ("a",), "finite"),
        ("a: -.inf", ("a",), "finite"),
        ("a: 1e999", ("a",), "finite"),
        ("a: !!python/object:os.system x", ("a",), "tag !!python/object:os.system is not supported"),
        ("a: !!set {x}", ("a",), "tag !!set is not supported"),
        ("a: !!int x", ("a",), "cannot be read as int"),
        ("a: " + "9" * 5000, ("a",), "cannot be read as int"),
        ("a: 0x" + "f" * 5000, ("a",), "cannot be read as int"),
        ("a: {<<: 3}", ("a", "<<"), "merge key takes a mapping"),
    ],
)
def test_what_yaml_allows_and_a_spec_does_not(text: str, path: DocPath, words: str) -> None:
    ((_, _, found, message),) = flaws(text)
    assert found == path
    assert words in message


def test_merge_keys_and_anchors() -> None:
    text = "x: &x {p: 1, q: 2}\ny: &y {q: 3, r: 4}\nz: {<<: [*x, *y], r: 5}\nlist: [*x]\n'<<': plain\n"
    document = parse_document(text)
    assert document.values["z"] == {"r": 5, "p": 1, "q": 2}
    assert document.values["list"] == [{"p": 1, "q": 2}]
    assert document.values["<<"] == "plain"
    assert document.positions[("z", "p")] == (1, 11)
    assert document.flaws == []


def test_positions_of_keys_and_values() -> None:
    document = parse_document("# head\na:\n  - b: 1\n    c: [2,  3]\n")
    assert document.keys == {("a",): (2, 1), ("a", 0, "b"): (3, 5), ("a", 0, "c"): (4, 5)}
    assert document.positions[("a", 0, "b")] == (3, 8)
    assert document.positions[("a", 0, "c", 1)] == (4, 13)


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
trees = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(st.dictionaries(st.text(), trees))
def test_what_dump_yaml_writes_is_read_back_exactly(values: dict[str, Any]) -> None:
    document = parse_document(dump_yaml(values))
    assert document.values == values
    assert document.flaws == []


words = st.text("abcxyz_", min_size=1, max_size=5)
sections = st.recursive(st.integers(0, 99), lambda inner: st.dictionaries(words, inner, min_size=1), max_leaves=20)


@given(st.dictionaries(words, sections, min_size=1))
def test_every_position_points_at_its_text(values: dict[str, Any]) -> None:
    text = dump_yaml(values)
    lines = text.split("\n")
    document = parse_document(text)
    for path, (line, column) in document.keys.items():
        assert lines[line - 1][column - 1 :].startswith(f"{path[-1]}:")
    for path, (line, column) in document.positions.items():
        value: Any = values
        for key in path:
            value = value[key]
        expected = next(iter(value)) if isinstance(value, dict) else str(value)
        assert lines[line - 1][column - 1 :].startswith(expected)
