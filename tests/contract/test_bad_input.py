# SPDX-License-Identifier: GPL-2.0-or-later
"""Any text in parameters and environment, any bytes in files and from the network: one clear line and a promised code.

Values that would make a file are kept below /tmp: the rest of the file system is not the sandbox's own.
"""
import contextlib
import io
import os
import shutil
import socket
import threading
import time
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from kopano_ocf import action as agent_action, report

from turns import fewer
from world import DAEMONS

from .looks import NAMES, together
from .rough import AGENTS, CODES, alive, declared, starts, stops

HUGE = "A" * 100000
UGLY = [
    "", " ", "\n", "a\nb", "\t", "\r", "\x7f\x1b[2J", "²", "٣", "１２", "-1", "0", "1e9", "nan", "inf", "0x10", "+1",
    "9" * 400, "18446744073709551616", "../../etc/passwd", "/etc/passwd", "/", "/dev/zero", "/dev/tty", "/proc/1/mem",
    "/etc", "relative/path", "~root", "$HOME", "$(touch /tmp/owned)", "`id`", ";", "'", '"', "\\", "%s%n%d", "{0}",
    "<&>\"'", "]]>", "\udcff\udc80", "é", "\u202e", "\u2028", "😀", HUGE, "/" + HUGE, "http://" + HUGE, " " * 5000,
    "http://", "unix:", "unix:/", "unix:" + "/x" * 80, "http://[::1", "http://[fe80::1%lo]:1", "imap://:::",
    "lmtp://*:0",
    "http://127.0.0.1:99999", "http://0.0.0.0", "http://256.1.1.1:1", "http://xn--:1", "http://localhost:1 unix:/none",
    "http://a..b:1", "(" * 500, "(?P<x>", "[", "true", "maybe", "-", "--", "-c", "-c/x", "--dump-config", "-V", "root"]


def environment_text(size=40):
    """What can be put into an environment: no NUL, bytes that are no UTF-8 by surrogates."""
    return st.one_of(
        st.sampled_from(UGLY), st.text(max_size=size).map(lambda text: text.replace("\0", "x")),
        st.binary(max_size=size).map(lambda data: os.fsdecode(data.replace(b"\0", b"x"))), st.integers().map(str))


def examples(count):
    """Settings for a property that costs a process or two."""
    return settings(max_examples=fewer(count), deadline=None, suppress_health_check=list(HealthCheck))


def sane(action, result, timeout=20.0):
    """One of the action's codes, one line that says why unless all is well, in time, and no traceback."""
    assert result.rc in CODES[action], result
    assert result.took < timeout, result
    assert "Traceback" not in result.err and "error in the agent itself" not in result.err, result
    reasons = [line for line in result.err.splitlines() if line.startswith("ocf-exit-reason:")]
    quiet = result.rc == 0 or action == "monitor" and result.rc == 7
    assert len(reasons) == 1 and result.reason or quiet and not reasons, result
    assert len(result.err) < 5000 and all(c.isprintable() or c == "\n" for c in result.err), result
    return result


# ---- parameters

ACTIONS = st.sampled_from(["monitor", "monitor", "stop", "validate-all", "validate-all 10", "reload-agent", "reload"])


def chosen(name, *without):
    """Strategy of one or two parameters of an agent with any values."""
    names = [entry.name for entry in declared(name).parameters if entry.name not in without]
    return st.dictionaries(st.sampled_from(names), environment_text(), min_size=1, max_size=2)


@pytest.mark.parametrize("name", NAMES)
def test_any_parameters_where_nothing_runs(world11, name):
    @given(params=chosen(name), action=ACTIONS, level=st.sampled_from([None, 0, 10, 20]))
    @examples(10 if name == "webapp-health" else 30)
    def check(params, action, level):
        action, _, depth = action.partition(" ")
        if name == "webapp-health" and action == "reload":
            action = "reload-agent"         # it has nothing else to reload
        level = int(depth or 0) if action == "validate-all" else level
        result = sane(action, world11.agent(name, action, level=level, params=params, timeout=20))
        if action == "monitor":
            assert result.rc == 7, result
        if action == "stop":
            assert result.rc == 0, result
    check()
    assert not os.path.exists("/tmp/owned")


