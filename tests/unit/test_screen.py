"""Text is shown as it is: no emoji codes, no markup, no control characters; and streams that fail."""

import io
import sys

import pytest
from rich.table import Table

from tilewhisper.engine.commands import screen
from tilewhisper.engine.commands.tables import plain_table

NAME = "a:smile:[bold]b[/bold][/].wav"


def test_lines_rules_and_tables_show_names_as_they_are(capsys):
    console = screen.console()
    screen.say(console, NAME, "bold")
    console.rule(screen.plain(NAME), align="left")
    console.print(plain_table((NAME, ""), [(NAME, "")]))
    table = Table(box=None)
    table.add_column(NAME)
    console.print(table)
    assert capsys.readouterr().out.count(NAME) == 5


def test_an_error_is_one_line(capsys):
    screen.complain(screen.console(stderr=True), "a\nb.wav: no such file")
    assert capsys.readouterr().err == "tilewhisper: error: a\\nb.wav: no such file\n"


def test_control_characters_are_shown_and_not_obeyed(capsys):
    screen.say(screen.console(), "red\x1b[31m\r\x07\x7f\x9b.wav\tend")
    assert capsys.readouterr().out.split() == [r"red\x1b[31m\x0d\x07\x7f\x9b.wav", "end"]


class Broken(io.StringIO):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error


def test_lost_output_is_reported_once(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Broken(OSError(28, "No space left on device")))
    console = screen.console()
    with pytest.raises(screen.OutputLost, match=r"^cannot write to standard output: No space left on device$"):
        screen.say(console, "one")
    screen.say(console, "two")
    assert sys.stdout is None  # the interpreter must not try again at exit


def test_closed_output_is_reported(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(screen.OutputLost, match="closed"):
        screen.say(screen.console(), "one")


def test_a_reader_that_has_gone_is_no_lost_output(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Broken(BrokenPipeError()))
    with pytest.raises(BrokenPipeError):
        screen.say(screen.console(), "one")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), BrokenPipeError()])
def test_lost_errors_are_ignored(monkeypatch, error):
    monkeypatch.setattr(sys, "stderr", Broken(error))
    console = screen.console(stderr=True)
    screen.complain(console, "one")
    print("two", file=sys.stderr)
