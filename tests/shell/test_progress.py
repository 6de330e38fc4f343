import sys

import pytest

from voxvec._progress import reporter
from voxvec.errors import ConfigError


class Screen:
    """A standard error that remembers what was written."""

    def __init__(self, *, terminal):
        self.text, self.terminal = "", terminal

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def isatty(self):
        return self.terminal


@pytest.fixture
def screen(monkeypatch):
    def put(*, terminal):
        screen = Screen(terminal=terminal)
        monkeypatch.setattr(sys, "stderr", screen)
        return screen

    return put


def never():
    raise AssertionError("nobody wants to know")


def test_nobody_counts_if_nobody_wants_to_know(screen):
    shown = screen(terminal=True)

    reporter(False, 10, "texts")(never)
    reporter(True, 0, "texts")(never)
    reporter(never, 0, "texts")(never)

    assert shown.text == ""


def test_a_function_is_told_what_is_done_and_of_how_many():
    told = []
    tell = reporter(lambda *counts: told.append(counts), 10, "texts")

    tell(lambda: 3)
    tell(lambda: 10)

    assert told == [(3, 10), (10, 10)]


def test_a_terminal_gets_one_line_that_is_written_over(screen):
    shown = screen(terminal=True)
    tell = reporter(True, 2_000, "texts")

    tell(lambda: 500)
    tell(lambda: 2_000)

    assert shown.text == "\r500 of 2,000 texts (25%)\r2,000 of 2,000 texts (100%)\n"


def test_a_log_gets_a_line_each_time(screen):
    shown = screen(terminal=False)
    tell = reporter(True, 4, "texts")

    tell(lambda: 1)
    tell(lambda: 4)

    assert shown.text == "1 of 4 texts (25%)\n4 of 4 texts (100%)\n"


def test_what_was_shown_already_is_not_shown_again(screen):
    shown, told = screen(terminal=False), []
    line, function = reporter(True, 4, "texts"), reporter(lambda *counts: told.append(counts), 4, "texts")

    for done in (0, 1, 1, 4, 4):
        line(lambda done=done: done)
        function(lambda done=done: done)

    assert shown.text == "0 of 4 texts (0%)\n1 of 4 texts (25%)\n4 of 4 texts (100%)\n"
    assert told == [(0, 4), (1, 4), (4, 4)]


def test_what_is_no_way_to_show_progress_is_refused_and_none_shows_none():
    with pytest.raises(ConfigError, match="progress must be True, False or a function"):
        reporter(5, 3, "texts")

    assert reporter(None, 3, "texts")(lambda: 1) is None
