"""Tables, JSON and progress on any terminal."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from chammi75.errors import ChammiError
from chammi75.terminal import (
    as_json,
    human_bytes,
    human_count,
    human_duration,
    print_json,
    print_line,
    progress,
    spelled,
    table,
)


def printed(rows: list[dict[str, object]], **options: object) -> str:
    out = io.StringIO()
    table(rows, file=out, **options)  # type: ignore[arg-type]
    return out.getvalue()


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_numbers_stand_right_text_left_and_none_is_unknown() -> None:
    lines = printed([{"id": "a", "n": 5}, {"id": "long name", "n": None}, {"id": "b", "n": 1234}]).splitlines()
    assert lines == ["id               n", "a                5", "long name  unknown", "b             1234"]


def test_columns_are_chosen_and_ordered_and_a_missing_one_is_unknown() -> None:
    lines = printed([{"a": 1, "b": 2}], columns=["b", "c"]).splitlines()
    assert [line.split() for line in lines] == [["b", "c"], ["2", "unknown"]]


def test_a_row_is_one_line_where_no_terminal_is() -> None:
    lines = printed([{"text": "x" * 500, "other": "y" * 300}], title="All of it").splitlines()
    assert lines[0].strip() == "All of it" and len(lines) == 3
    assert "x" * 500 in lines[2] and "…" not in lines[2]


def test_on_a_terminal_long_values_are_folded_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    table([{"note": "x" * 100}], file=out)
    assert out.getvalue().count("x") == 100 and "…" not in out.getvalue()
    assert len(out.getvalue().splitlines()) > 4


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_markup_and_control_characters_of_strangers_are_shown_and_not_obeyed(stream: type[io.StringIO]) -> None:
    out = stream()
    table([{"[red]a": "[bold]x[/] :smile: \x1b]0;owned\x07\n\u202eend"}], title="[link=x]\x1b[2J", file=out)
    text = out.getvalue()
    assert "[red]a" in text and "[bold]x[/]" in text and ":smile:" in text and "[link=x]" in text
    assert "\x1b]" not in text and "\x1b[2J" not in text and "\x07" not in text and "\u202e" not in text
    assert "\\x1b]0;owned" in text.replace("\n", "")


def test_an_empty_table_prints_nothing_and_with_a_title_the_title() -> None:
    assert printed([]) == ""
    assert printed([], title="Sources") == "Sources\n"


def test_values_of_all_kinds_have_words() -> None:
    row = {"l": ["a", None], "s": {"b", "a"}, "f": 0.1 + 0.2, "t": True, "n": np.float32("nan"), "i": np.int64(7)}
    words = printed([row]).splitlines()[1].split("  ")
    assert [word.strip() for word in words if word] == ["a, unknown", "a, b", "0.3", "yes", "unknown", "7"]


def test_json_is_utf_8_without_nan_and_reads_back() -> None:
    rows = [
        {
            "name": "Zürich µm",
            "nan": float("nan"),
            "inf": np.float64("inf"),
            "array": np.arange(3),
            "day": date(2020, 1, 2),
            "path": Path("a") / "b",
            "set": {2, 1},
            "nested": {"x": (None, True)},
        }
    ]
    text = as_json(rows)
    assert "Zürich µm" in text and "NaN" not in text and "Infinity" not in text
    assert json.loads(text) == [
        {
            "name": "Zürich µm",
            "nan": None,
            "inf": None,
            "array": [0, 1, 2],
            "day": "2020-01-02",
            "path": "a/b",
            "set": [1, 2],
            "nested": {"x": [None, True]},
        }
    ]


def test_json_of_a_name_that_is_no_unicode_is_still_utf_8() -> None:
    text = as_json([{"file": "a\udcff\x1b"}])
    text.encode("utf-8")
    assert json.loads(text) == [{"file": "a\udcff\x1b"}]
    assert "\x1b" not in text


def test_json_refuses_what_it_cannot_say() -> None:
    with pytest.raises(ChammiError, match="object has no form"):
        as_json([{"x": object()}])


SCRIPT = """
import sys
from chammi75.terminal import print_json, print_line, progress, table
table([{"name": "µm × α — … 細胞 \\udcff", "n": 1, "long": "ж" * 200}], title="Größe")
print_line("≥ 5 µm")
print_json([{"name": "µ"}])
with progress("Lösen", 3) as advance:
    advance(3)
