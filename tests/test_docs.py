"""The documentation says what is true: its specs, commands, messages and links.

`export/test_documented_code.py` runs its Python.
"""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from support.snippets import PAGES, ROOT, Snippet, snippets

from autotune.cli import cli
from autotune.spec import parse_spec
from autotune.spec.document import parse_document

LEAST = {"model": {"timm": "resnet18"}, "data": {"synthetic": {}}, "budget": "2m"}
NETWORK = re.compile(
    r"""<(?:script|img|iframe|source)[^>]+src=["']https?:|<link[^>]+rel=["']stylesheet["'][^>]+https?:"""
)


@pytest.mark.parametrize("snippet", list(snippets("yaml")), ids=str)
def test_a_spec_is_one(snippet: Snippet, tmp_path: Path) -> None:
    document = parse_document(snippet.text)
    assert not document.flaws
    assert isinstance(document.values, dict)
    ranks = {"execution": {"ranks_per_trial": 1}} if "execution" not in document.values else {}
    parse_spec({**LEAST, **ranks, **document.values}, tmp_path)


def commands() -> Iterator[Any]:
    """Lines that begin with the command, with what continues them; after two spaces stands a description."""
    for snippet in snippets("sh", "text"):
        text = re.sub(r"\\\n +", "", snippet.text)
        for number, line in enumerate(text.splitlines(), start=snippet.line + 1):
            if found := re.match(r"(?:\.venv/bin/)?autotune (?!.*\.\.\.)(.*?)(?: {2,}.*)?$", line):
                yield pytest.param(found[1], id=f"{snippet.page.stem}:{number}")


@pytest.mark.parametrize("line", list(commands()))
def test_a_command_is_one(line: str) -> None:
    name, *arguments = shlex.split(line, comments=True)
    arguments = arguments[: arguments.index(">")] if ">" in arguments else arguments
    cli.commands[name].make_context(name, arguments, parent=click.Context(cli, **cli.context_settings))


def test_every_command_names_a_page() -> None:
    whole = click.Context(cli, **cli.context_settings)  # a command keeps the help option that its first context gave it
    for context in (whole, *(click.Context(each, parent=whole) for each in cli.commands.values())):
        command = context.command
        named = re.search(r"docs/[\w-]+\.md", command.get_help(context))
        assert named, command.name
        assert (ROOT / named[0]).is_file()


def messages() -> Iterator[str]:
    """What the code may say, each text as far as it is constant."""
    for path in (ROOT / "autotune").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            if isinstance(node, ast.ClassDef):
                yield node.name


def test_messages_that_are_explained_exist() -> None:
    known = "\n".join(messages())
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    headings = "\n".join(re.findall(r"^### (.*)$", page, re.MULTILINE))
    explained = re.findall(r"`(.+?)`", headings)
    assert len(explained) > 30
    parts = [part.strip() for code in explained for part in code.split("…") if part.strip(" ()';:,")]
    assert [part for part in parts if part not in known] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = set((ROOT / "docs" / "index.md").read_text(encoding="utf-8").splitlines())
    assert [page.stem for page in PAGES[1:] if page.stem != "index" and page.stem not in listed] == []


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_asks_the_network_for_nothing(tmp_path: Path) -> None:
    pytest.importorskip("furo")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", str(tmp_path / "doctrees")]
    built = subprocess.run(
        [*command, str(ROOT / "docs"), str(tmp_path / "site")], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert built.returncode == 0, built.stderr
    pages = {path.stem: path.read_text(encoding="utf-8") for path in (tmp_path / "site").glob("*.html")}
    assert pages.keys() >= {page.stem for page in PAGES[1:]}
    assert [name for name, page in pages.items() if NETWORK.search(page)] == []
    assert "<code" in pages["spec"] and "micro_batch_size" in pages["spec"], "generated from the schema"
    assert all(f"autotune {name}" in pages["commands"] for name in cli.commands)
    assert "train_step" in pages["api"]
