# SPDX-License-Identifier: GPL-2.0-or-later
"""Kopano's configuration as the daemons read it."""
import os
import time

import pytest
from hypothesis import given, settings, strategies as st

from kopano_ocf import kopano_cfg
from kopano_ocf.endpoint import Endpoint, parse
from kopano_ocf.kopano_cfg import ConfigError, Missing, Rejected, Settings, Unasked, bindspec, dump, read


@pytest.fixture
def cfg(tmp_path):
    """Write a configuration file; its path."""
    def write(text, name="server.cfg"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)
    return write


def urls(daemon, values, environ=None):
    return [str(e) for e in Settings(daemon, values, "x.cfg", environ or {}).endpoints()]


# ---------------------------------------------------------------- syntax

@pytest.mark.parametrize("text, wanted", [
    ("a = b\n", {"a": "b"}),
    ("a=b", {"a": "b"}),
    ("\t a \t=\t b c \t\n", {"a": "b c"}),
    ("a = b\r\nc = d\r\n", {"a": "b", "c": "d"}),
    ("# a = b\n#a = b\n", {}),
    ("a = b # no comment\n", {"a": "b # no comment"}),
    (" # a = b\n", {"# a": "b"}),               # a comment starts in column 1 only
    ("a = b = c\n", {"a": "b = c"}),
    ("a =\n", {"a": ""}),
    ("no equals sign\n\n= x\n", {}),
    ("a = 1\na = 2\n", {"a": "2"}),
    ("a = 1\rb = 2\n", {"a": "1\rb = 2"}),      # a lone CR ends no line
    ("", {}),
    ("a = \xe4\n", {"a": "\xe4"}),
    (b"a = \xe4\n", {"a": "\udce4"}),           # Latin-1 from the old days
    (b"\xef\xbb\xbfa = b\n", {"\ufeffa": "b"}),      # the daemons know no byte order mark either
])
def test_lines(cfg, text, wanted):
    assert read(cfg(text)) == wanted


def test_long_values_are_cut_like_the_daemons_do(cfg):
    assert read(cfg("a = " + "x" * 2000))["a"] == "x" * 1023
    umlauts = "\xe4" * 1000
    assert read(cfg("a = " + umlauts))["a"].encode("utf-8", "surrogateescape") == umlauts.encode()[:1023]


def test_a_line_over_4095_bytes_goes_on_as_a_new_line(cfg):
    assert read(cfg("#" + "x" * 4094 + "b = c\n")) == {"b": "c"}


def test_the_last_assignment_is_the_last_in_order(cfg):
    assert list(read(cfg("a = 1\nb = 2\na = 3\n"))) == ["b", "a"]


def test_environment(cfg):
    values = read(cfg("a = $HERE\nb = $GONE\nmysql_password = $HERE\nc = x$HERE\n"), {"HERE": "found"})
    assert values == {"a": "found", "b": "$GONE", "mysql_password": "$HERE", "c": "x$HERE"}
    assert len(values.notes) == 1 and "b = $GONE" in values.notes[0]


def test_include(cfg, tmp_path):
    (tmp_path / "more").mkdir()
    cfg("a = more\n!include last.cfg\n", "more/some.cfg")
    cfg("c = last\n", "more/last.cfg")
    values = read(cfg("a = first\nb = first\n!include more/some.cfg\n"))
    assert values == {"a": "more", "b": "first", "c": "last"}


def test_an_include_of_itself_ends(cfg):
    assert read(cfg("a = 1\n!include server.cfg\n!include ./server.cfg\nb = 2\n")) == {"a": "1", "b": "2"}


def test_endless_includes_end(cfg):
    for i in range(40):
        cfg("!include %d.cfg\n" % (i + 1), "%d.cfg" % i)
    with pytest.raises(ConfigError) as caught:
        read(cfg("!include 0.cfg\n"))
    assert "files included within each other" in str(caught.value)


def test_a_missing_include_is_an_error_of_the_including_file(cfg):
    path = cfg("!include nowhere.cfg\n")
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert not isinstance(caught.value, Missing)
    assert str(caught.value).startswith(path + ": !include: 'nowhere.cfg': No such file or directory; ")


