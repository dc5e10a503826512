# SPDX-License-Identifier: GPL-2.0-or-later
"""validate-all: silent when all is well, and one line for each thing that is not."""
import os
import subprocess
import time

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from kopano_ocf import host, validate, validate_kopano
from kopano_ocf.host import Host
from kopano_ocf.validate import ERROR, WARNING

from .tree import AGENTS, GOOD, ME, OTHER, TOO_OLD, called


@pytest.mark.parametrize("name", sorted(AGENTS))
def test_silent_when_all_is_well(tree, name):
    tree.write("/etc/kopano/webapp/config.php",
               '<?php\ndefine("DEFAULT_SERVER", "http://192.168.122.100:236/kopano");\n')
    tree.write("/etc/postfix/main.cf", "virtual_transport = lmtp:192.168.122.100:2003\n")
    tree.cluster()
    assert tree.texts(name) == []
    assert validate.validate(AGENTS[name], called(name), 0, tree.root) == []


# ---------------------------------------------------------------- level 0

@pytest.mark.parametrize("name, parameter, value, words", [
    ("server", "binary", "sbin/kopano-server", "relative path"),
    ("server", "config", "server.cfg", "not a path from /"),
    ("server", "config", "/etc/a\nb", "control character"),
    ("server", "pidfile", "x", "not a path from /"),
    ("server", "stop_escalate", "0", "not a number from 1 to 3600"),
    ("server", "stop_escalate", "x", "not a number"),
    ("server", "stop_escalate", "-5", "not a number"),
    ("server", "stop_escalate", "\u0665", "not a number"),
    ("server", "stop_escalate", "9" * 4000, "not a number"),
    ("server", "tls_verify", "maybe", "not a boolean"),
    ("server", "listen", "192.168.122.100:236", "not one of http: https: unix:"),
    ("server", "listen", "http://192.168.122.100:99999", "99999"),
    ("server", "listen", "lmtp://127.0.0.1:2003", "not one of"),
    ("server", "listen", "unix:run/server.sock", "absolute path"),
    ("server", "listen", "   ", "no endpoint"),
    ("dagent", "listen", "http://127.0.0.1:2003", "not one of lmtp: unix:"),
    ("gateway", "listen", "imap://[::1", "IPv6"),
    ("server", "options", "--config=/etc/other.cfg", "use the parameter config"),
    ("server", "options", "-c /etc/other.cfg", "use the parameter config"),
    ("server", "options", "'unclosed", "close the quotes"),
    ("server", "options", "-V", "ends at once"),
    ("dagent", "options", "-F", "another program"),
    ("dagent", "options", "-d", "another program"),
    ("webapp-health", "url", "ftp://x/", "not a URL"),
    ("webapp-health", "url", "http://", "not a URL"),
    ("webapp-health", "url", "http://a b/", "white space"),
    ("webapp-health", "url", "http://x:0/", "port"),
    ("webapp-health", "url", "http://*/", "no host"),
    ("webapp-health", "match", "(", "not a regular expression"),
    ("webapp-health", "attribute", "a b", "not a node attribute's name"),
])
def test_parameters_wrong_in_themselves(name, parameter, value, words):
    found = validate.validate(AGENTS[name], called(name, **{parameter: value}), 0)
    assert [(f.severity, f.code) for f in found] == [(ERROR, 6)]
    assert found[0].text.startswith("parameter %s = " % parameter) and words in found[0].text


@pytest.mark.parametrize("name, parameters", [
    ("server", {"listen": "http://192.168.122.100:236 unix:/run/kopano/server.sock https://[fd00::1]:237"}),
    ("gateway", {"listen": "imap://127.0.0.1 imaps://127.0.0.1 pop3://127.0.0.1 pop3s://127.0.0.1:1995"}),
    ("dagent", {"listen": "lmtp://*%lo:2003", "options": "-v -q 'a b'"}),
    ("ical", {"test_user": "ocf", "test_password_file": "/etc/kopano/ocf.secret", "tls_verify": "Yes"}),
    ("webapp-health", {"url": "https://user:pw@mail.example.org:8443/webapp?x=http://y", "match": "a|b",
                       "attribute": "#health-webapp"}),
    ("server", {"binary": "/opt/kopano-server", "stop_escalate": " 60 ", "tls_verify": ""}),
])
def test_good_parameters(name, parameters):
    assert validate.validate(AGENTS[name], called(name, **parameters), 0) == []


