"""Sphinx: `sphinx-build -W docs build/docs`. A reader's browser fetches nothing from the network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from generated import command_reference, spec_reference

import autotune
from autotune.cli import cli
from autotune.spec import json_schema

project = "autotune"
author = "The autotune contributors"
copyright = f"2026, {author}"
version = release = autotune.__version__
html_title = "autotune"

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
root_doc = "index"
exclude_patterns = ["_build"]

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["pages.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "friendly"
pygments_dark_style = "monokai"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
add_module_names = False
python_maximum_signature_line_length = 90
default_role = "literal"  # docstrings have Markdown's backticks


def fill_in(_app: Any, _page: str, source: list[str]) -> None:
    """Put the generated parts where their marks stand."""
    for mark, make in (("spec", lambda: spec_reference(json_schema())), ("commands", lambda: command_reference(cli))):
        if (comment := f"<!-- generated: {mark} -->") in source[0]:
            source[0] = source[0].replace(comment, make())


def setup(app: Any) -> None:
    app.connect("source-read", fill_in)
