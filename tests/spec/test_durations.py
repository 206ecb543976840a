import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.spec.durations import format_duration, parse_duration, usual_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("1.5h", 5400), ("1h 30m", 5400), ("0.5s", 0.5), (" 2m ", 120)],
)
def test_reads_what_people_write(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (10, "needs a unit: 10s, 10m or 10h"),
        (1.5, "needs a unit: 1.5s, 1.5m or 1.5h"),
        ("90", "needs a unit: 90s"),
        ("12:30", "write 12m30s, or 12h30m"),
        ("1:02:03", "write 1h02m03s"),
        ("ten minutes", "'ten minutes' is not a duration; write 90s, 10m or 1h30m"),
        ("30m1h", "not a duration"),
        ("-5m", "not a duration"),
        ("", "not a duration"),
        (True, "written 90s, 10m or 1h30m"),
        (None, "written 90s, 10m or 1h30m"),
        ([10], "written 90s, 10m or 1h30m"),
        (float("nan"), "not a duration"),
        (float("inf"), "not a duration"),
        (10**400, "needs a unit"),
        ("9" * 400 + "h", "longer than 30 years"),
    ],
)
def test_says_what_to_write_instead(value: object, advice: str) -> None:
    with pytest.raises(ValueError, match=re.escape(advice)):
        parse_duration(value)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (45, "45s"), (5400, "1h30m"), (3600.5, "1h0.5s"), (60.00001, "1m0.00001s")]
)
def test_writes_the_shortest(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.floats(min_value=0, max_value=1e9))
def test_round_trip_is_exact(seconds: float) -> None:
    seconds = round(seconds, 9)
    assert parse_duration(format_duration(seconds)) == seconds


amounts = r"([0-9]{1,3}(\.[0-9]{1,12})?h)?([0-9]{1,3}(\.[0-9]{1,12})?m)?([0-9]{1,3}(\.[0-9]{1,12})?s)"


@given(st.from_regex(amounts, fullmatch=True))
def test_whatever_can_be_written_survives_a_round_trip(text: str) -> None:
    seconds = parse_duration(text)
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(("least_s", "text"), [(0, "30s"), (47.3, "1m"), (60, "1m"), (301, "10m"), (3601, "2h")])
def test_what_people_would_write_next(least_s: float, text: str) -> None:
    assert usual_duration(least_s) == text