@pytest.mark.parametrize("line", ["!propmap /etc/kopano/x.cfg", "!include", "!frobnicate x", "!"])
def test_other_directives_are_noted(cfg, line):
    values = read(cfg(line + "\na = 1\n"))
    assert values == {"a": "1"} and len(values.notes) == 1


@pytest.mark.parametrize("make, words", [
    (lambda p: None, "No such file or directory"),
    (os.mkdir, "not a regular file"),
    (os.mkfifo, "not a regular file"),
    (lambda p: os.symlink(p, p), "Too many levels"),
    (lambda p: os.symlink("/dev/zero", p), "not a regular file"),
    (lambda p: os.symlink("/dev/full", p), "not a regular file"),
    (lambda p: open(p, "wb").write(b"a = 1\n" + b"\0" * 100), "binary data in line 2"),
    (lambda p: open(p, "wb").write(b"#" * (2 << 20)), "larger than 1048576 bytes"),
])
def test_odd_files_never_hang(tmp_path, make, words):
    path = str(tmp_path / "x.cfg")
    make(path)
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert path in str(caught.value) and words in str(caught.value)
    assert isinstance(caught.value, Missing) == (words.startswith("No such"))


def test_a_nul_byte_in_the_name():
    with pytest.raises(ConfigError):
        read("/etc/kopano\0/server.cfg")


def test_secrets_are_never_shown(cfg):
    values = read(cfg("mysql_password = geheim\nserver_ssl_key_pass = geheim\nsslkey_pass = geheim\n"))
    conf = Settings("server", values, "server.cfg", {})
    shown = [repr(values), str(values), repr(conf), str(conf), repr(conf.database()), str(conf.database()),
             repr(ConfigError("f", "mysql_password", "geheim", "bad")),
             str(ConfigError("f", "mysql_password", "geheim", "bad"))]
    assert not [text for text in shown if "geheim" in text]
    assert conf.database().password == "geheim"


def test_messages_are_one_printable_line():
    text = str(ConfigError("/etc/\n\udce4.cfg", "key\n", "v\x1b[2J\n" + "x" * 300, "wrong", "do that"))
    assert "\n" not in text and "\x1b" not in text and len(text) < 250
    text.encode("ascii")


# ---------------------------------------------------------------- where a daemon listens

