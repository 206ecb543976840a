"""The report: all its parts, the study's own figures, and nothing of the study as anything but text."""

from __future__ import annotations

import dataclasses
import html
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.bench import Bench
from support.browser import visit
from support.simulation import good_sense
from support.studies import finished, grown, with_failure

from autotune.export import TARGETS
from autotune.records import Purpose
from autotune.report import words
from autotune.report.figures import FIGURES
from autotune.report.html import comparison_page, report_page, write_page
from autotune.report.ladder import ladder
from autotune.report.reading import Reading, read_study
from autotune.report.tried import smallest_close, tried
from autotune.search import Interrupted

SECTIONS = ["answer", "why", "knobs", "batch", "stability", "search", "circumstances"]
MALICE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> \x1b[31mred\x1b]8;;http://evil\x07 &amp; \u202e"


class Page(HTMLParser):
    """What a browser would see: sections, figures, scripts, and the text outside of them."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.sections: list[str] = []
        self.figures: list[str] = []
        self.data: dict[str, Any] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._script: str | None = None
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag == "section":
            self.sections.append(attributes["id"] or "")
        if tag == "figure":
            self.figures.append((attributes["id"] or "").removeprefix("figure-"))
        if tag in ("script", "style"):
            self._script = attributes.get("id") or tag

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is None:
            self.text += data
        elif self._script.startswith("plot-"):
            self.data[self._script.removeprefix("plot-")] = json.loads(data)


@pytest.fixture(scope="module")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> Reading:
    return finished("gpu by auto", tmp_path_factory.mktemp("gpu"))


@pytest.fixture(scope="module")
def page(gpu: Reading) -> Page:
    return Page(report_page(gpu))


def test_all_parts_in_their_order(page: Page) -> None:
    assert page.sections == SECTIONS


def test_every_figure_is_drawn_from_its_data(page: Page) -> None:
    assert set(page.figures) == set(FIGURES) == set(page.data)
    assert all(found["data"] for found in page.data.values())


def test_axes_have_titles_with_units_and_throughput_shows_its_zero(page: Page) -> None:
    for name, found in page.data.items():
        axes = [axis for key, axis in found["layout"].items() if re.fullmatch(r"[xy]axis\d*", key)]
        assert any(axis.get("title", {}).get("text") for axis in axes), name
        for axis in axes:
            if "samples per second" in axis.get("title", {}).get("text", "") and axis.get("type") != "log":
                assert axis["range"][0] <= 0, name


def test_the_figures_are_the_studys(gpu: Reading, page: Page) -> None:
    document = gpu.document
    assert f"{document['speedup']['ratio']:.2f}× as fast" in page.text
    for part in ("measured", "baseline"):
        assert words.rate(document[part]["samples_per_s"]) in page.text
    for knob, (own, _) in gpu.emitted.differences(gpu.baseline).items():
        assert knob in page.text
        assert words.setting(own) in page.text
    for check in document["stability"]["checks"]:
        assert check["name"] in page.text


def test_where_the_time_goes_adds_up_to_a_sample(gpu: Reading, page: Page) -> None:
    bars = page.data["phases"]["data"]
    whole = sum(bar["x"][-1] for bar in bars if bar["type"] == "bar")
    assert whole == pytest.approx(1000.0 / gpu.document["measured"]["samples_per_s"], rel=0.02)


def test_every_export_can_be_copied(page: Page) -> None:
    exports = [attributes for tag, attributes in page.tags if tag == "details" and attributes.get("name") == "exports"]
    assert len(exports) == len(TARGETS)


def test_the_steps_lead_from_the_baseline_to_the_best(gpu: Reading) -> None:
    rungs = ladder(gpu)
    assert rungs[0].config == gpu.baseline
    assert rungs[-1].config == gpu.emitted
    assert not rungs[0].predicted
    assert not rungs[-1].predicted
    assert all(rung.low is not None for rung in rungs if rung.predicted)


def test_a_step_from_or_to_a_prediction_is_marked(gpu: Reading, page: Page) -> None:
    rungs = ladder(gpu)
    shapes = page.data["steps"]["data"][0]["marker"]["pattern"]["shape"]
    assert any(rung.predicted for rung in rungs), "else this shows nothing"
    assert shapes == ["", *("/" if a.predicted or b.predicted else "" for a, b in pairwise(rungs)), ""]


def test_a_gate_that_could_not_tell_has_not_passed(gpu: Reading) -> None:
    stability = gpu.document["stability"]
    first, *others = stability["checks"]
    assert all(check["passed"] and check["conclusive"] for check in others)
    checks = [first | {"conclusive": False}, *others]
    reading = dataclasses.replace(gpu, document=gpu.document | {"stability": stability | {"checks": checks}})
    page = Page(report_page(reading))
    assert f"{len(others)} of {len(checks)} tests passed; 1 inconclusive." in page.text


def test_of_equals_in_memory_the_best_is_the_smallest(gpu: Reading) -> None:
    least = smallest_close(gpu)
    assert least is not None
    best = tried(gpu)[gpu.emitted]
    assert least.peak_memory_bytes < best.peak_memory_bytes or least == best


def test_nothing_is_fetched_from_anywhere(gpu: Reading, page: Page) -> None:
    policies = [a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv")]
    assert policies
    assert str(policies[0]).startswith("default-src 'none'")
    for tag, attributes in page.tags:
        assert not attributes.get("src"), tag
        assert tag not in ("link", "iframe", "object", "base", "form")
        assert str(attributes.get("href", "#")).startswith("#")


def test_what_a_study_says_is_text_and_the_page_stays_small(tmp_path: Path) -> None:
    reading = with_failure(finished("cpu", tmp_path), MALICE, MALICE * 110_000, count=3)
    content = report_page(reading)
    page = Page(content)
    assert len(content) < 8_000_000
    assert not [attributes for tag, attributes in page.tags if tag == "img" or "onerror" in attributes]
    assert "<script>alert" not in content.replace(html.escape("<script>alert"), "")
    assert "<script>alert(1)</script>" in page.text, "it can be read"
    assert "\x1b" not in content
    assert "\u202e" not in content
    assert "3 trials failed" in page.text


def test_names_are_text_too(gpu: Reading) -> None:
    document = gpu.document | {"study": MALICE}
    environment = document["environment"] | {"device": MALICE}
    reading = dataclasses.replace(gpu, document=document | {"environment": environment})
    for content in (report_page(reading), comparison_page(reading, gpu)):
        page = Page(content)
        assert "<script>alert(1)</script>" in page.text
        assert not [tag for tag, _ in page.tags if tag == "img"]
        scripts = [attributes for tag, attributes in page.tags if tag == "script"]
        assert all(attributes.get("type") == "application/json" or not attributes for attributes in scripts)


def test_five_hundred_trials_fit_into_eight_megabytes(tmp_path: Path) -> None:
    reading = grown(finished("gpu by auto", tmp_path), 500)
    assert len(reading.searched) == 500
    content = report_page(reading)
    assert len(content.encode()) < 8_000_000
    assert set(Page(content).figures) == set(FIGURES)


def stopped(folder: Path, at: int) -> Reading:
    bench = Bench(folder)
    backend = bench.backend(good_sense)
    backend.interrupt_at = at
    with pytest.raises(Interrupted):
        bench.search(backend)
    return read_study(bench.folder)


@pytest.mark.parametrize("at", [2, 3, 9])
def test_a_study_that_was_stopped_or_still_runs(tmp_path: Path, at: int) -> None:
    page = Page(report_page(stopped(tmp_path, at)))
    assert page.sections == SECTIONS
    assert "unconfirmed" in page.text


def test_where_the_baseline_stands_it_says_so(tmp_path: Path) -> None:
    page = Page(report_page(finished("baseline", tmp_path)))
    assert "Keep your current settings" in page.text
    assert page.sections == SECTIONS
    assert "steps" not in page.figures
    assert "The result keeps the baseline" in page.text


@pytest.mark.parametrize(
    ("amp_dtype", "said"),
    [
        ("bf16", "The result changes the numerics, and the study ended before it was compared"),
        ("none", "The result computes like the fp32 reference, so no reference ran"),
    ],
)
def test_where_nothing_was_compared_with_the_reference_it_says_why(gpu: Reading, amp_dtype: str, said: str) -> None:
    """Once "nothing that was emitted changes the arithmetic", of bf16 whose reference runs had found no time."""
    compared = (Purpose.PROBE, Purpose.REFERENCE)
    records = tuple(record for record in gpu.records if record.purpose not in compared)
    assert len(records) < len(gpu.records)
    config = gpu.baseline.replace(fp32_precision="ieee", amp_dtype=amp_dtype).to_dict()
    page = report_page(dataclasses.replace(gpu, records=records, document=gpu.document | {"config": config}))
    assert said in page


def test_a_space_of_one_knob(tmp_path: Path) -> None:
    knobs = ("micro_batch_size", "num_workers", "memory_format", "compile", "fused_optimizer", "num_threads")
    held = dict(zip(knobs, (32, 0, "contiguous", "none", False, 4), strict=True))
    bench = Bench(tmp_path)
    bench.search(bench.backend(), search=held | {"amp_dtype": ["none", "bf16"]})
    page = Page(report_page(read_study(bench.folder)))
    assert page.sections == SECTIONS


def test_two_studies_are_compared(tmp_path: Path, gpu: Reading) -> None:
    other = finished("cpu", tmp_path)
    page = Page(comparison_page(gpu, other))
    assert page.sections == ["results", "settings", "differences", "figures"]
    for reading in (gpu, other):
        assert words.rate(reading.document["measured"]["samples_per_s"]) in page.text
        assert reading.document["environment"]["device"] in page.text
    assert {"throughput", "phases", "steps-1", "steps-2", "history-1", "history-2"} <= set(page.figures)


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1400])
def test_in_a_browser(tmp_path: Path, gpu: Reading, width: int) -> None:
    path = tmp_path / "report.html"
    write_page(path, report_page(gpu))
    seen = visit(path.as_uri(), tmp_path, width=width, wait_ms=30_000)
    assert seen.console == ()
    assert seen.requests == ()
    assert f'data-drawn="{len(FIGURES)}"' in seen.dom
    for identity in SECTIONS:
        assert f'<section id="{identity}"' in seen.dom
    assert seen.dom.count('class="main-svg"') >= len(FIGURES)


@pytest.mark.browser
def test_a_comparison_in_a_browser(tmp_path: Path, gpu: Reading) -> None:
    path = tmp_path / "report.html"
    write_page(path, comparison_page(gpu, finished("cpu", tmp_path)))
    seen = visit(path.as_uri(), tmp_path, wait_ms=30_000)
    assert seen.console == ()
    assert seen.requests == ()
    assert "data-drawn=" in seen.dom