"""


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_no_encoding_of_a_terminal_makes_it_crash(encoding: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": f"{encoding}:strict", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(encoding)
    text = done.stdout.decode(encoding)
    assert "um x \\u03b1 - ..." in text if encoding == "ascii" else "µm × " in text
    assert json.loads(text[text.rindex("[\n") :]) == [{"name": "µ"}]
    assert "3 images in" in done.stderr.decode(encoding)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_real_terminal_shows_a_bar_and_then_the_line(encoding: str) -> None:
    import pty

    environment = {**os.environ, "PYTHONIOENCODING": f"{encoding}:strict", "TERM": "xterm", "COLUMNS": "100"}
    ours, theirs = pty.openpty()
    child = subprocess.Popen([sys.executable, "-c", SCRIPT], env=environment, stdout=theirs, stderr=theirs)
    os.close(theirs)
    parts = []
    while True:
        try:
            part = os.read(ours, 65_536)
        except OSError:  # Linux: the other side is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(ours)
    text = b"".join(parts).decode(encoding)
    assert child.wait() == 0, text
    assert "3 images of 3 images" in text
    assert text.rstrip().splitlines()[-1].partition("3 images in")[2]


def test_where_no_terminal_is_progress_is_one_line_at_the_end() -> None:
    log = io.StringIO()
    with progress("Fetching", 2_000_000, "B", file=log) as advance:
        advance(500_000)
        assert log.getvalue() == ""
        advance(1_500_000)
    assert log.getvalue().startswith("Fetching: 2 MB in ") and log.getvalue().count("\n") == 1


def test_work_that_fails_says_how_far_it_came_and_raises() -> None:
    log = io.StringIO()
    with pytest.raises(KeyboardInterrupt), progress("Building", 10, file=log) as advance:
        advance(4)
        raise KeyboardInterrupt
    assert log.getvalue().startswith("Building: stopped after 4 images in ")


def test_progress_counts_from_many_threads() -> None:
    log = io.StringIO()
    with progress("Reading", file=log) as advance:
        threads = [threading.Thread(target=lambda: [advance(1) for _ in range(200)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert "800 images" in log.getvalue()


def test_a_line_shows_its_control_characters() -> None:
    out = io.StringIO()
    print_line("a\nb\x1b", file=out)
    assert out.getvalue() == "a\\nb\\x1b\n"
    print_json({"a": 1}, file=out)
    assert out.getvalue().endswith('"a": 1\n}\n')


def test_letters_that_fit_are_kept_beside_those_that_do_not() -> None:
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    assert spelled("µ…α", narrow) == "µ…\\u03b1"


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (999.6, "1 kB"), (1000, "1 kB"), (999_600, "1 MB"), (1.234e9, "1.23 GB")],
)
def test_bytes_read_in_powers_of_1000(number: float, text: str) -> None:
    assert human_bytes(number) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0"), (12, "12"), (1500, "1.5 k"), (8_000_000, "8 M")])
def test_counts_read_short(number: float, text: str) -> None:
    assert human_count(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (59.97, "1 min"), (60, "1 min"), (3599.6, "1 h"), (3600, "1 h"), (90_000, "1 d 1 h")],
)
def test_time_spans_read_in_two_units(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


def test_what_is_no_number_is_unknown() -> None:
    assert human_duration(float("inf")) == human_bytes(float("nan")) == human_count(float("inf")) == "unknown"


def test_importing_the_terminal_does_not_import_rich() -> None:
    code = "import sys, chammi75.terminal; sys.exit('rich' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