@pytest.mark.parametrize("daemon, values, wanted", [
    # 11: the defaults
    ("server", {}, ["http://*%lo:236", "soap+unix:/var/run/kopano/server.sock",
                    "soap+unix:/var/run/kopano/prio.sock"]),
    ("dagent", {}, ["lmtp://*%lo:2003"]),
    ("gateway", {}, ["imap://*%lo:143", "pop3://*%lo:110"]),
    ("ical", {}, ["http://*%lo:8080"]),
    ("spooler", {}, []),
    ("monitor", {}, []),
    # 8.7 and later
    ("server", {"server_listen": "192.168.122.100:236 [fd00::1]%eth0:2360", "server_listen_tls": "*:237",
                "server_pipe_enabled": "no", "server_pipe_priority": "/run/p"},
     ["http://192.168.122.100:236", "http://[fd00::1]%eth0:2360", "https://*:237", "soap+unix:/run/p"]),
    ("server", {"server_listen": "", "server_pipe_name": "/a run/b"},
     ["soap+unix:/a", "soap+unix:/run/b", "soap+unix:/var/run/kopano/prio.sock"]),
    ("server", {"server_listen": "unix:/run/extra.sock  *:236"},
     ["soap+unix:/run/extra.sock", "http://*:236", "soap+unix:/var/run/kopano/server.sock",
      "soap+unix:/var/run/kopano/prio.sock"]),
    ("server", {"server_listen": "sctp:*:236", "server_pipe_enabled": "false", "server_pipe_priority": ""},
     []),
    ("server", {"server_listen": "", "server_pipe_name": "run/s", "server_pipe_priority": "run/p"},
     ["soap+unix:/run/s", "soap+unix:/run/p"]),
    ("dagent", {"lmtp_listen": "*:2003 *:2003"}, ["lmtp://*:2003"]),
    ("dagent", {"lmtp_listen": ":2003"}, ["lmtp://*:2003"]),
    ("gateway", {"imap_listen": "", "pop3_listen": "", "imaps_listen": "*:993", "pop3s_listen": "[::]:995"},
     ["imaps://*:993", "pop3s://[::]:995"]),
    ("ical", {"icals_listen": "*:8443"}, ["http://*%lo:8080", "https://*:8443"]),
    # 8.5, 8.6: both
    ("server", {"server_listen": "*", "server_tcp_enabled": "no", "server_pipe_enabled": "no",
                "server_pipe_priority": ""}, ["http://*:236"]),
    ("server", {"server_listen": "", "server_listen_tls": "1.2.3.4", "server_tcp_enabled": "no",
                "server_pipe_enabled": "no", "server_pipe_priority": ""}, ["https://1.2.3.4:237"]),
    ("server", {"server_listen": "", "server_tcp_enabled": "yes", "server_ssl_enabled": "yes",
                "server_pipe_enabled": "no", "server_pipe_priority": ""}, ["http://*:236", "https://*:237"]),
    ("server", {"server_listen": "*:1 *:2", "server_bind": "10.0.0.1", "server_pipe_enabled": "no",
                "server_pipe_priority": ""}, ["http://*:1", "http://*:2"]),
    # 8.0 to 8.4, as in the manual
    ("server", {"server_bind": "192.168.122.100", "server_pipe_priority": ""},
     ["http://192.168.122.100:236", "soap+unix:/var/run/kopano/server.sock"]),
    ("server", {"server_tcp_enabled": "no", "server_pipe_priority": ""},
     ["soap+unix:/var/run/kopano/server.sock"]),
    ("server", {"server_port": "1236", "unix_socket": "/run/s", "server_pipe_priority": "",
                "server_ssl_enabled": "yes", "server_ssl_port": "1237"},
     ["http://*:1236", "https://*:1237", "soap+unix:/run/s"]),
    ("dagent", {"server_bind": "192.168.122.100"}, ["lmtp://192.168.122.100:2003"]),
    ("dagent", {"lmtp_port": "24", "server_bind_intf": "eth0"}, ["lmtp://*%eth0:24"]),
    ("gateway", {"server_bind": "::1", "imaps_enable": "yes", "pop3_enable": "no"},
     ["imap://[::1]:143", "imaps://[::1]:993"]),
    ("gateway", {"pop3s_enable": "yes", "pop3s_port": "1995", "imap_enable": "no"},
     ["pop3://*:110", "pop3s://*:1995"]),
    ("ical", {"ical_enable": "YES", "icals_enable": "yes", "server_bind": "mail.example.org"},
     ["http://mail.example.org:8080", "https://mail.example.org:8443"]),
])
def test_endpoints(daemon, values, wanted):
    assert urls(daemon, values) == wanted


@pytest.mark.parametrize("generation, pid_file", [("8", "/run8/%s.pid"), ("11", None)])
@pytest.mark.parametrize("daemon", kopano_cfg.DAEMONS)
def test_the_daemons_own_words(generation, pid_file, daemon):
    """What real daemons printed is understood, defaults and continued lines included."""
    path = os.path.join(os.path.dirname(__file__), "dump-config", generation, daemon + ".txt")
    with open(path, "rb") as file:
        values = kopano_cfg._parse_dump(file.read())
    conf = Settings(daemon, values, environ={})
    listening = {
        "server": ["http://127.0.0.1:10236", "https://127.0.0.1:10237",
                   "soap+unix:/run%s/server.sock", "soap+unix:/run%s/prio.sock"],
        "dagent": ["lmtp://127.0.0.1:12003"],
        "gateway": ["imap://127.0.0.1:10143", "imaps://127.0.0.1:10993",
                    "pop3://127.0.0.1:10110", "pop3s://127.0.0.1:10995"],
        "ical": ["http://127.0.0.1:18080", "https://127.0.0.1:18443"], "spooler": [], "monitor": []}[daemon]
    own = "8" if generation == "8" else ""
    assert [str(e) for e in conf.endpoints()] == [u % own if "%s" in u else u for u in listening]
    assert conf.run_as_user == "nobody" and conf.run_as_group == "nogroup"
    if (generation, daemon) == ("11", "ical"):
        assert conf.pid_file == "/var/run/kopano/ical.pid"      # listed, yet never written
    else:
        assert conf.pid_file == (pid_file % daemon if pid_file else None)
    if daemon == "server":
        assert str(conf.database().port) == "13306" and conf.database().password == "kopano"
    else:
        assert str(conf.server()) == "soap+unix:/run%s/server.sock" % own
    if daemon == "dagent":
        assert values["forward_whitelist_domain_message"].endswith("setting.")
        assert conf.given("lmtp_listen") and not conf.given("lmtp_max_threads")


