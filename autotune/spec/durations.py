"""Durations as people write them: `90s`, `10m`, `1h30m`."""

from __future__ import annotations

import math
import re

_UNIT_S = {"h": 3600.0, "m": 60.0, "s": 1.0}
_DURATION = re.compile(r"(?:(?P<h>\d+(?:\.\d+)?)h)?(?:(?P<m>\d+(?:\.\d+)?)m)?(?:(?P<s>\d+(?:\.\d+)?)s)?", re.ASCII)
_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_CLOCK = re.compile(r"(\d+):(\d\d)(?::(\d\d))?", re.ASCII)
_LONGEST_S = 1e9
"""About 30 years: longer durations would lose fractions of a second when they are written and read again."""


def parse_duration(text: object) -> float:
    """Seconds in `text`. Raises ValueError that says what to write instead."""
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise ValueError("a duration is written 90s, 10m or 1h30m")
    written = re.sub(r"\s", "", str(text))
    match = _DURATION.fullmatch(written)
    if match is None or not match.group(0):
        raise ValueError(_advice(str(text).strip()))
    seconds = math.fsum(float(amount) * _UNIT_S[unit] for unit, amount in match.groupdict().items() if amount)
    if seconds > _LONGEST_S:
        raise ValueError(f"{_short(written)} is longer than 30 years")
    return seconds


def _advice(written: str) -> str:
    if _NUMBER.fullmatch(written):
        number = _short(written)
        return f"a duration needs a unit: {number}s, {number}m or {number}h"
    if clock := _CLOCK.fullmatch(written):
        first, second, third = clock.groups()
        if third:
            return f"{written} is not a duration; write {first}h{second}m{third}s"
        return f"{written} is not a duration; write {first}m{second}s, or {first}h{second}m"
    return f"{_short(written)!r} is not a duration; write 90s, 10m or 1h30m"


def _short(text: str) -> str:
    return text if len(text) <= 20 else f"{text[:19]}…"


_USUAL_S = (30, 60, 120, 180, 300, 600, 900, 1200, 1800, 2700, 3600)


def usual_duration(least_s: float) -> str:
    """The next round duration from `least_s` on: 47.3 → `1m`."""
    hours = math.ceil(max(least_s, 0.0) / 3600) * 3600
    return format_duration(float(next((seconds for seconds in _USUAL_S if seconds >= least_s), hours)))


def format_duration(seconds: float) -> str:
    """The exact inverse of `parse_duration`, with as few digits as possible. 5400.0 → `1h30m`."""
    whole = _units(seconds, 0)
    return next(
        (text for text in (whole, *(_units(seconds, n) for n in range(1, 60))) if _reads_as(text, seconds)), whole
    )


def _units(seconds: float, decimals: int) -> str:
    """`seconds` in hours, minutes and seconds; the seconds have `decimals` decimals."""
    hours, rest = divmod(seconds, 3600)
    minutes, rest = divmod(rest, 60)
    last = f"{rest:.{decimals}f}"
    parts = [f"{int(hours)}h" * bool(hours), f"{int(minutes)}m" * bool(minutes), f"{last}s" * bool(float(last))]
    return "".join(parts) or "0s"


def _reads_as(text: str, seconds: float) -> bool:
    return parse_duration(text) == seconds