def test_half_a_login_is_a_warning():
    for name in ("test_user", "test_password_file"):
        found = validate.validate(AGENTS["gateway"], called("gateway", **{name: "/x"}), 0)
        assert [f.severity for f in found] == [WARNING] and name in found[0].text


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(sorted(AGENTS)), st.data())
def test_any_parameter(name, data):
    agent = AGENTS[name]
    parameter = data.draw(st.sampled_from([p.name for p in agent.parameters]))
    value = data.draw(st.text(st.characters(blacklist_characters="\0"), max_size=60))
    for finding in validate.validate(agent, called(name, **{parameter: value}), 0):
        assert finding.code in (0, 6) and "\n" not in finding.text


def test_level_0_looks_at_nothing(monkeypatch):
    def opened(*_, **__):
        raise AssertionError("the host was looked at")
    calls = [(name, called(name)) for name in AGENTS]
    for name in ("open", "stat", "lstat", "listdir", "readlink", "access"):
        monkeypatch.setattr(os, name, opened)
    for name, call in calls:
        assert validate.validate(AGENTS[name], call, 0) == []


# ---------------------------------------------------------------- binary and configuration

def test_missing_binary(tree):
    os.remove(tree.root + "/usr/sbin/kopano-server")
    assert tree.texts("server") == ["ERROR: parameter binary = kopano-server: not found in PATH, /usr/sbin, "
                                    "/usr/local/sbin; install Kopano on this node or correct it"]
    assert "no such executable" in tree.texts("server", binary="/usr/sbin/kopano-server")[0]


def test_binary_that_is_not_executable(tree):
    os.chmod(tree.root + "/usr/sbin/kopano-server", 0o644)
    assert tree.findings("server")[0].code == 5


def test_missing_config(tree):
    os.remove(tree.root + "/etc/kopano/spooler.cfg")
    found = tree.findings("spooler")
    assert [(f.severity, f.code) for f in found] == [(ERROR, 5)]
    assert found[0].text == ("/etc/kopano/spooler.cfg: No such file or directory; copy it to this node, or "
                             "correct the parameter config")


@pytest.mark.parametrize("name", sorted(GOOD))
def test_missing_config_is_all_that_is_told(tree, name):
    tree.cluster()
    tree.write("/etc/postfix/main.cf", "virtual_transport = lmtp:127.0.0.1:1\n")
    os.remove(tree.root + "/etc/kopano/%s.cfg" % name)
    assert [f.severity for f in tree.findings(name)] == [ERROR]


def test_dagent_is_asked_as_the_lmtp_server(tree):
    """Without -l it would wait for a mail on its standard input."""
    tree.write("/usr/sbin/kopano-dagent",
               "#!/bin/sh\n[ \"$1\" = -l ] && echo 'lmtp_listen = 192.0.2.1:2003'\n", 0o755)
    assert "192.0.2.1 is not an address" in tree.texts("dagent")[0]


def test_options_count_too(tree):
    tree.write("/usr/sbin/kopano-ical",
               "#!/bin/sh\n[ \"$1\" = --ical-listen=x ] && echo 'ical_listen = x'\n", 0o755)
    assert "ical_listen = x" in tree.texts("ical", options="--ical-listen=x")[0]


@pytest.mark.parametrize("name", sorted(GOOD))
def test_config_that_the_daemon_rejects(tree, name):
    tree.add(name, "bogus = 5\n")
    found = tree.findings(name)
    assert [(f.severity, f.code) for f in found] == [(ERROR, 5)]
    assert found[0].text == ("/etc/kopano/%s.cfg: bogus = 5: kopano-%s says: Unknown option \"bogus\" "
                             "found!; correct or remove it" % (name, name))


def test_daemon_that_does_not_answer(tree):
    tree.write("/usr/sbin/kopano-server", "#!/bin/sh\nexec sleep 60\n", 0o755)
    begin = time.monotonic()
    found = tree.findings("server", seconds=1)
    assert time.monotonic() - begin < 5
    assert [f.severity for f in found] == [WARNING] and "no answer" in found[0].text


def test_old_daemon_without_dump_config(tree):
    tree.write("/usr/sbin/kopano-gateway", TOO_OLD, 0o755)
    assert tree.texts("gateway") == []


@pytest.mark.parametrize("name, text", [
    ("server", "server_listen = foo:236\n"), ("server", "server_listen_tls = *\n"),
    ("dagent", "lmtp_listen = 1.2.3.4\n"), ("gateway", "imap_listen = [::1]\n"),
    ("ical", "ical_listen = *:0\n")])