def test_pid_file_of_an_unknown_version():
    assert Settings("dagent", {}, environ={}).pid_file == "/var/run/kopano/dagent.pid"
    assert Settings("dagent", {"pid_file": "/x"}, environ={}).pid_file == "/x"
    assert Settings("dagent", {"pid_file": ""}, environ={}).pid_file is None


@pytest.mark.parametrize("daemon, values, environ, wanted", [
    ("dagent", {}, {}, "soap+unix:/var/run/kopano/server.sock"),
    ("gateway", {}, {}, "http://localhost:236"),
    ("dagent", {"server_socket": "default:"}, {"KOPANO_SOCKET": "http://192.168.122.100:236/"},
     "http://192.168.122.100:236"),
    ("spooler", {"server_socket": ""}, {"KOPANO_SOCKET": "file:///x"}, "soap+unix:/x"),
    ("gateway", {}, {"KOPANO_SOCKET": "file:///x"}, "http://localhost:236"),
    ("spooler", {"server_socket": "file://run/x"}, {}, "soap+unix:/run/x"),
    ("ical", {"server_socket": "https://[fd00::1]:237/kopano"}, {}, "https://[fd00::1]:237"),
    ("ical", {"server_socket": "http://mail"}, {}, "http://mail:80"),
    ("ical", {"server_socket": "https://mail/kopano"}, {}, "https://mail:443"),
])
def test_server(daemon, values, environ, wanted):
    assert str(Settings(daemon, values, environ=environ).server()) == wanted


@pytest.mark.parametrize("text", ["ftp://x", "/run/x", "http:x", "http://a b:236/", "http://::1/", "file://",
                                  "http://x:0/"])
def test_bad_server_socket(text):
    with pytest.raises(ConfigError) as caught:
        Settings("gateway", {"server_socket": text}, "gw.cfg", {}).server()
    assert str(caught.value).startswith("gw.cfg: server_socket: '%s': " % text)


def test_bad_listen_names_file_key_and_value():
    with pytest.raises(ConfigError) as caught:
        Settings("server", {"server_listen": "*:236 foo:236"}, "server.cfg", {}).endpoints()
    assert str(caught.value) == ("server.cfg: server_listen: 'foo:236': 'foo' is not an address "
                                 "(host names are not accepted); write it as ADDRESS:PORT or *:PORT")


@pytest.mark.parametrize("daemon, key", [("server", "server_listen"), ("gateway", "imap_listen"),
                                         ("ical", "ical_listen")])
def test_since_8_7_the_port_must_be_given(daemon, key):
    with pytest.raises(ConfigError):
        Settings(daemon, {key: "*"}, "x.cfg", {}).endpoints()


def test_database_defaults_and_bad_port():
    base = Settings("server", {}, environ={}).database()
    assert (base.host, base.port, base.socket) == ("localhost", 3306, "")
    assert (base.user, base.password, base.name) == ("root", "", "kopano")
    for port in ("0", "65536", "x", "-1", "123456", "\u0661"):
        with pytest.raises(ConfigError):
            Settings("server", {"mysql_port": port}, environ={}).database()


# ---------------------------------------------------------------- bind specifications

@pytest.mark.parametrize("text", [
    "", "x", "foo:236", "1.2.3.4", "1.2.3.4:", "1.2.3.4:0", "1.2.3.4:65536", "1.2.3.4:+1", "1.2.3.4:1x",
    "[::1]", "[::1", "::1:236", "*", "*%lo", "*%a-name-longer-than-15:1", "1.2.3.4%..//x:1", "unix:",
    "unix:" + "x" * 200, "a b:1", "*:1\0", "1.2.3.4:\u0661", "\u0661.2.3.4:1",
    "*:" + "9" * 5000, "[::1]x:1", "[%]:1", "1.2.3.4%%lo:1:2",
])
def test_bad_bindspecs(text):
    with pytest.raises(ValueError) as caught:
        bindspec(text, "soap", False)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


