"""The dashboard as a browser meets it."""

from __future__ import annotations

import base64
import dataclasses
import http.client
import json
import os
import re
import shutil
import socket
import sqlite3
import stat
import threading
import tracemalloc
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from optuna.artifacts import get_all_artifact_meta
from support.bench import Bench
from support.browser import visit
from support.simulation import good_sense
from support.studies import finished

from autotune.errors import EnvironmentFailure, SpecError
from autotune.report.dashboard import Server, furnish
from autotune.report.dashboard.note import SIGNATURE, note_on
from autotune.report.dashboard.pictures import PICTURES
from autotune.report.reading import Reading, read_study
from autotune.search import Interrupted
from autotune.search.storage import stored_study
from autotune.store import StudyFolder


@contextmanager
def served(folder: StudyFolder, **options: Any) -> Iterator[Server]:
    with Server(folder, **options) as server:
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            yield server
        finally:
            server.stop()
            thread.join()


def ask(server: Server, path: str, method: str = "GET", body: Any = None, **headers: str) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.url.rstrip("/") + path, data=data, method=method)
    request.add_header("Content-Type", "application/json")
    for name, value in headers.items():
        request.add_header(name, value)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            content = response.read()
            is_json = response.headers.get_content_type() == "application/json"
            return response.status, json.loads(content) if is_json and content else content
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def detail(server: Server) -> dict[str, Any]:
    _, listed = ask(server, "/api/studies")
    (study,) = listed["study_summaries"]
    status, found = ask(server, f"/api/studies/{study['study_id']}")
    assert status == 200
    return dict(found)


def emitted_trials(reading: Reading) -> set[int | None]:
    return {record.optuna_trial for record in reading.searched if record.result.config == reading.emitted}


def test_its_best_trial_is_the_emitted_one_and_it_carries_the_result(tmp_path: Path) -> None:
    reading = finished("gpu", tmp_path)
    with served(reading.folder) as server:
        found = detail(server)
        assert {trial["number"] for trial in found["best_trials"]} <= emitted_trials(reading)
        assert found["objective_names"] == ["samples_per_s"]
        assert SIGNATURE in found["note"]["body"]
        assert {plot["id"] for plot in found["plotly_graph_objects"]} >= {"throughput", "phases", "history"}
        assert server.url.startswith("http://127.0.0.1:")


def test_the_first_page_is_the_studys(tmp_path: Path) -> None:
    reading = finished("cpu", tmp_path)
    with served(reading.folder) as server:
        with urllib.request.urlopen(server.url, timeout=30) as response:
            assert response.url.endswith("/dashboard/studies/1")
        assert ask(server, "/api/studies/1/param_importances")[0] == 200


def test_nothing_is_written_unless_asked_for(tmp_path: Path) -> None:
    reading = finished("cpu", tmp_path)
    before = reading.folder.database.read_bytes()
    with served(reading.folder) as server:
        for method in ("POST", "PUT", "DELETE"):
            assert ask(server, "/api/studies/1", method, {})[0] == 403
            assert ask(server, "/api/studies/1/note", method, {"body": "mine", "version": 9})[0] == 403
        assert ask(server, "/api/studies", Host="example.org")[0] == 403
        assert ask(server, "/api/studies", Origin="http://example.org")[0] == 403
        detail(server)
    assert reading.folder.database.read_bytes() == before


def test_edits_go_to_the_study_and_stay(tmp_path: Path) -> None:
    reading = finished("cpu", tmp_path)
    furnish(reading.folder)
    with served(reading.folder, allow_edits=True) as server:
        version = detail(server)["note"]["version"] + 1
        assert ask(server, "/api/studies/1/note", "PUT", {"body": "mine", "version": version})[0] == 204
    furnish(reading.folder)
    with served(reading.folder) as server:
        assert detail(server)["note"]["body"] == "mine"


def test_not_even_edits_touch_studies_and_trials(tmp_path: Path) -> None:
    reading = finished("cpu", tmp_path)
    with served(reading.folder, allow_edits=True) as server:
        for method, path in (
            ("DELETE", "/api/studies/1"),
            ("POST", "/api/studies"),
            ("POST", "/api/studies/1/rename"),
            ("POST", "/api/trials/1/tell"),
        ):
            assert ask(server, path, method, {"study_name": "x", "directions": ["maximize"]})[0] == 403, path
        assert len(detail(server)["trials"]) == len(reading.searched)