def test_listen_setting_that_can_not_be_bound(tree, name, text):
    tree.add(name, text)
    key, _, value = text.strip().partition(" = ")
    found = tree.findings(name)
    assert [(f.severity, f.code) for f in found] == [(ERROR, 5)]
    assert found[0].text.startswith("/etc/kopano/%s.cfg: %s = %s: " % (name, key, value))


def test_an_ipv6_address_without_brackets(tree):
    tree.add("server", "server_listen = fd00::100:236\n")
    assert tree.texts("server")[0].endswith("write it as [ADDRESS]:PORT, with the brackets, or *:PORT")


def test_directives_that_are_passed_over(tree):
    tree.add("spooler", "!propmap x.cfg\n")
    assert tree.texts("spooler") == ["WARNING: /etc/kopano/spooler.cfg: directive '!propmap' is passed over; "
                                     "remove the line"]


@pytest.mark.parametrize("key", ["run_as_user", "run_as_group"])
def test_unknown_user(tree, key):
    tree.add("gateway", key + " = nosuch\n")
    assert tree.texts("gateway") == ["ERROR: /etc/kopano/gateway.cfg: %s = nosuch: unknown on this host; "
                                     "create it or correct the name" % key]


@pytest.mark.parametrize("mode, words", [(0o646, "everybody can write it"), (0o640, None)])
def test_config_that_others_can_write(tree, mode, words):
    os.chmod(tree.root + "/etc/kopano/monitor.cfg", mode)
    assert [words in text for text in tree.texts("monitor")] == ([True] if words else [])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("owner, group, mode, words", [
    (0, 1, 0o660, "group 1 can write it"), (1, 0, 0o640, "it belongs to user 1"), (0, 0, 0o660, None)])
def test_config_of_somebody_else(tree, owner, group, mode, words):
    os.chmod(tree.root + "/etc/kopano/monitor.cfg", mode)
    os.chown(tree.root + "/etc/kopano/monitor.cfg", owner, group)
    assert [words in text for text in tree.texts("monitor")] == ([True] if words else [])


def test_missing_modules(monkeypatch):
    for name, module in (("server", "psutil"), ("webapp-health", "requests")):
        monkeypatch.setitem(__import__("sys").modules, module, None)
        found = list(validate_kopano.modules(Host(AGENTS[name], called(name), "")))
        assert [f.code for f in found] == [5] and "python3-" + module in found[0].text


# ---------------------------------------------------------------- directories

@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_run_directory_that_start_makes_is_no_finding(tree):
    os.rmdir(tree.root + "/run/kopano")
    assert tree.texts("server") == []


def test_run_directory_that_can_not_be_made(tree):
    tree.add("server", "server_pipe_name = /nowhere/deep/server.sock\n")
    found = tree.findings("server")
    assert [(f.severity, f.code) for f in found] == [(ERROR, 5)]
    assert ("server_pipe_name = /nowhere/deep/server.sock: there is no directory /nowhere/deep; create it"
            in found[0].text)


def test_run_directory_that_is_a_file(tree):
    tree.write("/run/plain", "")
    tree.add("server", "server_pipe_name = /run/plain/server.sock\n")
    assert "/run/plain is not a directory" in tree.texts("server")[0]


def test_pid_file_that_can_not_be_written(tree):
    os.makedirs(tree.root + "/run/closed", 0o755)
    tree.add("gateway", "pid_file = /run/closed/gateway.pid\nrun_as_user = %s\n" % OTHER)
    assert tree.texts("gateway") == [
        "WARNING: /etc/kopano/gateway.cfg: pid_file = /run/closed/gateway.pid: %s can't write to "
        "/run/closed; chown %s /run/closed" % (OTHER, OTHER)]
    os.chmod(tree.root + "/run/closed", 0o777)
    assert tree.texts("gateway") == []


def test_unknown_user_and_a_pid_file(tree):
    tree.add("gateway", "pid_file = /run/kopano/gateway.pid\nrun_as_user = nosuch\n")
    assert [f.severity for f in tree.findings("gateway")] == [ERROR]


@pytest.mark.parametrize("mode, owner, group, who, may", [
    (0o700, 5, 6, (5, [1]), True), (0o070, 5, 6, (5, [6]), False), (0o070, 5, 6, (7, [1, 6]), True),
    (0o007, 5, 6, (7, [6]), False), (0o007, 5, 6, (7, [1]), True), (0o770, 5, 6, (7, [1]), False),
    (0o200, 5, 6, (5, [1]), False), (0o000, 5, 6, (0, [0]), True)])
