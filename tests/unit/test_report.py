# SPDX-License-Identifier: GPL-2.0-or-later
"""What is said: one printable line, whoever listens or does not."""
import io
import sys
import types

import pytest
from hypothesis import given, settings, strategies as st

from kopano_ocf import report


class Deaf(io.StringIO):
    """A stream on a full disk, or with nobody at its other end."""

    def write(self, text):
        raise OSError(28, "No space left on device")


def fail(*_):
    """Any call of an ocf.py that can't."""
    raise OSError(28, "No space left on device")


@given(st.text(st.characters(), max_size=300), st.integers(20, 100))
@settings(deadline=None)
def test_any_text_becomes_one_printable_line(text, limit):
    line = report.one_line(text, limit)
    assert len(line) <= limit and line.isprintable() and line == line.strip() and "  " not in line


@pytest.mark.parametrize("text, line", [
    ("a\nb\tc", "a b c"), ("  x ", "x"), ("\x1b[2Jx", "?[2Jx"), ("a\u2028b", "a b"), ("\udcff", "?"),
    ("\u00e9", "\u00e9"), ("x" * 900, "x" * 796 + " ..."), (ValueError("no"), "no"), ("", "")])
def test_one_line(text, line):
    assert report.one_line(text) == line


@pytest.mark.parametrize("stream", [None, Deaf()])
def test_nobody_listens(monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(report, "_ocf", False)
    report.say("x")
    report.exit_reason("x")
    report.exit_reason("x", log=False)
    monkeypatch.setattr(report, "_ocf", types.SimpleNamespace(
        ocf_exit_reason=fail, logger=types.SimpleNamespace(info=fail, warning=fail, error=fail)))
    report.exit_reason("x")
    for level in ("info", "warning", "error"):
        report.log(level, "x")


def test_the_reason_carries_the_prefix_that_pacemaker_looks_for(monkeypatch, capsys):
    monkeypatch.setattr(report, "_ocf", False)
    monkeypatch.delenv("OCF_EXIT_REASON_PREFIX", raising=False)
    report.exit_reason("the port\nis taken")
    assert capsys.readouterr().err == "ocf-exit-reason:the port is taken\n"
    monkeypatch.setenv("OCF_EXIT_REASON_PREFIX", "why: ")
    report.exit_reason("x")
    assert capsys.readouterr().err == "why: x\n"


@pytest.mark.parametrize("text", ["", "<?xml?>\n", "\u00e9\n", "\udcff" + "x" * 200000])
def test_output_is_written_whole(capfd, text):
    # more than a pipe holds
    assert report.output(text)
    assert capfd.readouterr().out == text.replace("\udcff", "?")