@given(st.text(max_size=60))
def test_any_bindspec(text):
    try:
        found = bindspec(text, "soap", False)
    except ValueError as err:
        assert "\n" not in str(err)
    else:
        assert found.path.startswith("/") or 0 < found.port < 65536


@given(st.ip_addresses() if hasattr(st, "ip_addresses") else st.just("127.0.0.1"), st.integers(1, 65535),
       st.sampled_from(["", "lo", "eth0"]))
def test_every_good_bindspec(address, port, device):
    text = "[%s]" % address if ":" in str(address) else str(address)
    assert bindspec("%s%s:%d" % (text, "%" + device if device else "", port), "imap", True) == \
        Endpoint("imap", True, str(address), port, device=device)


# ---------------------------------------------------------------- any bytes

LINES = st.lists(st.one_of(
    st.binary(max_size=40),
    st.sampled_from(sorted(k.encode() + b" = " for k in kopano_cfg._DEFAULTS["server"])).flatmap(
        lambda key: st.binary(max_size=30).map(lambda value: key + value)),
    st.sampled_from([b"!include x.cfg", b"!propmap a", b"server_listen = *:236", b"\xef\xbb\xbf",
                     b"mysql_port=$X"]),
), max_size=12).map(b"\n".join)


@settings(max_examples=200, deadline=None)
@given(LINES)
def test_a_file_of_any_bytes(tmp_path_factory, data):
    path = str(tmp_path_factory.mktemp("any") / "server.cfg")
    with open(path, "wb") as file:
        file.write(data)
    try:
        values = read(path, {"X": "y"})
        for daemon in kopano_cfg.DAEMONS:
            conf = Settings(daemon, values, path, {})
            for ask in (conf.endpoints, conf.database, conf.server, lambda: conf.pid_file):
                try:
                    ask()
                except ConfigError as err:
                    assert "\n" not in str(err)
    except ConfigError as err:
        assert "\n" not in str(err)


@settings(deadline=None)
@given(st.binary(max_size=400), st.binary(max_size=200))
def test_a_dump_of_any_bytes(out, said):
    kopano_cfg._parse_dump(out)
    kopano_cfg._complaint(said)


# ---------------------------------------------------------------- asking the daemon

@pytest.fixture
def daemon(tmp_path):
    """A program that answers --dump-config as told in shell; its path."""
    def make(script, name="kopano-server"):
        path = tmp_path / name
        path.write_text("#!/bin/sh\n" + script)
        path.chmod(0o755)
        return str(path)
    return make