def test_who_may_write(mode, owner, group, who, may):
    seen = os.stat_result((mode, 0, 0, 1, owner, group, 0, 0, 0, 0))
    assert host.may(seen, who, 3) == may


# ---------------------------------------------------------------- boot

@pytest.mark.parametrize("folder", ["/etc/systemd/system/multi-user.target.wants",
                                    "/etc/systemd/system/kopano.target.requires",
                                    "/usr/lib/systemd/system/multi-user.target.wants"])
def test_unit_enabled_at_boot(tree, folder):
    tree.link(folder + "/kopano-dagent.service")
    tree.link(folder + "/kopano-server.service")
    assert tree.texts("dagent") == [
        "WARNING: %s/kopano-dagent.service: systemd starts it at boot, beside the cluster; "
        "systemctl disable kopano-dagent.service" % folder]


def test_masked_unit_and_units_that_pacemaker_wants(tree):
    tree.link("/etc/systemd/system/multi-user.target.wants/kopano-server.service")
    tree.link("/etc/systemd/system/kopano-server.service", "/dev/null")
    tree.link("/etc/systemd/system/resource-agents-deps.target.wants/kopano-dagent.service")
    assert tree.texts("server") == [] and tree.texts("dagent") == []


def test_init_script_enabled_at_boot(tree):
    tree.link("/etc/rc3.d/S20kopano-ical", "../init.d/kopano-ical")
    tree.link("/etc/rc3.d/K20kopano-gateway", "../init.d/kopano-gateway")
    assert "/etc/rc3.d/S20kopano-ical: init starts it at boot" in tree.texts("ical")[0]
    assert tree.texts("gateway") == []
    tree.write("/usr/lib/systemd/system/kopano-ical.service", "[Unit]\n")
    assert tree.texts("ical") == []


# ---------------------------------------------------------------- addresses

@pytest.mark.parametrize("listen, words", [
    ("192.0.2.77:236", "192.0.2.77 is not an address of this host, nor of a network that it is in"),
    ("[2001:db8::1]:236", "2001:db8::1 is not an address"),
    ("198.51.100.7:237 *:236", "198.51.100.7 is not an address"),
    ("192.168.122.100%eth9:236", "there is no network device 'eth9'"),
    ("*%lo:236", "'%lo' makes it reachable from this host only"),
    ("127.0.0.1:236", "it is reachable from this host only"),
    ("127.0.0.1:236 [::1]:236", "it is reachable from this host only"),
    ("192.168.122.100:236", None), ("[fd00::100]:236", None), ("*:236", None), ("*%eth0:236", None),
    ("*%lo:236 192.168.122.100:236", None), ("", None), ("unix:/run/kopano/x.sock", None)])
def test_addresses(tree, listen, words):
    tree.add("server", "server_listen = %s\n" % listen)
    found = tree.findings("server")
    assert [f.severity for f in found] == ([WARNING] if words else [])
    if words:
        assert words in found[0].text and "server_listen = %s" % listen.split()[0] in found[0].text


def test_protocols_are_judged_apart(tree):
    tree.add("gateway", "imap_listen = *%lo:143\nimaps_listen = \npop3_listen = 127.0.0.1:110\n"
             "pop3s_listen = *:995\nssl_certificate_file = /c\nssl_private_key_file = /c\n")
    found = [f.text for f in tree.findings("gateway") if "ssl_" not in f.text]
    assert len(found) == 1 and "imap_listen = *%lo:143" in found[0] and "*:143" in found[0].partition(";")[2]


def test_the_default_listen_setting_is_named_as_such(tree):
    tree.write("/etc/kopano/server.cfg", "local_admin_users = root\nserver_pipe_name = /run/kopano/s\n"
               "server_pipe_priority = /run/kopano/p\nrun_as_user = %s\n" % ME, 0o640)
    os.remove(tree.root + "/usr/sbin/kopano-server")
    words = "server_listen = *%lo:236 (default): '%lo' makes it reachable"
    assert any(words in text for text in tree.texts("server"))


def test_old_names_are_named(tree):
    tree.write("/usr/sbin/kopano-dagent", TOO_OLD, 0o755)
    tree.write("/etc/kopano/dagent.cfg",
               "server_bind = 127.0.0.1\nserver_socket = default:\nrun_as_user = %s\nrun_as_group =\n" % ME)
    assert tree.texts("dagent") == [
        "WARNING: /etc/kopano/dagent.cfg: server_bind = 127.0.0.1:2003: it is reachable from this host only, "
        "not through a cluster IP; use the cluster IP"]


