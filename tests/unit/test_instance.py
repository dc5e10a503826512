# SPDX-License-Identifier: GPL-2.0-or-later
"""One resource on this node: what is remembered of it, and when that counts for nothing; where it is asked."""
import os
import shutil
import subprocess

import pytest

from kopano_ocf import action, declare, instance, process, state
from kopano_ocf.endpoint import Endpoint


def agent(name, watch, listens="", role=()):
    return declare.Daemon(name, "", "", {}, watch, 10, (30, 30, 30, 30), listens=listens, role=role)


SERVER = agent("server", "server", "soap")
GATEWAY = agent("gateway", "mailbox", "imap")
MONITOR = agent("monitor", "portless")


@pytest.fixture
def make(tmp_path):
    """make(AGENT, parameter=value, ...) is an Instance of the action "monitor"."""
    folder = tmp_path / "state"
    folder.mkdir(0o700)

    def made(declared=MONITOR, what="monitor", **params):
        params.setdefault("config", str(tmp_path / "x.cfg"))
        params.setdefault("binary", str(tmp_path / ("kopano-" + declared.name)))
        env = dict(("OCF_RESKEY_" + name, value) for name, value in params.items())
        env.update(HA_RSCTMP=str(folder), OCF_RESOURCE_INSTANCE="x", OCF_RESKEY_CRM_meta_timeout="20000")
        return instance.Instance(action.Call(declared, what, env))
    return made


@pytest.fixture
def daemon(tmp_path):
    """A process that looks like kopano-monitor with that configuration: a copy of grep that waits for its input."""
    path = str(tmp_path / "kopano-monitor")
    shutil.copy("/bin/grep", path)
    child = subprocess.Popen([path, "-F", "-c", str(tmp_path / "x.cfg")], stdin=subprocess.PIPE, start_new_session=True)
    yield child
    child.kill()
    child.wait()
    child.stdin.close()


# ---- memory

def test_what_is_put_is_there_next_time(make):
    one = make()
    one.put("config", one.config)
    one.put("boot", instance.boot_id())
    one.put("a", "b\nc")
    one.put("none", None)
    one.save()
    assert make().get("a") == "b c" and make().get("none") == ""


@pytest.mark.parametrize("change", [{"config": "/other"}, {"boot": "another"}])
def test_of_another_boot_or_configuration_only_what_was_said_counts(make, change):
    one = make()
    one.memory = dict({"config": one.config, "boot": instance.boot_id(), "pid": "1", "endpoints": "x", "verdict": "1 v",
                       "noted": "n"}, **change)
    one.save()
    assert make().memory == {"verdict": "1 v", "noted": "n"}


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "-1", "1e999", "x", "", "\u00b2", "1e300"])
def test_a_number_that_is_none_is_0(make, text):
    one = make()
    one.put("x", text)
    assert one.number("x") == 0.0 and int(one.number("x")) == 0


def test_nothing_is_written_where_nothing_changed(make, monkeypatch):
    written = []
    monkeypatch.setattr(state, "write", lambda path, values: written.append(values))
    one = make()
    one.save()
    one.put("x", 1)
    one.save()
    one.save()
    assert len(written) == 1


def test_remembering_a_process_forgets_the_one_before(make, daemon):
    one = make()
    one.put("served", "1")
    one.put("stopping", "1")
    one.put("verdict", "1 x")
    one.remember(process.look(daemon.pid), [Endpoint("imap", host="*", port=143)], "http://a:1")
    again = make()
    assert again.get("served") == again.get("stopping") == "" and again.get("verdict") == "1 x"
    assert again.get("endpoints") == "imap://*:143" and again.server() == "http://a:1"