@pytest.mark.parametrize("name", NAMES)
def test_any_parameters_in_the_library_itself(world11, name):
    """The same without the price of a process: many more of them, and an error shows as such."""
    agent = declared(name)

    @given(params=st.dictionaries(st.sampled_from([entry.name for entry in agent.parameters]), environment_text(),
                                  max_size=4),
           action=st.sampled_from(["monitor", "stop", "validate-all", "reload", "reload-agent"]),
           level=environment_text(), timeout=environment_text(), interval=environment_text(),
           instance=environment_text())
    @examples(50)
    def check(params, action, level, timeout, interval, instance):
        env = {"OCF_RESKEY_" + key: value for key, value in params.items()}
        if action == "validate-all":
            level = "0"
        env.update(HA_RSCTMP=world11.rsctmp, OCF_CHECK_LEVEL=level, OCF_RESKEY_CRM_meta_timeout=timeout,
                   OCF_RESKEY_CRM_meta_interval=interval, OCF_RESOURCE_INSTANCE=instance)
        if agent.kind == "page" and action == "reload":
            action = "reload-agent"
        with contextlib.redirect_stderr(io.StringIO()) as said:
            code = agent_action._run(agent, [action], env)
        assert code in CODES[action], (code, said.getvalue())
        assert said.getvalue().count(report._PREFIX) <= 1
    check()


@pytest.mark.parametrize("name", DAEMONS)
def test_any_parameters_of_a_running_daemon(site, name):
    """But for those that make it another resource, it stays what it is; a monitor makes no 5 or 6 of them."""
    pids = alive(site, name)

    @given(params=chosen(name, "binary", "config"), level=st.sampled_from([0, 10, 20]))
    @examples(12)
    def check(params, level):
        result = sane("monitor", site.agent(name, "monitor", level=level, params=params, timeout=4), 4)
        assert result.rc != 7, result
        if "listen" not in params and "test_user" not in params:
            assert result.rc == 0, result
    check()
    assert alive(site, name) == pids


@pytest.mark.parametrize("generation", [11], indirect=True, ids=["g11"])
@pytest.mark.parametrize("name", ["gateway", "ical"])
def test_a_test_login_with_any_user(site, name, tmp_path):
    (tmp_path / "secret").write_text("x\n")

    @given(user=environment_text())
    @examples(15)
    def check(user):
        result = sane("monitor", site.agent(name, "monitor", level=20, timeout=8, params={
            "test_user": user, "test_password_file": str(tmp_path / "secret")}), 8)
        # an empty user, or one with a line break in it, is none
        assert result.rc in (0, 190), result
    check()


@pytest.mark.parametrize("name", ["monitor", "ical"])
def test_start_with_any_parameter(world11, name):
    @given(params=chosen(name))
    @examples(12)
    def check(params):
        result = sane("start", world11.agent(name, "start", params=params, timeout=10), 10)
        sane("monitor", world11.agent(name, "monitor", params=params))
        stop = {key: value for key, value in params.items() if key != "listen"}
        assert sane("stop", world11.agent(name, "stop", params=stop, timeout=20)).rc == 0
        assert alive(world11, name) == [], (params, result)
    check()
    assert not os.path.exists("/tmp/owned")


# ---- the environment