# ---------------------------------------------------------------- TLS

@pytest.fixture(scope="module")
def pems(tmp_path_factory):
    """Keys and certificates: good, expired, encrypted with 'geheim', and a second key."""
    folder = str(tmp_path_factory.mktemp("pem"))

    def openssl(*words):
        subprocess.check_call(("openssl",) + words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              cwd=folder)
    for name in ("good", "other"):
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", name + ".key",
                "-out", name + ".crt", "-days", "30", "-subj", "/CN=" + name)
    openssl("req", "-new", "-key", "good.key", "-out", "csr", "-subj", "/CN=old")
    open(folder + "/index.txt", "w").close()
    with open(folder + "/serial", "w") as file:
        file.write("01\n")
    with open(folder + "/ca.cnf", "w") as file:
        file.write("[ca]\ndefault_ca=d\n[d]\ndir=.\ndatabase=index.txt\nserial=serial\nnew_certs_dir=.\n"
                   "default_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n")
    openssl("ca", "-batch", "-config", "ca.cnf", "-selfsign", "-keyfile", "good.key", "-in", "csr",
            "-out", "old.crt", "-startdate", "200101000000Z", "-enddate", "210101000000Z")
    openssl("rsa", "-aes128", "-passout", "pass:geheim", "-in", "good.key", "-out", "locked.key")
    found = {}
    for name in ("good.key", "good.crt", "other.key", "old.crt", "locked.key"):
        with open(folder + "/" + name) as file:
            found[name] = file.read()
    return found


@pytest.mark.parametrize("parts, extra, words, severity", [
    (["good.key", "good.crt"], "", None, None),
    (["good.crt", "locked.key"], "server_ssl_key_pass = geheim\n", None, None),
    (["good.crt", "locked.key"], "server_ssl_key_pass = wrong\n", "OpenSSL does not take it", ERROR),
    (["good.crt", "locked.key"], "server_ssl_key_pass = \n", "OpenSSL does not take it", ERROR),
    (["good.crt", "other.key"], "", "OpenSSL does not take it", ERROR),
    (["good.crt"], "", "OpenSSL does not take it", ERROR),
    ([], "", "OpenSSL does not take it", ERROR),
    (["good.key", "old.crt"], "", "certificate expired on 2021-01-01", WARNING),
    (None, "", "No such file", ERROR)])
def test_server_key(tree, pems, parts, extra, words, severity):
    if parts is not None:
        tree.write("/etc/kopano/ssl/server.pem", "".join(pems[part] for part in parts))
    tree.add("server", "server_listen_tls = *:237\n"
             "server_ssl_key_file = /etc/kopano/ssl/server.pem\n" + extra)
    found = tree.findings("server")
    assert [f.severity for f in found] == ([severity] if words else [])
    if words:
        assert words in found[0].text
        assert "server_ssl_key_file = /etc/kopano/ssl/server.pem" in found[0].text


def test_other_daemons_start_without_their_key(tree, pems):
    tree.add("ical", "icals_listen = *:8443\nssl_certificate_file = /etc/kopano/c.pem\n"
             "ssl_private_key_file = /etc/kopano/k.pem\n")
    assert [f.severity for f in tree.findings("ical")] == [WARNING]
    tree.write("/etc/kopano/c.pem", pems["good.crt"])
    tree.write("/etc/kopano/k.pem", pems["other.key"])
    assert [f.severity for f in tree.findings("ical")] == [WARNING]
    tree.write("/etc/kopano/k.pem", pems["good.key"])
    assert tree.findings("ical") == []


def test_key_that_the_daemon_can_not_read(tree, pems):
    tree.write("/etc/kopano/k.pem", pems["good.key"] + pems["good.crt"], 0o600)
    tree.add("server", "server_listen_tls = *:237\nserver_ssl_key_file = /etc/kopano/k.pem\n"
             "run_as_user = %s\n" % OTHER)
    found = tree.findings("server")
    assert [f.severity for f in found] == [WARNING] and "%s can't read it" % OTHER in found[0].text


def test_key_that_is_a_fifo(tree):
    os.mkfifo(tree.root + "/etc/kopano/k.pem")
    tree.add("server", "server_listen_tls = *:237\nserver_ssl_key_file = /etc/kopano/k.pem\n")
    assert "not a regular file" in tree.texts("server")[0]