def test_furnished_again_nothing_piles_up(tmp_path: Path) -> None:
    reading = finished("gpu", tmp_path)

    def state() -> tuple[dict[str, Any], set[str]]:
        with stored_study(reading.folder, writable=False) as study:
            attributes = study._storage.get_study_system_attrs(study._study_id)
        return attributes, {path.name for path in reading.folder.artifacts.iterdir()}

    furnish(reading.folder)
    attributes, files = state()
    assert len(files) == 2
    assert all((reading.folder.artifacts / file).read_bytes().startswith(b"\x89PNG") for file in files)
    furnish(reading.folder)
    again, files_again = state()
    assert files_again == files
    assert again.keys() == attributes.keys()


def test_pictures_and_artifacts_of_a_study_from_elsewhere_stay_inside_it(tmp_path: Path) -> None:
    reading = finished("cpu", tmp_path)
    folder, precious = reading.folder, tmp_path / "precious"
    precious.write_text("precious")
    folder.artifacts.mkdir()
    for name in PICTURES:
        (folder.artifacts / f"{name}.png").symlink_to(precious)
    furnish(folder)
    with stored_study(folder, writable=False) as study:
        first, second = (meta.artifact_id for meta in get_all_artifact_meta(study))
        number = study._study_id
    (folder.artifacts / first).unlink()
    (folder.artifacts / first).symlink_to(precious)
    with served(folder) as server:
        assert ask(server, f"/artifacts/{number}/{first}")[0] >= 400
        assert ask(server, f"/artifacts/{number}/{second}")[0] == 200
    furnish(folder)
    assert precious.read_text() == "precious"
    assert (folder.artifacts / first).read_bytes().startswith(b"\x89PNG")
    _rename_artifacts(folder, "../../precious")
    furnish(folder)
    assert precious.read_text() == "precious"
    _rename_artifacts(folder, None)
    with pytest.raises(EnvironmentFailure, match=r"the Optuna data of .* is damaged"):
        furnish(folder)
    folder.artifacts.rename(tmp_path / "elsewhere")
    folder.artifacts.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EnvironmentFailure, match="is a link to another folder"):
        furnish(folder)
    with served(folder) as server:
        assert ask(server, f"/artifacts/{number}/{second}")[0] >= 400


def _rename_artifacts(folder: StudyFolder, name: str | None) -> None:
    with stored_study(folder, writable=True) as study:
        storage, number = study._storage, study._study_id
        for key, value in storage.get_study_system_attrs(number).items():
            if key.startswith("artifacts:"):
                changed = json.dumps(json.loads(value) | {"artifact_id": name} if name else [])
                storage.set_study_system_attr(number, key, changed)


def test_a_search_goes_on_after_it_was_furnished(tmp_path: Path) -> None:
    bench = Bench(tmp_path, on_disk=True)
    backend = bench.backend(good_sense, noise=0.002)
    backend.interrupt_at = 8
    with pytest.raises(Interrupted):
        bench.search(backend, budget="2m")
    furnish(bench.folder)
    again = bench.search(bench.backend(good_sense, noise=0.002), budget="2m")
    assert again.best["stability"]["verdict"] == "stable"


def test_it_follows_a_study_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autotune.report.dashboard.server._LEAST_AGE_S", 0.0)
    bench = Bench(tmp_path, on_disk=True)
    counts: list[int] = []
    bests: list[set[int]] = []
    backend = bench.backend(good_sense)
    plain_run = backend.run

    def run(*arguments: Any, **options: Any) -> Any:
        if len(backend.requests) in (4, 7):  # the next trial has begun
            with served(bench.folder) as server:
                found = detail(server)
            counts.append(len(found["trials"]))
            bests.append({trial["number"] for trial in found["best_trials"]})
            assert bests[-1] <= emitted_trials(read_study(bench.folder))
        return plain_run(*arguments, **options)

    monkeypatch.setattr(backend, "run", run)
    backend.interrupt_at = 8
    with pytest.raises(Interrupted):
        bench.search(backend)
    assert counts == [5, 8]
    assert all(bests)


def test_before_anything_is_measured_it_opens_all_the_same(tmp_path: Path) -> None:
    reading = finished("cpu", tmp_path)
    reading.folder.best.unlink()
    with served(reading.folder) as server:
        assert len(detail(server)["trials"]) == len(reading.searched)


def test_a_missing_database_is_said_and_not_made(tmp_path: Path) -> None:
    reading = finished("cpu", tmp_path)
    reading.folder.database.unlink()
    with served(reading.folder) as server:
        assert ask(server, "/api/studies")[0] == 503
    assert not reading.folder.database.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to the superuser")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    reading = finished("cpu", tmp_path)
    reading.folder.path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with served(reading.folder) as server:
            assert detail(server)["best_trials"]
    finally:
        reading.folder.path.chmod(stat.S_IRWXU)


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    reading = finished("cpu", tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SpecError, match="is taken; 0, the default"):
            Server(reading.folder, port=taken.getsockname()[1])