PLACES = ("HA_LOGFILE", "HA_DEBUGLOG", "HA_RSCTMP")
VARIABLES = PLACES + (
    "OCF_CHECK_LEVEL", "OCF_RESKEY_CRM_meta_timeout", "OCF_RESKEY_CRM_meta_interval", "HA_debug", "HA_LOGFACILITY",
    "HA_logfacility", "HA_DATEFMT", "OCF_RESOURCE_INSTANCE", "OCF_ROOT", "OCF_FUNCTIONS_DIR", "PATH", "LANG", "LC_ALL",
    "TZ",
    "__OCF_ACTION", "OCF_RESKEY_crm_feature_set", "KOPANO_CONFIG_PATH", "KOPANO_SOCKET", "PYTHONPATH", "PYTHONHOME",
    "PYTHONIOENCODING", "OCF_TRACE_RA", "OCF_RESKEY_", "OCF_RESKEY_trace_ra")


def environment():
    def place(values):
        return {key: "/tmp/ha/" + value.lstrip("/")[:3000] if key in PLACES else value for key, value in values.items()}
    return st.dictionaries(st.sampled_from(VARIABLES), environment_text(), min_size=1, max_size=3).map(place)


@pytest.fixture
def logs():
    shutil.rmtree("/tmp/ha", ignore_errors=True)
    os.mkdir("/tmp/ha")
    yield
    shutil.rmtree("/tmp/ha")


@pytest.mark.parametrize("name", ["server", "monitor", "webapp-health"])
@pytest.mark.usefixtures("logs")
def test_any_environment(world11, name):
    @given(env=environment(), action=st.sampled_from(["monitor", "stop", "validate-all", "reload-agent", "start"]))
    @examples(25)
    def check(env, action):
        # no start that succeeds: this is about what is said
        params = {"start": {"tls_verify": "x", "stop_escalate": "x"}}.get(action, {})
        env.setdefault("OCF_CHECK_LEVEL", "0")
        result = world11.agent(name, action, env=env, params=params)
        sane(action, result)
        if action == "monitor":
            assert result.rc == 7, result
    check()


@pytest.mark.parametrize("name", ["dagent", "spooler"])
@pytest.mark.usefixtures("logs")
def test_any_environment_of_a_running_daemon(site, name):
    @given(env=environment())
    @examples(25)
    def check(env):
        env.pop("PATH", None)           # it is where the executable is looked up: another one, another resource
        for entry in os.listdir(site.rsctmp):
            if "deep" in entry:         # of a check for which there was no time
                os.unlink(os.path.join(site.rsctmp, entry))
        result = sane("monitor", site.agent(name, "monitor", env=env))
        assert result.rc == 0 or set(env) & {"OCF_RESKEY_CRM_meta_timeout", "HA_RSCTMP", "KOPANO_SOCKET"}, (env, result)
        assert result.rc != 7, result
    check()


@pytest.mark.parametrize("variable", ["HA_LOGFILE", "HA_DEBUGLOG"])
@pytest.mark.parametrize("kind", ["fifo", "directory", "full", "link to a fifo", "missing directory", "socket"])
@pytest.mark.usefixtures("logs")
def test_log_files_that_are_none(world11, variable, kind):
    path = "/tmp/ha/log"
    if "fifo" in kind:
        os.mkfifo("/tmp/ha/fifo")
        path = "/tmp/ha/fifo"
    if "link" in kind:
        os.symlink("/tmp/ha/fifo", "/tmp/ha/log")
        path = "/tmp/ha/log"
    if kind == "directory":
        os.mkdir(path)
    with contextlib.ExitStack() as stack:
        if kind == "socket":
            stack.enter_context(socket.socket(socket.AF_UNIX)).bind(path)
        path = {"full": "/dev/full", "missing directory": "/tmp/ha/none/log"}.get(kind, path)
        result = world11.agent("monitor", "start", params={"stop_escalate": "x"}, env={variable: path})
        assert sane("start", result, 5).rc == 6


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("logs")
def test_meta_data_is_well_formed_whatever_the_environment(world11, name):
    plain = world11.agent(name, "meta-data").out

    @given(env=environment(), params=chosen(name))
    @examples(10)
    def check(env, params):
        result = sane("meta-data", world11.agent(name, "meta-data", env=env, params=params))
        assert ElementTree.fromstring(result.out).get("name") == name and result.out == plain
    check()