def test_without_tls_listeners_keys_do_not_matter(tree):
    tree.add("server", "server_listen_tls = \nserver_ssl_key_file = /nowhere\n")
    assert tree.texts("server") == []


def test_ca_file(tree, pems):
    assert "No such file" in tree.texts("gateway", ca_file="/etc/ssl/ca.pem")[0]
    tree.write("/etc/ssl/ca.pem", "nothing\n")
    assert "no certificates" in tree.texts("gateway", ca_file="/etc/ssl/ca.pem")[0]
    tree.write("/etc/ssl/ca.pem", pems["good.crt"])
    assert tree.texts("gateway", ca_file="/etc/ssl/ca.pem") == []


# ---------------------------------------------------------------- logins and data

def test_admins(tree):
    tree.add("server", "local_admin_users = kopano\nrun_as_user = nobody\n")
    assert tree.texts("server") == [
        "WARNING: /etc/kopano/server.cfg: local_admin_users = kopano: without root the agents' deep checks "
        "can't log on; add root"]
    tree.add("server", "local_admin_users = kopano\troot\n")
    assert tree.texts("server") == []


def test_password_file(tree, tmp_path):
    secret = tmp_path / "secret"
    words = {"test_user": "ocf", "test_password_file": str(secret)}
    host = Host(AGENTS["gateway"], called("gateway", **words), "")

    def found():
        return [f.text for f in validate_kopano.password(host)]
    assert "No such file" in found()[0]
    secret.write_text("\n")
    assert "first line is empty" in found()[0]
    secret.write_text("geheim\n")
    secret.chmod(0o644)
    assert "others than its owner can read it" in found()[0] and "geheim" not in found()[0]
    secret.chmod(0o600)
    assert found() == []


def test_left_over_upgrade_lock(tree, monkeypatch):
    tree.write("/tmp/kopano-upgrade-lock", "")
    assert tree.texts("server") == [
        "WARNING: /tmp/kopano-upgrade-lock: left over, no kopano-server holds it: a schema upgrade can't be "
        "recognised; remove it"]
    assert tree.texts("dagent") == []
    monkeypatch.setattr(validate_kopano, "_servers", lambda holding="": ["one"])
    assert tree.texts("server") == []


def test_attachments_on_the_nodes_own_disk(tree, monkeypatch):
    os.makedirs(tree.root + "/var/lib/kopano/attachments")
    tree.add("server", "attachment_storage = files_v2\nattachment_path = /var/lib/kopano/attachments\n")
    assert tree.texts("server") == []       # one node
    tree.cluster()
    assert tree.texts("server") == []       # not running here: the storage may be elsewhere now
    monkeypatch.setattr(validate_kopano, "_servers", lambda holding="": ["one"] if not holding else [])
    assert tree.texts("server") == [
        "WARNING: /etc/kopano/server.cfg: attachment_path = /var/lib/kopano/attachments: on this node's own "
        "root file system, lost after a move; put it on the storage that moves with the server"]
    tree.add("server", "attachment_storage = database\n")
    assert tree.texts("server") == []


def test_database_port(tree):
    tree.add("server", "mysql_port = 0\n")
    assert tree.texts("server") == [
        "WARNING: /etc/kopano/server.cfg: mysql_port = 0: not a port; use 1..65535"]


# ---------------------------------------------------------------- who talks to whom

@pytest.mark.parametrize("listen, socket, good", [
    ("192.168.122.100:236", "http://192.168.122.100:236/", True),
    ("192.168.122.100:236", "http://192.168.122.10:236/", False),
    ("192.168.122.100:236", "http://localhost:236/", False),
    ("192.168.122.100:236", "http://192.168.122.100:237/", False),
    ("192.168.122.100:236", "https://192.168.122.100:236/", False),
    ("192.168.122.100:236", "http://mail:236/", True),              # names are not looked up
    ("192.168.122.100:236", "http://mail:237/", False),
    ("*:236", "http://mail:236/", True),
    ("*:236", "http://192.168.122.100:236/", True),
    ("*:236", "http://localhost:236/", True),
    ("*%lo:236", "http://localhost:236/", True),
    ("*%lo:236", "http://192.168.122.100:236/", False),
    ("[fd00:0::100]:236", "http://[fd00::100]:236/", True),
    ("192.168.122.100:236", "http://203.0.113.5:236/", True),        # beyond our networks: another server
    ("192.168.122.100:236", "file:///run/kopano/server.sock", True),
    ("192.168.122.100:236", "file:///var/run/kopano/server.sock", True),
    ("192.168.122.100:236", "default:", True),
    ("192.168.122.100:236", "file:///run/kopano/other.sock", False),
])
@pytest.mark.parametrize("name", ["gateway", "dagent", "spooler"])
def test_server_socket(tree, name, listen, socket, good):
    tree.add("server", "server_listen = %s\n" % listen)
    tree.add(name, "server_socket = %s\n" % socket)
    found = tree.findings(name)
    assert [f.severity for f in found] == ([] if good else [WARNING])
    if not good:
        assert found[0].text.startswith(
            "/etc/kopano/%s.cfg: server_socket = %s: kopano-server does not listen there "
            "(/etc/kopano/server.cfg: server_listen = %s, " % (name, socket, listen))