def test_names_in_the_note_are_text(tmp_path: Path) -> None:
    reading = finished("cpu", tmp_path)
    checks = [{"name": "<img src=x> | [a](b)", "passed": False}]
    document = reading.document | {"study": "<script>alert(1)</script> `x`"}
    document["stability"] = document["stability"] | {"refused": [{"config": document["config"], "checks": checks}]}
    body = note_on(dataclasses.replace(reading, document=document))
    assert "<script" not in body
    assert "<img" not in body
    assert "\\| \\[a\\]\\(b\\)" in body


def test_the_note_says_what_a_changed_effective_batch_means(tmp_path: Path) -> None:
    reading = finished("cpu", tmp_path)
    larger = reading.baseline.replace(micro_batch_size=4 * reading.baseline.micro_batch_size).to_dict()
    body = note_on(dataclasses.replace(reading, document=reading.document | {"config": larger}))
    assert "learning rate by 4" in body


@pytest.mark.browser
def test_in_a_browser(tmp_path: Path) -> None:
    reading = finished("gpu", tmp_path)
    with served(reading.folder) as server:
        seen = visit(server.url, tmp_path, wait_ms=20_000)
        own = server.url
    assert not [line for line in seen.console if "error" in line.lower()]
    assert not [address for address in seen.requests if not address.startswith((own, "data:", "blob:"))]
    (number,) = emitted_trials(reading)
    assert "Best Trial" in seen.dom
    assert f"number={number}" in seen.dom


def test_a_folder_with_an_odd_name(tmp_path: Path) -> None:
    reading = finished("cpu", tmp_path)
    odd = tmp_path / "a {b} %20 ?#"
    shutil.move(reading.folder.path, odd)
    with served(StudyFolder(odd)) as server:
        assert detail(server)["best_trials"]


@contextmanager
def edited(tmp_path: Path) -> Iterator[tuple[Server, Reading]]:
    reading = finished("cpu", tmp_path)
    reading.folder.artifacts.mkdir()
    with served(reading.folder, allow_edits=True) as server:
        yield server, reading


def upload(name: str, content: bytes) -> dict[str, str]:
    return {"file": f"data:;base64,{base64.b64encode(content).decode()}", "filename": name}


def test_an_artifact_is_a_file_to_save_and_never_a_page_of_this_site(tmp_path: Path) -> None:
    with edited(tmp_path) as (server, _):
        status, answer = ask(server, "/api/artifacts/1", "POST", upload("page.html", b"<script>alert(1)</script>"))
        assert status == 201
        url = f"{server.url}artifacts/1/{answer['artifact_id']}"
        with urllib.request.urlopen(url, timeout=30) as response:
            headers, content = response.headers, response.read()
    assert content == b"<script>alert(1)</script>"
    assert headers["Content-Disposition"] == "attachment"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert headers["Access-Control-Allow-Origin"] is None


NOTE, ATTRIBUTES, ARTIFACT = "/api/studies/1/note", "/api/trials/{open}/user-attrs", "/api/artifacts/1"


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("PUT", NOTE, b"", 400),
        ("PUT", NOTE, b"{", 400),
        ("PUT", NOTE, b"[1]", 400),
        ("PUT", NOTE, b"\xff\xfe", 400),
        ("PUT", NOTE, b"[" * 100_000, 400),
        ("PUT", NOTE, b'{"body": 1, "version": 1}', 400),
        ("PUT", NOTE, b'{"body": "x", "version": "y"}', 400),
        ("PUT", NOTE, b'{"body": "x", "version": -1}', 400),
        ("PUT", NOTE, b'{"body": "\\ud800", "version": 9}', 400),
        ("PUT", NOTE, b'{"body": "x", "version": NaN}', 400),
        ("PUT", NOTE, b'{"body": "x", "version": ' + b"9" * 5000 + b"}", 400),
        ("PUT", "/api/studies/2/note", b'{"body": "x", "version": 1}', 404),
        ("PUT", f"/api/studies/{10**40}/note", b'{"body": "x", "version": 1}', 404),
        ("PUT", "/api/studies/1/99999/note", b'{"body": "x", "version": 1}', 404),
        ("POST", ATTRIBUTES, b'{"user_attrs": [1]}', 400),
        ("POST", ATTRIBUTES, b'{"user_attrs": {}}', 400),
        ("POST", ATTRIBUTES, b'{"user_attrs": {"a": NaN}}', 400),
        ("POST", "/api/trials/99999/user-attrs", b'{"user_attrs": {"a": 1}}', 404),
        ("POST", "/api/trials/1/user-attrs", b'{"user_attrs": {"a": 1}}', 409),
        ("POST", ARTIFACT, b"{}", 400),
        ("POST", ARTIFACT, b'{"file": 1}', 400),
        ("POST", ARTIFACT, b'{"file": "x"}', 400),
        ("POST", ARTIFACT, b'{"file": "data:;base64,%%%"}', 400),
        ("POST", ARTIFACT, b'{"file": "data:;base64,aGk"}', 400),
        ("POST", ARTIFACT, b'{"file": "data:;base64,aGk=", "filename": 7}', 400),
        ("POST", "/api/artifacts/7", b'{"file": "data:;base64,aGk="}', 404),
        ("POST", "/api/artifacts/1/1", b'{"file": "data:;base64,aGk="}', 409),
        ("DELETE", "/api/artifacts/1/00-11", b"", 404),
        ("DELETE", "/api/artifacts/7/00-11", b"", 404),
        ("DELETE", "/api/artifacts/1/1/00-11", b"", 409),
    ],
)
def test_a_malformed_edit_is_the_browsers_fault(
    shared: tuple[Server, int], method: str, path: str, body: bytes, expected: int, capfd: pytest.CaptureFixture[str]
) -> None:
    server, open_trial = shared
    assert raw(server, method, path.format(open=open_trial), body)[0] == expected
    assert "Traceback" not in "".join(capfd.readouterr())
    assert ask(server, "/api/studies")[0] == 200


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, int]]:
    """A server that takes edits, and the id of a trial that has not ended."""
    with edited(tmp_path_factory.mktemp("shared")) as (server, reading):
        with stored_study(reading.folder, writable=True) as study:
            open_trial = study.ask()._trial_id
        yield server, open_trial


