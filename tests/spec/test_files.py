from pathlib import Path

import pytest

from autotune.errors import SpecError
from autotune.spec import load_spec


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "1:1: the file is empty"),
        (b"# only a comment\n", "1:1: the file is empty"),
        (b"- 1\n", "1:1: a spec is a mapping of keys to values (`model: …`), not a list"),
        (b"# x\nhello\n", "2:1: a spec is a mapping"),
        (b"a: 1\nb: \xfc\n", "2:4: the byte 0xFC is not UTF-8"),
        ("a: 1".encode("utf-16"), "1:1: the byte 0xFF is not UTF-8"),
        (bytes(range(32)) * 9, "1:1: the character U+0000"),
        (b"a: [1", "1:6: the list opened"),
        (b"x" * 2_000_000, "over 1 MB"),
    ],
)
def test_files_that_are_no_spec(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes(content)
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    (problem,) = caught.value.problems
    assert words in problem
    assert problem.startswith(f"{path}:")


@pytest.mark.parametrize(
    ("name", "words"), [("", "this is a folder"), ("gone.yaml", "no such file"), ("a\0b", "null byte")]
)
def test_paths_that_are_no_file(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        load_spec(tmp_path / name)


def test_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SpecError, match=r"spec\.yaml: cannot be read: Permission denied"):
        load_spec(tmp_path / "spec.yaml")