def test_every_address_is_looked_at(tree):
    tree.add("server", "server_listen = *:236 192.0.2.77:236\n")
    assert "192.0.2.77 is not an address" in tree.texts("server")[0]


def test_a_server_on_its_socket_only(tree):
    tree.add("server", "server_listen = \n")
    assert tree.texts("gateway") == [
        "WARNING: /etc/kopano/gateway.cfg: server_socket = http://192.168.122.100:236/: kopano-server does "
        "not listen there (/etc/kopano/server.cfg: server_pipe_name = /run/kopano/server.sock, "
        "server_pipe_priority = /run/kopano/prio.sock); use file:///run/kopano/server.sock"]


def test_server_socket_without_the_servers_configuration(tree):
    tree.add("gateway", "server_socket = http://192.168.122.7:236/\n")
    assert tree.texts("gateway") != []
    os.remove(tree.root + "/etc/kopano/server.cfg")
    assert tree.texts("gateway") == []


def test_server_socket_in_a_distributed_setup(tree):
    tree.add("server", "enable_distributed_kopano = true\n")
    tree.add("gateway", "server_socket = http://192.168.122.7:236/\n")
    assert tree.texts("gateway") == []


def test_bad_server_socket(tree):
    tree.add("gateway", "server_socket = ftp://x\n")
    assert len(tree.findings("gateway")) == 1
    assert "server_socket = ftp://x: not one of" in tree.texts("gateway")[0]


@pytest.mark.parametrize("name", ["webapp-health", "server"])
@pytest.mark.parametrize("php, words", [
    ('define("DEFAULT_SERVER","http://192.168.122.100:236/");', None),
    ('define ( \'DEFAULT_SERVER\' , "default:" ) ;', None),
    ('define("DEFAULT_SERVER","http://192.168.122.10:236/");',
     "DEFAULT_SERVER = http://192.168.122.10:236: kopano-server does not listen there"),
    ('# define("DEFAULT_SERVER","default:");\n// x\n/* define("DEFAULT_SERVER","default:"); */'
     'define("DEFAULT_SERVER","https://192.168.122.100:237/kopano");', "does not listen there"),
    ('define("OTHER", "x");', "DEFAULT_SERVER is not defined"),
    ('define("DEFAULT_SERVER", getenv("X"));', "DEFAULT_SERVER is no plain string"),
    ('define("DEFAULT_SERVER", "gopher://x");', "DEFAULT_SERVER = gopher://x: not one of"),
])
def test_webapp(tree, name, php, words):
    tree.write("/etc/kopano/webapp/config.php", "<?php\n" + php)
    found = tree.findings(name)
    assert [f.severity for f in found] == ([WARNING] if words else [])
    if words:
        assert found[0].text.startswith("/etc/kopano/webapp/config.php: ") and words in found[0].text


def test_webapp_on_two_nodes_needs_an_address(tree):
    tree.write("/etc/kopano/webapp/config.php", "<?php define('DEFAULT_SERVER', 'default:');")
    tree.cluster()
    assert tree.texts("webapp-health") == [
        "WARNING: /etc/kopano/webapp/config.php: DEFAULT_SERVER = file:///var/run/kopano/server.sock: WebApp "
        "on a node where kopano-server does not run can't reach it; use the server's cluster IP, as "
        "http://192.168.122.100:236/"]


def test_webapp_that_is_not_there(tree):
    assert tree.texts("server") == []
    os.makedirs(tree.root + "/etc/kopano/webapp/config.php")
    assert "not a regular file" in tree.texts("webapp-health")[0]