def raw(server: Server, method: str, path: str, body: bytes, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_attributes_of_an_open_trial_are_taken(shared: tuple[Server, int]) -> None:
    server, open_trial = shared
    status, _ = raw(server, "POST", f"/api/trials/{open_trial}/user-attrs", b'{"user_attrs": {"mine": [1, {"a": 2}]}}')
    assert status == 204


@pytest.mark.parametrize("name", ["Origin", "Referer"])
@pytest.mark.parametrize("url", ["http://[", "http://[::1", "//[", "http://127.0.0.1:99999999/["])
def test_an_address_that_is_none_is_foreign(shared: tuple[Server, int], name: str, url: str) -> None:
    assert raw(shared[0], "PUT", NOTE, b"{}", **{name: url})[0] == 403


@pytest.mark.parametrize(("length", "expected"), [(None, 411), ("x", 411), ("-5", 411), ("9" * 30, 411)])
def test_an_edit_without_a_length_is_refused(shared: tuple[Server, int], length: str | None, expected: int) -> None:
    stated = "" if length is None else f"Content-Length: {length}\r\n"
    lines = f"PUT {NOTE} HTTP/1.1\r\nHost: 127.0.0.1:{shared[0].port}\r\nTransfer-Encoding: chunked\r\n{stated}\r\n"
    with socket.create_connection(("127.0.0.1", shared[0].port), timeout=30) as client:
        client.sendall(lines.encode())
        assert client.recv(100).split()[1] == str(expected).encode()


def test_who_says_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.setattr("autotune.report.dashboard.server._Quiet.timeout", 0.2)
    with edited(tmp_path) as (server, _), socket.create_connection(("127.0.0.1", server.port), timeout=30) as silent:
        assert silent.recv(1) == b"", "the server closes it"
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as half:
            head = f"PUT {NOTE} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Length: 10\r\n\r\n12"
            half.sendall(head.encode())
            assert half.recv(100).split()[1] == b"408"
    assert "Traceback" not in "".join(capfd.readouterr())


def test_an_upload_costs_little_memory_and_a_huge_one_nothing(tmp_path: Path) -> None:
    with edited(tmp_path) as (server, _):
        tracemalloc.start()
        try:
            assert ask(server, ARTIFACT, "POST", upload("a.bin", b"a" * (5 * 2**20)))[0] == 201
            peak = tracemalloc.get_traced_memory()[1]
            huge = b"x" * (40 * 2**20)
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            assert raw(server, "POST", ARTIFACT, huge)[0] == 413
            peak_of_huge = tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()
    assert peak < 80 * 2**20
    assert peak_of_huge < 30 * 2**20, "less than the body"


def test_a_damaged_database_is_said_in_a_line(tmp_path: Path) -> None:
    folder = finished("cpu", tmp_path).folder
    with closing(sqlite3.connect(folder.database)) as connection:
        connection.execute("update trials set state = 'x'")
        connection.commit()
    with served(folder) as server:
        status, said = ask(server, "/api/studies")
    assert status == 503
    assert re.fullmatch(rb"the Optuna data of [^\n]* is damaged: [^\n]*\n", said)