def test_any_action(world11):
    @given(word=environment_text())
    @examples(25)
    def check(word):
        if word.strip() in CODES or word in agent_action._SYNONYMS:
            return
        result = world11.agent("gateway", word)
        assert result.rc == 3 and result.err.count("\n") == 1 and "Traceback" not in result.err, result
    check()


@pytest.mark.parametrize("seconds", [0, 0.05, 0.3, 1])
def test_a_timeout_too_short_for_anything(site, seconds):
    """The verdict is out as soon as can be; nothing waits for what there is no time for."""
    for name in ("server", "dagent", "gateway"):
        result = sane("monitor", site.agent(name, "monitor", level=20, timeout=20, env={
            "OCF_RESKEY_CRM_meta_timeout": str(int(seconds * 1000))}))
        assert result.rc in (0, 1, 190) and result.took < seconds + 3, result


def test_a_very_long_environment(world11):
    env = {"VARIABLE_%d" % number: "x" * 1000 for number in range(1000)}
    env["OCF_RESKEY_options"] = ""
    starts(world11, "monitor", env=env)
    stops(world11, "monitor", env=env)


# ---- standard streams

STREAMS = {"closed": "<&- >&- 2>&-", "input closed": "<&-", "output closed": ">&-", "error closed": "2>&-",
           "input and error closed": "<&- 2>&-", "full": ">/dev/full 2>/dev/full", "error full": "2>/dev/full",
           "nobody listens": "> >(:) 2>&1", "input endless": "</dev/zero"}


@pytest.mark.parametrize("kind", sorted(STREAMS))
def test_standard_streams(world11, tmp_path, kind):
    """The exit codes are the same; the daemon gets streams of its own."""
    for name in os.listdir(AGENTS):
        (tmp_path / name).write_text("#!/bin/bash\nexec %s/%s \"$@\" %s\n" % (AGENTS, name, STREAMS[kind]))
        (tmp_path / name).chmod(0o755)
    how = {"agents_dir": str(tmp_path)}
    assert world11.agent("monitor", "monitor", **how).rc == 7
    assert world11.agent("monitor", "start", params={"stop_escalate": "x"}, **how).rc == 6
    assert world11.agent("monitor", "start", **how).rc == 0
    pid = world11.main_pid("monitor")
    links = [os.readlink("/proc/%d/fd/%d" % (pid, number)) for number in range(3)]
    assert links[0] == "/dev/null" and links[1].startswith("pipe:") and links[1] == links[2], links
    assert world11.agent("monitor", "monitor", **how).rc == 0
    assert world11.agent("monitor", "validate-all", level=10, params={"binary": "/none"}, **how).rc == 5
    assert world11.agent("monitor", "stop", **how).rc == 0
    assert world11.agent("monitor", "bogus", **how).rc == 3
    result = world11.agent("monitor", "meta-data", **how)
    assert result.rc == (1 if kind == "full" else 0) or kind == "nobody listens"
    assert "Traceback" not in result.err
    state = [entry for entry in os.listdir(world11.rsctmp) if not entry.endswith(".lock")]
    for entry in state:
        with open(os.path.join(world11.rsctmp, entry)) as file:
            assert "ocf-exit-reason" not in file.read() and "<?xml" not in file.read()


# ---- files

LINES = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([b"log_level = 3", b"log_level=", b"=", b" = x", b"!include", b"!include server.cfg",
                     b"!include /dev/zero", b"!include /none", b"!propmap x", b"#", b"pid_file = ", b"log_level = $LOG",
                     b"server_socket = x y",
                     b"server_socket = file:///run/a b", b"server_socket = http://[", b"imap_listen = *:143 *:143",
                     b"imap_listen = " + b"*:1 " * 300, b"lmtp_listen = unix:/" + b"x" * 200, b"server_listen = %lo:1",
                     b"mysql_port = \xb2", b"mysql_port = 70000", b"ical_listen = 1.2.3.4.5:6", b"run_as_user = \xff",
                     b"server_pipe_name = ", b"key = " + b"v" * 3000, b"\0", b"k\0 = v", b"log_file = /dev/full"]))


