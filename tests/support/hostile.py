"""Values that somebody who means harm would put into a file, and the places where they may stand."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

MARK = "PWNED"
"""In every hostile text; none of them is a name, so that it may stand inside literals and comments alone."""
PAYLOADS = (
    f'__import__("os").system("touch {MARK}")',
    f'"); __import__("os").system("touch {MARK}"); ("',
    f"'); __import__('os').system('touch {MARK}'); ('",
    f'"""\n__import__("os").system("touch {MARK}")\n"""',
    f"1; touch {MARK}",
    f"$(touch {MARK})",
    f"`touch {MARK}`",
    f"'; touch {MARK}; '",
    f"a\ntouch {MARK}\n",
    f"a\\\ntouch {MARK}",
    f"a && touch {MARK} #",
    f"--resume={MARK}",
    f"-{MARK}",
    *(
        f"a{separator}use_cpu: {MARK}{separator}touch {MARK}"
        for separator in "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
    ),
    f"</script></style></title><img {MARK} src=x onerror=alert(1)>",
    f"\"'><a {MARK} href=javascript:alert(1) onclick=alert(1)>",
    f"<!-- --><svg/onload={MARK}> [{MARK}](javascript:alert(1))",
    f"a: &a {MARK}",
    f"!!python/object/apply:os.system [touch {MARK}]",
    f"\u202e{MARK}\u2066 #",
    f"\x00{MARK}\x1b]0;",
    f"\ud800{MARK} x",
    f"%(prog)s %({MARK})d {{{MARK}}}",
    f"{MARK}.{MARK}:import",
    f"..{MARK}:a;b",
    f"cuda:0, {MARK}",
    f"\\N{{{MARK}}} \\x \\",
)
_HOSTILE_CHARACTERS = "\"'`$;\\\n\r\t{}[]()#&|:%-=<>! \x00\x1b\x85\u2028\u2029\u202e"
HOSTILE_TEXT = st.sampled_from(PAYLOADS) | st.builds(
    lambda before, after: f"{before}{MARK}{after};", st.text(_HOSTILE_CHARACTERS), st.text(_HOSTILE_CHARACTERS)
)
HOSTILE = (
    HOSTILE_TEXT
    | st.none()
    | st.booleans()
    | st.sampled_from([0, -1, 16**200, 1.5, 1e300, float("nan"), float("inf"), b"a", (1,)])
    | st.lists(HOSTILE_TEXT, max_size=2)
    | st.dictionaries(HOSTILE_TEXT, HOSTILE_TEXT, max_size=2)
)
Place = tuple[str | int, ...]


def leaves(values: Any, path: Place = ()) -> Iterator[Place]:
    """Every place of a document, inner ones too."""
    if path:
        yield path
    children = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in children:
        yield from leaves(value, (*path, key))


def changed(values: dict[str, Any], path: Place, value: Any, key: str | None) -> dict[str, Any]:
    """A copy with `value` at `path`; under `key` there, where one is given and a mapping lies there."""
    copied = copy.deepcopy(values)
    inner: Any = copied
    for part in path[:-1]:
        inner = inner[part]
    if key is not None and isinstance(inner[path[-1]], dict):
        inner[path[-1]][key] = value
    else:
        inner[path[-1]] = value
    return copied