def test_the_same_counters(make, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(instance.time, "monotonic", lambda: now[0])
    one = make()
    assert one.still("1:5") == (1, 0.0)
    now[0] += 30
    assert one.still("1:5") == (2, 30.0)
    assert one.still("1:6") == (1, 0.0)
    now[0] = 5.0                            # another boot's clock
    assert one.still("1:6") == (1, 0.0)
    one.put("since", "inf")
    assert one.still("1:6") == (1, 0.0)
    now[0] += 10
    assert one.still("6", "main-") == (1, 0.0) and one.still("1:6") == (2, 10.0), "each has its own clock"


# ---- the process

def test_a_daemon_is_found_and_remembered(make, daemon):
    assert make().find().main.pid == daemon.pid
    assert make().get("pid") == str(daemon.pid)
    daemon.kill()
    daemon.wait()
    assert make().find().main is None


def test_a_remembered_pid_with_another_start_time_is_not_believed(make, daemon):
    one = make()
    one.find()
    one.put("start", int(one.get("start")) - 1)
    one.save()
    assert make().get("start") != str(process.look(daemon.pid).start)
    assert make().find().main.start == process.look(daemon.pid).start
    # and if it is somebody else's now there is nothing
    other = make(config="/nonexistent.cfg")
    other.memory = {"pid": str(os.getpid()), "start": "1"}
    assert other.find().main is None


@pytest.mark.parametrize("text", ["{}", " {} \n", "{}\n\n"])
def test_the_pid_file_is_a_hint(make, daemon, tmp_path, monkeypatch, text):
    monkeypatch.setattr(process, "scan", lambda identity: [])
    (tmp_path / "pid").write_text(text.format(daemon.pid))
    assert make(pidfile=str(tmp_path / "pid")).find().main.pid == daemon.pid
    (tmp_path / "pid").write_text(str(os.getpid()))
    assert make(config="/etc/other.cfg", pidfile=str(tmp_path / "pid")).find().main is None


def test_a_pid_file_that_is_a_link_is_not_followed(make, daemon, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "scan", lambda identity: [])
    (tmp_path / "real").write_text(str(daemon.pid))
    (tmp_path / "pid").symlink_to(tmp_path / "real")
    assert make(pidfile=str(tmp_path / "pid")).find().main is None


# ---- endpoints

def test_the_parameter_comes_before_what_is_remembered(make):
    one = make(GATEWAY, listen="imap://a:1")
    one.put("endpoints", "imap://b:2 pop3://b:3")
    assert [str(entry) for entry in one.endpoints(None)] == ["imap://a:1"]
    one = make(GATEWAY)
    one.put("endpoints", "imap://b:2 pop3://b:3")
    assert [str(entry) for entry in one.endpoints(None)] == ["imap://b:2", "pop3://b:3"]


@pytest.mark.parametrize("where", [{"listen": "nonsense"}, {}])
def test_nonsense_is_passed_over_for_the_listening_sockets(make, monkeypatch, where):
    monkeypatch.setattr(process, "listening", lambda main: ([("0.0.0.0", 143)], []))
    one = make(GATEWAY, **where)
    one.put("endpoints", "nonsense")
    assert [str(entry) for entry in one.endpoints(None)] == ["imap://*:143"]
    assert one.get("endpoints") == "imap://*:143"


def test_listening_sockets_get_their_protocol_from_the_configuration_else_from_the_port(make, tmp_path):
    (tmp_path / "x.cfg").write_text("imap_listen = *%lo:1143\npop3_listen =\npop3s_listen = 127.0.0.1:1995\n")
    found = make(GATEWAY).label([("127.0.0.1", 1143), ("127.0.0.1", 1995), ("::", 993), ("0.0.0.0", 993),
                                 ("127.0.0.1", 110), ("127.0.0.1", 4711)], [])
    assert [str(entry) for entry in found] == [
        "pop3://127.0.0.1:110", "imaps://*:993", "imap://127.0.0.1%lo:1143", "pop3s://127.0.0.1:1995"]


def test_server_sock_comes_first_and_names_in_abstract_space_not_at_all(make, tmp_path):
    (tmp_path / "x.cfg").write_text("")
    found = make(SERVER).label([("127.0.0.1", 237)], [
        "/var/run/kopano/prio.sock", "@/tmp/dbus", "/var/run/kopano/server.sock", "/run/another.sock"])
    assert [str(entry) for entry in found] == [
        "soap+unix:/var/run/kopano/server.sock", "soap+unix:/var/run/kopano/prio.sock", "soap+unix:/run/another.sock",
        "https://127.0.0.1:237"]


@pytest.mark.parametrize("text", ["bogus", "soap+unix:relative", "", "http://["])
def test_the_server_is_read_anew_when_what_is_remembered_is_nonsense(make, tmp_path, text):
    (tmp_path / "x.cfg").write_text("server_socket = file:///run/a b/server.sock\n")
    one = make(GATEWAY)
    one.put("server", text)
    assert one.server() == "soap+unix:/run/a b/server.sock"


def test_without_a_readable_configuration_the_usual_socket_is_the_server(make, tmp_path):
    assert make(MONITOR).server() == "soap+unix:/var/run/kopano/server.sock"
    (tmp_path / "x.cfg").write_text("server_socket = nonsense\n")
    assert make(MONITOR).server() == "soap+unix:/run/kopano/server.sock"


def test_the_signature_tells_an_edited_file(make, tmp_path):
    one = make()
    assert one.signature() == "-"
    (tmp_path / "x.cfg").write_text("a = 1\n")
    before = one.signature()
    (tmp_path / "new").write_text("a = 1\n")
    os.rename(str(tmp_path / "new"), str(tmp_path / "x.cfg"))
    assert one.signature() not in ("-", before)
    assert make(config="/" + "x" * 5000).signature() == "-"


def test_served_ends_an_upgrade(make, monkeypatch):
    monkeypatch.setattr(process, "holds", lambda main, path: True)
    one = make(SERVER)
    assert one.upgrading(None)
    one.served()
    assert not one.upgrading(None)