@pytest.mark.parametrize("name", DAEMONS)
def test_any_configuration_file(world11, name):
    """Where nothing runs: a probe says 7, stop 0, validate-all 0 or 5."""
    @given(lines=st.lists(LINES, max_size=6), end=st.sampled_from([b"\n", b"\r\n", b"\n\n", b""]))
    @examples(8)
    def check(lines, end):
        with open(world11.config(name), "wb") as file:
            file.write(end.join(lines))
        results = together(lambda: sane("monitor", world11.agent(name, "monitor", interval=0)).rc,
                           lambda: sane("stop", world11.agent(name, "stop")).rc,
                           lambda: sane("validate-all", world11.agent(name, "validate-all", level=10)).rc)
        assert results[:2] == [7, 0] and results[2] in (0, 5)
    check()


@pytest.mark.parametrize("name", ["dagent", "monitor"])
def test_start_with_any_configuration_file(world11, name):
    pid_file = st.sampled_from([b"", b"run_as_user = nobody\n", b"\xff = 1\n"])

    @given(lines=st.lists(LINES, max_size=3), first=pid_file)
    @examples(10)
    def check(lines, first):
        with open(world11.config(name), "wb") as file:
            file.write(first + b"\n".join(lines))
        sane("start", world11.agent(name, "start", timeout=5), 5)
        assert sane("stop", world11.agent(name, "stop", timeout=60), 60).rc == 0 and alive(world11, name) == []
    check()


@pytest.mark.parametrize("generation", [11], indirect=True, ids=["g11"])
@pytest.mark.parametrize("kind", ["garbage", "binary", "empty", "missing", "directory", "fifo", "huge", "endless"])
def test_a_configuration_that_spoils_while_the_daemon_runs(site, kind):
    """A recurring monitor goes on with what the process was started with, and says so once in the log only."""
    for name in ("server", "dagent", "gateway", "spooler"):
        path, kept = site.config(name), site.config(name) + ".kept"
        os.rename(path, kept)
        try:
            {"garbage": lambda: put(path, b"bogus = 1\nserver_listen = nonsense\n"), "empty": lambda: put(path, b""),
             "binary": lambda: put(path, bytes(range(256)) * 100), "missing": lambda: None,
             "directory": lambda: os.mkdir(path), "fifo": lambda: os.mkfifo(path),
             "huge": lambda: put(path, b"#" * 3000000), "endless": lambda: os.symlink("/dev/zero", path)}[kind]()
            for level in (10, 20, 20):
                assert sane("monitor", site.agent(name, "monitor", level=level), 5).rc == 0
        finally:
            shutil.rmtree(path) if os.path.isdir(path) else os.path.lexists(path) and os.unlink(path)
            os.rename(kept, path)


def put(path, data):
    """Write a file."""
    with open(path, "wb") as file:
        file.write(data)


@pytest.mark.parametrize("generation", [8, 11], indirect=True, ids=["g8", "g11"])
def test_any_pid_file(site, tmp_path, generation):
    """The daemon is found whatever its pid file says."""
    path = str(tmp_path / "pid")
    pids = site.pids("dagent")
    numbers = st.one_of(st.sampled_from(pids + [1, 0, os.getpid()]), st.integers(0, 40000)).map(lambda n: b"%d\n" % n)

    @given(data=st.one_of(numbers, st.binary(max_size=80), st.sampled_from([b"1" * 5000, "²".encode(), b"-1", b"1 1"])))
    @examples(20)
    def check(data):
        put(path, data)
        for entry in os.listdir(site.rsctmp):
            if "dagent" in entry:
                os.unlink(os.path.join(site.rsctmp, entry))
        assert sane("monitor", site.agent("dagent", "monitor", params={"pidfile": path})).rc == 0
    check()
    assert site.pids("dagent") == pids


