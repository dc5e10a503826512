# SPDX-License-Identifier: GPL-2.0-or-later
"""Remembered things: replaced whole, ignored when damaged or foreign, never written where others can interfere."""
import os
import time

import pytest
from hypothesis import given, settings, strategies as st

from kopano_ocf import state


@pytest.fixture
def folder(tmp_path):
    tmp_path.chmod(0o755)
    return tmp_path


def test_what_is_written_is_read_back(folder):
    path = str(folder / "x")
    assert state.write(path, {"pid": 42, "endpoints": "imap://a:1 imap://b:2", "odd": "a\nb"})
    assert state.read(path) == {"pid": "42", "endpoints": "imap://a:1 imap://b:2", "odd": "a b"}
    assert oct(os.stat(path).st_mode & 0o777) == "0o600"


def test_a_missing_file_is_empty(folder):
    assert state.read(str(folder / "none")) == {}


@pytest.mark.parametrize("data", [
    b"", b"\n", b"kopano-ocf-state 2\npid 1\nend\n", b"kopano-ocf-state 0\npid 1\nend\n",
    b"kopano-ocf-state 1\npid 1\n", b"kopano-ocf-state 1\npid 1\nen", b"\0" * 100,
    b"kopano-ocf-state 1\nend\n" + b"x" * 70000])
def test_another_version_or_a_cut_file_is_ignored(folder, data):
    path = folder / "x"
    path.write_bytes(data)
    assert state.read(str(path)) == {}


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_without_an_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("s") / "x"
    path.write_bytes(b"kopano-ocf-state 1\n" + data + b"\nend\n")
    assert isinstance(state.read(str(path)), dict)


def test_neither_links_nor_fifos_nor_directories_are_followed(folder):
    secret = folder / "secret"
    secret.write_text("kopano-ocf-state 1\npid 1\nend\n")
    (folder / "link").symlink_to(secret)
    os.mkfifo(str(folder / "fifo"))
    for name in ("link", "fifo"):
        assert state.read(str(folder / name)) == {}
    assert state.read(str(folder)) == {}


def test_writing_replaces_a_link_instead_of_following_it(folder):
    victim = folder / "victim"
    victim.write_text("precious")
    (folder / "x").symlink_to(victim)
    assert state.write(str(folder / "x"), {"a": 1})
    assert victim.read_text() == "precious" and not (folder / "x").is_symlink()


def test_a_link_put_where_the_new_file_is_written_at_the_last_moment(folder, monkeypatch):
    victim = folder / "victim"
    victim.write_text("precious")
    (folder / ("x.%d.tmp" % os.getpid())).symlink_to(victim)
    monkeypatch.setattr(state, "remove", lambda path: True)     # as if it came after that
    assert not state.write(str(folder / "x"), {"a": 1}) and victim.read_text() == "precious"


@pytest.mark.parametrize("mode, good", [
    (0o755, True), (0o700, True), (0o1777, True), (0o777, False), (0o775, False)])
def test_a_directory_that_others_can_write_is_not_used(folder, mode, good):
    folder.chmod(mode)
    assert state.write(str(folder / "x"), {"a": 1}) == good
    assert bool(os.listdir(str(folder))) == good


def test_the_directory_is_made_when_a_reboot_took_it(folder):
    path = str(folder / "gone" / "x")
    assert state.write(path, {"a": 1}) and state.read(path) == {"a": "1"}


@pytest.mark.parametrize("text", [
    "kopano-server", "webapp-health:0", "/etc/kopano/server.cfg", "../../etc/passwd", "ä b", "x" * 300, ""])
def test_names_stay_in_their_directory(text):
    name = state.safe_name(text)
    assert "/" not in name and not name.startswith(".") and len(name) < 120
    assert name == state.safe_name(text)


@given(st.text(), st.text())
def test_two_names_never_share_a_file(one, other):
    if one != other:
        assert state.safe_name(one) != state.safe_name(other)


def test_a_lock_excludes_and_is_freed(folder):
    path = str(folder / "lock")
    with state.Lock(path, time.monotonic()) as first:
        assert first.held
        with state.Lock(path, time.monotonic() + 0.05) as second:
            assert second.busy and not second.held
    with state.Lock(path, time.monotonic()) as third:
        assert third.held


def test_without_a_place_for_it_there_is_no_lock_but_no_failure_either(folder):
    with state.Lock(str(folder / "no" / "such" / "lock"), time.monotonic()) as lock:
        assert not lock.held and not lock.busy


@pytest.mark.parametrize("env, path", [
    ({}, state.DIRECTORY), ({"HA_RSCTMP": "/x"}, "/x"), ({"HA_RSCTMP": "relative"}, state.DIRECTORY),
    ({"HA_RSCTMP": ""}, state.DIRECTORY)])
def test_directory(env, path):
    assert state.directory(env) == path
