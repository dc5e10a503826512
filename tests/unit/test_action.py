# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line and the environment: which action, how deep, how long, with what; and the exit codes of nonsense."""
import importlib.machinery
import importlib.util
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given, settings, strategies as st

from kopano_ocf import action, declare, metadata, process, report

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NAMES = ("server", "dagent", "spooler", "gateway", "ical", "monitor", "webapp-health")


def declared(name):
    """The AGENT of an agent's file."""
    loader = importlib.machinery.SourceFileLoader("agent_" + name.replace("-", "_"), os.path.join(ROOT, "agents", name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module.AGENT


def run(name, *words, **env):
    """Run an agent as a process: (code, out, err)."""
    child = subprocess.Popen([sys.executable, "-IS", os.path.join(ROOT, "agents", name)] + list(words),
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             env=dict({"PATH": "/usr/bin:/bin"}, **env))
    out, err = child.communicate(timeout=30)
    return child.returncode, out.decode(), err.decode()


def call(name="server", what="monitor", **env):
    return action.Call(declared(name), what, env)


@pytest.mark.parametrize("name", NAMES)
def test_meta_data_needs_nothing(name):
    code, out, err = run(name, "meta-data")
    assert (code, err) == (0, "")
    tree = ElementTree.fromstring(out)
    assert tree.get("name") == name and tree.find("version").text == "1.1"
    depths = [entry.get("depth") for entry in tree.iter("action") if entry.get("name") == "monitor"]
    assert depths == ["10", "20"]
    intervals = [entry.get("interval") for entry in tree.iter("action") if entry.get("name") == "monitor"]
    assert len(set(intervals)) == 2
    for entry in tree.iter("action"):
        assert entry.get("timeout").endswith("s")
    for entry in tree.iter("parameter"):
        assert entry.get("required") == "0" and entry.find("content").get("default") is not None


@pytest.mark.parametrize("words, code", [
    (["usage"], 0), (["help"], 0), (["methods"], 0), (["--help"], 0), (["meta-data", "extra", "words"], 0),
    ([], 3), (["bogus"], 3), ([""], 3), (["promote"], 3), (["notify"], 3), (["migrate_to"], 3), (["START"], 3)])
def test_actions_that_need_no_host(words, code):
    assert run("server", *words)[0] == code


def test_the_argument_decides_not_the_environment():
    assert run("server", "meta-data", __OCF_ACTION="stop")[1].startswith("<?xml")
    assert run("server", __OCF_ACTION="meta-data")[1].startswith("<?xml")


def test_webapp_health_has_no_reload():
    assert run("webapp-health", "reload")[0] == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="shows what others are told, so root must become another")
def test_others_than_root_are_told_so():
    child = subprocess.Popen(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-IS",
                              os.path.join(ROOT, "agents", "server"), "monitor"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    err = child.communicate(timeout=30)[1].decode()
    if "an't open file" in err or child.returncode == 127:
        pytest.skip("the checkout or this Python is in a directory that others can't enter")
    assert child.returncode == 4 and err.count("\n") == 1


@pytest.mark.parametrize("level, depth", [
    (None, 10), ("", 10), ("0", 0), ("9", 0), ("10", 10), ("19", 10), ("20", 20), ("21", 20), ("1000000", 20),
    ("-1", 10), ("x", 10), ("9" * 30, 10)])
def test_depths_in_between_take_the_next_lower(level, depth):
    assert call(**({} if level is None else {"OCF_CHECK_LEVEL": level})).depth == depth


@pytest.mark.parametrize("timeout", [5, 10, 20, 30, 60, 120, 600])
def test_the_verdict_is_out_in_time(timeout):
    before = time.monotonic()
    asked = call(OCF_RESKEY_CRM_meta_timeout=str(timeout * 1000))
    spare = before + timeout - asked.deadline
    assert 1.0 <= spare + 0.001 and spare - asked.timeout_used() <= 0.2 * timeout + 0.001
    # a question kept for the end still lies within the same window
    if timeout >= 10:
        assert spare + asked.reserve - asked.timeout_used() <= 0.2 * timeout + 0.001


@pytest.mark.parametrize("text", ["", "abc", "-5", "1e9", "9" * 40, "\0"])
def test_a_timeout_that_is_none_is_the_advised_one(text):
    assert call(OCF_RESKEY_CRM_meta_timeout=text).timeout == 30


@pytest.mark.parametrize("interval, probe", [(None, True), ("0", True), ("10000", False)])
def test_probe(interval, probe):
    assert call(**({} if interval is None else {"OCF_RESKEY_CRM_meta_interval": interval})).probe == probe


@pytest.mark.parametrize("text, value", [
    ("30", 30), (" 30 ", 30), ("0", 60), ("-1", 60), ("x", 60), ("3601", 60), ("9" * 50, 60), ("", 60), ("30s", 60)])
def test_integers_fall_back_to_the_default(text, value):
    assert call(OCF_RESKEY_stop_escalate=text).value("stop_escalate") == value


@pytest.mark.parametrize("text, value", [
    ("true", True), ("True", True), ("1", True), ("yes", True), ("ON", True), ("false", False), ("0", False),
    ("no", False), ("maybe", False)])
def test_booleans(text, value):
    assert call(OCF_RESKEY_tls_verify=text).value("tls_verify") is value


def test_an_empty_value_is_the_default_unless_it_means_something():
    assert call(OCF_RESKEY_config="").value("config") == "/etc/kopano/server.cfg"
    assert call("webapp-health", OCF_RESKEY_status_url="").value("status_url") == ""
    assert call("webapp-health").value("status_url").startswith("http://localhost/")


def test_a_parameter_of_another_agent_is_none():
    assert call().value("url") is None


def test_secrets_come_from_a_file(tmp_path):
    path = tmp_path / "secret"
    path.write_text("geheim \nsecond line\n")
    assert call("gateway", OCF_RESKEY_test_password_file=str(path)).secret("test_password_file") == "geheim "


@pytest.mark.parametrize("make", ["missing", "directory", "fifo", "empty", "unset"])
def test_a_secret_that_is_none_gives_one_line(tmp_path, make):
    path = tmp_path / "secret"
    {"missing": lambda: None, "directory": path.mkdir, "fifo": lambda: os.mkfifo(str(path)),
     "empty": lambda: path.write_text("\nx"), "unset": lambda: None}[make]()
    asked = call("gateway", OCF_RESKEY_test_password_file="" if make == "unset" else str(path))
    with pytest.raises(ValueError) as caught:
        asked.secret("test_password_file")
    assert "test_password_file" in str(caught.value) and "\n" not in str(caught.value)


@given(st.text(), st.text(), st.text())
@settings(max_examples=100, deadline=None)
def test_meta_data_is_well_formed_whatever_is_declared(short, long, default):
    agent = declare.Agent("odd", short, long, {0: short, 10: long, 20: default},
                          [declare.Parameter("p", short, long, default=default)], declare.daemon_actions((1, 2, 3, 4)))
    tree = ElementTree.fromstring(metadata.xml(agent))
    assert tree.find("actions") is not None


@given(st.text())
def test_what_is_told_is_one_printable_line(text):
    line = report.one_line(text)
    assert line.isprintable() and len(line) <= 800


def test_the_same_parameter_means_the_same_everywhere():
    meanings = {}
    for name in NAMES[:-1]:
        for entry in declared(name).parameters:
            if entry.name not in ("binary", "config", "pidfile", "stop_escalate"):
                meaning = entry.short, re.sub(r" (\w+:\S+ )+", " ", entry.long)     # but for the endpoints shown
                assert meanings.setdefault(entry.name, meaning) == meaning


def test_a_script_that_became_an_agent_late_has_not_used_up_its_time(monkeypatch):
    """Its own age counts only where Pacemaker gives a timeout, and with it starts the process."""
    monkeypatch.setattr(process, "own_age", lambda: 1000.0)
    assert call().left() > 20
    assert call(OCF_RESKEY_CRM_meta_timeout="30000").left() == 0.0


@pytest.mark.parametrize("text", ["\u00b2", "\u0663", "\uff11", "-1", "1.5", "", " ", "9" * 5000, "nan", "1_0"])
def test_numbers_that_are_none(text):
    plain, odd = call(), call(OCF_RESKEY_CRM_meta_interval=text, OCF_CHECK_LEVEL=text, OCF_RESKEY_stop_escalate=text)
    assert (odd.depth, odd.interval) == (plain.depth, plain.interval)
    assert odd.value("stop_escalate") == plain.value("stop_escalate")
    assert call(OCF_RESKEY_CRM_meta_timeout=text).timeout == plain.timeout