@pytest.mark.parametrize("text", [b"", b"<?php", b"<?php define('DEFAULT_SERVER', 'x y');", b"\0\xff" * 5000,
                                  b"<?php define('DEFAULT_SERVER', 'http://[');", b"<?php /* " + b"*" * 50000,
                                  b"<?php define('DEFAULT_SERVER', \"$x\");", b"<?php " + b"define(" * 20000],
                         ids=["empty", "nothing", "space", "no text", "no address", "comment", "variable", "nested"])
def test_any_configuration_of_webapp(world11, tmp_path, text):
    put(str(tmp_path / "config.php"), text)
    params = {"config": str(tmp_path / "config.php"), "url": "http://127.0.0.1:1/", "status_url": ""}
    sane("validate-all", world11.agent("webapp-health", "validate-all", level=10, params=params))
    with Peer(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
              b"<form><input name=\"username\"><input name=\"password\"></form>") as peer:
        params["url"] = "http://127.0.0.1:%d/" % peer.port
        assert sane("start", world11.agent("webapp-health", "start", params=params)).rc == 0
        result = sane("monitor", world11.agent("webapp-health", "monitor", level=20, params=params, timeout=5))
        assert result.rc == 190, result
    assert world11.agent("webapp-health", "stop", params=params).rc == 0


# ---- the network

class Peer:
    """A listener that sends these pieces to whoever comes, one after another or what is asked, and closes.

    hold   stay silent after that instead, until the client goes
    pause  seconds between the pieces
    endless  repeat the last piece for ever
    """

    def __init__(self, *pieces, path=None, hold=False, pause=0.0, endless=False):
        self.pieces, self.hold, self.pause, self.endless = pieces, hold, pause, endless
        self._sock = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        self._sock.bind(path or ("127.0.0.1", 0))
        self._sock.listen(50)
        self.port = None if path else self._sock.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection = self._sock.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with contextlib.suppress(OSError), connection:
            connection.settimeout(20)
            for piece in self.pieces:
                connection.sendall(piece)
                time.sleep(self.pause)
            while self.endless:
                connection.sendall(self.pieces[-1])
                time.sleep(self.pause)
            if not self.hold:
                connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()


WORDS = {
    "imap": [b"* OK ready", b"* BYE", b"* PREAUTH", b"a1 OK done", b"a1 NO", b"a1 BAD", b"a2 OK", b"+ go", b"* {5}",
             b"* {9999999}", b"* {-1}", b"*", b"a1", b"* 1 EXISTS"],
    "pop3": [b"+OK ready", b"-ERR", b"+OK", b"CAPA", b".", b"+OKAY", b"+", b"..", b"-ERR [SYS/TEMP] away"],
    "lmtp": [b"220 ready", b"220-more", b"220", b"421 later", b"450 no", b"550", b"2200 x", b"22", b"221 bye", b"abc"],
    "http": [b"HTTP/1.1 200 OK", b"HTTP/1.1 200", b"HTTP/1.1 999 X", b"HTTP/9.9 200 OK", b"HTTP/1.1 100 Continue", b"",
             b"Server: gSOAP/2.8", b"Server: Kopano", b"Allow: OPTIONS", b"Content-Length: 0", b"Content-Length: 5",
             b"Content-Length: -1", b"Content-Length: 99999999999", b"Content-Length: \xb2",
             b"Transfer-Encoding: chunked", b"5", b"ffffffffff", b"0", b"hello", b": x", b" folded", b"<er>0</er>",
             b"<er>2147483655</er>", b"<er>x</er>",
             b"<ulSessionId>1</ulSessionId>", b"<ulSessionId>" + b"9" * 3000 + b"</ulSessionId>", b"Connection: close",
             b"HTTP/1.1 401 Unauthorized"],
}