def alive_in_session(session):
    """Names of the processes of a session that are no zombies."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/stat" % pid) as file:
                name, _, rest = file.read().rpartition(")")
        except OSError:
            continue
        if rest.split()[0] != "Z" and int(rest.split()[3]) == session:
            found.append(name)
    return found


def soon(seconds=10):
    return time.monotonic() + seconds


def test_dump(daemon):
    values = dump(daemon("echo 'a = 1'; echo '# b = 2'; echo more; echo; echo 'c ='; echo noise >&2"),
                  "/x.cfg", [], soon())
    assert values == {"a": "1", "b": "2\nmore", "c": ""}
    assert values.dumped and values.defaults == {"b"}


def test_dump_is_asked_with_the_callers_words(daemon, tmp_path):
    path = daemon("echo \"argv = $*\"; echo \"locale = $LC_ALL\"; echo \"cwd = $PWD\"\n"
                  "echo \"input = $(readlink /proc/self/fd/0)\"\n"
                  "echo \"session = $(cut -d ' ' -f 6 /proc/$$/stat) $$\"", "kopano-dagent")
    values = dump(path, "/etc/kopano/dagent.cfg", ["-l"], soon())
    assert values["argv"] == "-l -c /etc/kopano/dagent.cfg --dump-config"
    assert (values["locale"], values["cwd"], values["input"]) == ("C.UTF-8", "/", "/dev/null")
    assert len(set(values["session"].split())) == 1
    assert dump(path, "", ["-l"], soon())["argv"] == "-l --dump-config"


@pytest.mark.parametrize("code", [0, 1, 255])
def test_rejected_whatever_the_exit_code(daemon, cfg, code):
    path = cfg("bogus_key = 7\n")
    binary = daemon("echo '[crit   ] Config error: Unknown option \"bogus_key\" found!' >&2\n"
                    "echo '[=======] Server shutdown complete.' >&2; exit %d" % code)
    with pytest.raises(Rejected) as caught:
        dump(binary, path, [], soon())
    assert str(caught.value) == (path + ": bogus_key: '7': kopano-server says: Unknown option \"bogus_key\" "
                                 "found!; correct or remove it")


def test_rejected_old_name_names_the_new_one(daemon, cfg):
    binary = daemon("echo '[crit   ] Config error: Unknown option \"server_tcp_port\" found!' >&2\n"
                    "echo '[crit   ] Config error: Unknown option \"server_bind\" found!' >&2; exit 255")
    with pytest.raises(Rejected) as caught:
        dump(binary, cfg("server_tcp_port = 236\n"), [], soon())
    assert str(caught.value).endswith(
        "server_tcp_port: '236': kopano-server says: Unknown option \"server_tcp_port\" found! (and 1 more); "
        "since Kopano 8.7 use server_listen")


def test_rejected_names_an_empty_option(daemon, cfg):
    binary = daemon("echo \"[crit   ] Config error: Option 'server_pipe_name' cannot be empty!\" >&2\n"
                    "exit 255")
    with pytest.raises(Rejected) as caught:
        dump(binary, cfg("server_pipe_name =\n"), [], soon())
    assert caught.value.key == "server_pipe_name"


def test_rejected_never_shows_a_secret(daemon, cfg):
    binary = daemon("echo '[crit   ] Config error: Unknown option \"mysql_passwort\" found!' >&2; exit 255")
    with pytest.raises(Rejected) as caught:
        dump(binary, cfg("mysql_passwort = geheim\n"), [], soon())
    assert "geheim" not in str(caught.value) and "mysql_passwort" in str(caught.value)


def test_rejected_without_a_word(daemon):
    with pytest.raises(Rejected) as caught:
        dump(daemon("exit 0", "kopano-dagent"), "/x.cfg", ["-l"], soon())
    assert "exit code 0" in str(caught.value)


@pytest.mark.parametrize("script", [
    "exec sleep 60",
    "sleep 60",
    "echo 'a = 1'; sleep 60",
    "exec >&- 2>&-; sleep 60",
    "trap '' TERM; while :; do sleep 1; done",
    "while :; do echo x = y; done",
    "while :; do echo x >&2; done",
])
def test_dump_ends_in_time_and_leaves_nothing(daemon, tmp_path, script):
    begin = time.monotonic()
    with pytest.raises(Unasked):
        dump(daemon("echo $$ >%s/pid\n" % tmp_path + script), "/x.cfg", [], soon(0.7))
    assert time.monotonic() - begin < 3
    pid = int((tmp_path / "pid").read_text())
    end = soon(5)
    while alive_in_session(pid):
        assert time.monotonic() < end, "left behind: %s" % alive_in_session(pid)


def test_dump_does_not_wait_for_a_grandchild(daemon, tmp_path):
    begin = time.monotonic()
    values = dump(daemon("sleep 30 & echo $! >%s/pid; echo 'a = 1'" % tmp_path), "/x.cfg", [], soon(20))
    assert values == {"a": "1"} and time.monotonic() - begin < 5
    os.kill(int((tmp_path / "pid").read_text()), 9)


@pytest.mark.parametrize("binary", ["/nowhere/kopano-server", "/etc/passwd", "/tmp", "/x\0y"])
def test_dump_of_what_can_not_be_run(binary):
    with pytest.raises(Unasked) as caught:
        dump(binary, "/x.cfg", [], soon())
    assert "\0" not in str(caught.value)


def test_a_version_without_dump_config(daemon):
    """Before 8.6 the option counts as a setting without a value."""
    binary = daemon("echo \"[crit   ] Config error: Commandline option 'dump-config' cannot be empty!\" >&2\n"
                    "exit 255")
    with pytest.raises(Unasked):
        dump(binary, "/x.cfg", [], soon())


def test_endpoints_read_back():
    for daemon_name in kopano_cfg.DAEMONS:
        for endpoint in Settings(daemon_name, {}, environ={}).endpoints():
            assert parse(str(endpoint), endpoint.protocol) == endpoint
