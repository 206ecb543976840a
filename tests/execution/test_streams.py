"""The controller's ends of a trial's pipes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from autotune.execution.streams import Drain, LineReader


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Read and write end; the reader under test owns the first."""
    read, write = os.pipe()
    yield read, write
    os.close(write)


Pipe = tuple[int, int]


def say(write: int, data: bytes) -> None:
    """Small enough for a pipe that nobody reads yet."""
    assert os.write(write, data) == len(data)


def test_lines_come_whole_and_in_order(pipe: Pipe) -> None:
    reader = LineReader(pipe[0])
    say(pipe[1], b"one\ntwo\n")
    assert reader.read() == [b"one", b"two"]
    assert reader.read() == []
    reader.close()


def test_reading_never_waits(pipe: Pipe) -> None:
    reader = LineReader(pipe[0])
    assert reader.read() == []
    reader.close()


def test_a_line_may_come_in_pieces(pipe: Pipe) -> None:
    reader = LineReader(pipe[0])
    for piece in (b'{"a"', b": 1"):
        say(pipe[1], piece)
        assert reader.read() == []
    say(pipe[1], b'}\n{"b"')
    assert reader.read() == [b'{"a": 1}']
    say(pipe[1], b": 2}\n")
    assert reader.read() == [b'{"b": 2}']
    reader.close()


def test_a_character_may_be_torn(pipe: Pipe) -> None:
    reader = LineReader(pipe[0])
    first, second = "ü".encode()[:1], "ü".encode()[1:]
    say(pipe[1], first)
    assert reader.read() == []
    say(pipe[1], second + b"\n")
    assert reader.read()[0].decode() == "ü"
    reader.close()


def test_a_torn_last_line_is_never_handed_out() -> None:
    read, write = os.pipe()
    reader = LineReader(read)
    say(write, b'{"event": "block"}\n{"event": "res')
    os.close(write)
    assert reader.read() == [b'{"event": "block"}']
    assert reader.read() == []
    reader.close()


def test_a_line_longer_than_a_pipe_comes_whole(pipe: Pipe) -> None:
    reader = LineReader(pipe[0])
    piece = b"x" * 50_000
    for _ in range(3):
        say(pipe[1], piece)
        assert reader.read() == []
    say(pipe[1], b"\n")
    assert reader.read() == [piece * 3]
    reader.close()


def test_a_selector_can_wait_for_it(pipe: Pipe) -> None:
    reader = LineReader(pipe[0])
    assert reader.fileno() == pipe[0]
    reader.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(pipe[0])


def test_what_was_printed_is_kept(pipe: Pipe) -> None:
    drain = Drain(pipe[0])
    say(pipe[1], b"hello\n")
    drain.read()
    say(pipe[1], b"world")
    assert drain.tail() == "hello\nworld"
    assert drain.tail() == "hello\nworld"
    drain.close()


def test_only_the_end_of_endless_output_is_kept(pipe: Pipe) -> None:
    drain = Drain(pipe[0])
    for number in range(20):
        say(pipe[1], f"{number:04d}".encode() * 10_000)
        drain.read()
    say(pipe[1], b"the end")
    tail = drain.tail()
    assert len(tail) == 16_384
    assert tail.endswith("0019the end")
    assert "0018" not in tail
    drain.close()


def test_one_burst_is_bounded_too(pipe: Pipe) -> None:
    drain = Drain(pipe[0])
    say(pipe[1], b"x" * 60_000 + b"y")
    assert drain.tail() == "x" * 16_383 + "y"
    drain.close()


def test_bytes_that_are_no_text_are_replaced(pipe: Pipe) -> None:
    drain = Drain(pipe[0])
    say(pipe[1], b"\xff ok \x1b[31m\x00")
    assert drain.tail() == "\ufffd ok \x1b[31m\x00"
    drain.close()


def test_a_process_that_printed_nothing() -> None:
    read, write = os.pipe()
    os.close(write)
    drain = Drain(read)
    assert drain.tail() == ""
    drain.close()