@pytest.mark.parametrize("transport, words", [
    ("lmtp:192.168.122.100:2003", None), ("lmtp:[192.168.122.100]:2003", None),
    ("lmtp:inet:192.168.122.100:2003", None), ("virtual", None), ("", None),
    ("lmtp:unix:private/dovecot-lmtp", None), ("hash:/etc/postfix/transport", None),
    ("lmtp:203.0.113.9:2003", None),
    ("lmtp:192.168.122.10:2003", "kopano-dagent does not listen there (/etc/kopano/dagent.cfg: lmtp_listen = "
     "192.168.122.100:2003); use its cluster IP, as lmtp:192.168.122.100:2003"),
    ("lmtp:192.168.122.100:2004", "does not listen there"), ("lmtp:127.0.0.1:2003", "does not listen there"),
    ("lmtp:192.168.122.100", "does not listen there"),
])
def test_postfix(tree, transport, words):
    tree.write("/etc/postfix/main.cf",
               "virtual_transport = lmtp:old:1\n# x\nvirtual_transport = %s\n" % transport)
    found = tree.findings("dagent")
    assert [f.severity for f in found] == ([WARNING] if words else [])
    if words:
        assert words in found[0].text
        assert found[0].text.startswith("/etc/postfix/main.cf: virtual_transport = %s: " % transport)


def test_postfix_and_a_dagent_on_lo_only(tree):
    tree.add("dagent", "lmtp_listen = *%lo:2003\n")
    tree.write("/etc/postfix/main.cf", "virtual_transport = lmtp:192.168.122.100:2003\n")
    found = [text for text in tree.texts("dagent") if "main.cf" in text]
    assert len(found) == 1 and found[0].endswith("use its cluster IP, as lmtp:ADDRESS:2003")


def test_postfix_on_two_nodes_needs_an_address(tree):
    tree.add("dagent", "lmtp_listen = *:2003\n")
    tree.write("/etc/postfix/main.cf", "virtual_transport = lmtp:localhost:2003\n")
    assert tree.texts("dagent") == []
    tree.cluster()
    assert "Postfix on a node where kopano-dagent does not run" in tree.texts("dagent")[0]


# ---------------------------------------------------------------- whatever the host holds

FILES = ["/etc/kopano/server.cfg", "/etc/kopano/dagent.cfg", "/etc/kopano/gateway.cfg",
         "/etc/kopano/webapp/config.php", "/etc/postfix/main.cf", "/etc/corosync/corosync.conf",
         "/proc/net/route", "/proc/net/ipv6_route", "/etc/kopano/k.pem"]


@settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(FILES), st.binary(max_size=200), min_size=1, max_size=4),
       st.sampled_from(["server", "dagent", "gateway", "webapp-health"]), st.booleans())
def test_files_of_any_bytes(tree, files, name, tls):
    for path in FILES:
        good = GOOD.get(os.path.basename(path)[:-4], "")
        tree.write(path, good.encode() + files.get(path, b""))
    if tls:
        tree.add(name if name in GOOD else "server", "\nserver_listen_tls = *:237\nimaps_listen = *:993\n"
                 "server_ssl_key_file = /etc/kopano/k.pem\nssl_certificate_file = /etc/kopano/k.pem\n"
                 "ssl_private_key_file = /etc/kopano/k.pem\n")
    for program in GOOD:        # asking a shell script each time would take long
        if os.path.exists(tree.root + "/usr/sbin/kopano-" + program):
            os.remove(tree.root + "/usr/sbin/kopano-" + program)
    tree.findings(name)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path),
                                  lambda path: os.symlink(path, path)])
@pytest.mark.parametrize("path", FILES[:6])
def test_odd_files(tree, path, make):
    os.makedirs(os.path.dirname(tree.root + path), exist_ok=True)
    if os.path.exists(tree.root + path):
        os.remove(tree.root + path)
    make(tree.root + path)
    begin = time.monotonic()
    for name in AGENTS:
        tree.findings(name)
    assert time.monotonic() - begin < 10


def test_an_empty_host(tmp_path):
    for name, agent in AGENTS.items():
        found = validate.validate(agent, called(name), 10, str(tmp_path))
        assert (found[0].severity, found[0].code) == (ERROR, 5) if name != "webapp-health" else found


def test_ical_over_a_unix_socket_asks_for_no_password(tree):
    tree.add("ical", "server_socket = file:///run/kopano/server.sock\n")
    assert tree.texts("ical") == [
        "WARNING: /etc/kopano/ical.cfg: server_socket = file:///run/kopano/server.sock: over a unix socket kopano-ical "
        "accepts any password; use http://localhost:236/"]