def answers(kind):
    """Strategy of what a peer sends: words of the protocol in any order, split anywhere, with anything between them."""
    line = st.one_of(st.sampled_from(WORDS[kind]), st.sampled_from(WORDS[kind]), st.binary(max_size=40))
    whole = st.lists(st.tuples(line, st.sampled_from([b"\r\n", b"\r\n", b"\n", b"\r", b""])), max_size=8).map(
        lambda lines: b"".join(text + end for text, end in lines))

    def split(data, places):
        places = sorted(place % (len(data) + 1) for place in places)
        return [piece for piece in (data[a:b] for a, b in zip([0] + places, places + [len(data)])) if piece]
    return st.builds(split, whole, st.lists(st.integers(0, 400), max_size=3))


TALKS = [("gateway", "imap", "imap"), ("gateway", "pop3", "pop3"), ("dagent", "lmtp", "lmtp"),
         ("server", "http", "http"), ("ical", "http", "http"), ("gateway", "imaps", "imap"), ("ical", "https", "http")]
talks = pytest.mark.parametrize("name, scheme, kind", TALKS, ids=["%s-%s" % entry[:2] for entry in TALKS])
g11 = pytest.mark.parametrize("generation", [11], indirect=True, ids=["g11"])


@g11
@talks
def test_any_answer_from_the_network(site, name, scheme, kind):
    @given(pieces=answers(kind))
    @examples(20)
    def check(pieces):
        with Peer(*pieces) as peer:
            result = sane("monitor", site.agent(name, "monitor", timeout=5, params={
                "listen": "%s://127.0.0.1:%d" % (scheme, peer.port)}), 5)
        assert result.rc in (0, 1, 190), result
    check()


@g11
def test_any_answer_to_the_deep_check(site):
    """kopano-server's own socket, at depth 20: all its answers on one connection."""
    @given(pieces=st.lists(answers("http"), min_size=1, max_size=3).map(lambda parts: sum(parts, [])))
    @examples(25)
    def check(pieces):
        for entry in os.listdir(site.rsctmp):
            if "deep" in entry:
                os.unlink(os.path.join(site.rsctmp, entry))
        with contextlib.suppress(FileNotFoundError):
            os.unlink("/tmp/peer.sock")
        head = b"HTTP/1.1 200 OK\r\nServer: gSOAP/2.8\r\nContent-Length: 0\r\n\r\n"
        with Peer(*([head] + pieces), path="/tmp/peer.sock"):
            result = sane("monitor", site.agent("server", "monitor", level=20, timeout=5, params={
                "listen": "unix:/tmp/peer.sock"}), 5)
        assert result.rc in (1, 190), result
    check()


@g11
@pytest.mark.parametrize("talk, how", [(talk, how) for talk in TALKS for how in (
    "endless line", "reset", *(("silent", "drip", "endless") if talk in TALKS[:4] else ()))],
    ids=lambda value: value if isinstance(value, str) else "-".join(value[:2]))
def test_peers_that_never_come_to_an_end(site, talk, how):
    """Within the time that Pacemaker gives, with a verdict, and without eating up memory."""
    name, scheme, kind = talk
    first = WORDS[kind][0]
    peer = {"silent": lambda: Peer(hold=True), "drip": lambda: Peer(first[:1], b"x", pause=0.1, endless=True),
            "endless": lambda: Peer(first + b"\r\n", b"* x\r\n" * 1000, endless=True),
            "endless line": lambda: Peer(first, b"x" * 65536, endless=True), "reset": Peer}[how]()
    with peer:
        result = sane("monitor", site.agent(name, "monitor", timeout=2.5, params={
            "listen": "%s://127.0.0.1:%d" % (scheme, peer.port)}), 2.5)
    assert result.rc in (0, 1, 190), result
