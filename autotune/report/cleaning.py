"""Makes text from users, their code and their tools safe to show: no terminal escapes, no control characters, limited
length. Escaping for HTML comes later, where the text is put into a page."""

from __future__ import annotations

import html
import re

_TERMINAL_ESCAPE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|[@-Z\\^_]|.|$)", re.DOTALL)
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and line feed
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"  # zero-width characters, writing-direction marks
    "\ud800-\udfff]"  # unpaired surrogates, which cannot be written to files
)
_CUT = "\n[… {} characters left out …]\n"


def clean(text: object, most: int = 2000) -> str:
    """At most about `most` characters: the first and the last lines of a longer text, and how much is missing.

    The text is cut first, so that an error message of 10 MB costs no more than one line.
    """
    written = str(text)
    if len(written) > most:
        head, tail = most // 3, most - most // 3
        written = written[:head] + _CUT.format(f"{len(written) - most:,}") + written[-tail:]
    return _UNSEEN.sub("", _TERMINAL_ESCAPE.sub("", written.replace("\r\n", "\n")))


def one_line(text: object, most: int = 200) -> str:
    """Like `clean`, with each run of white space as one blank."""
    line = " ".join(clean(text, 4 * most).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def for_plotly(text: object, most: int = 120) -> str:
    """One line for a label of plotly, without the tags that plotly interprets: links, bold, line breaks."""
    return html.escape(one_line(text, most), quote=False)
