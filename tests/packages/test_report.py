# SPDX-License-Identifier: GPL-2.0-or-later
"""The support bundle: it has what helps, and no secret."""
import importlib.machinery
import importlib.util
import os
import stat
import subprocess
import sys
import tarfile

import pytest
from hypothesis import given, settings, strategies as st

from conformance.agents import ROOT

PROGRAM = ROOT + "/extras/kopano-ocf-report"
SECRET = "Tr0ub4dor&3"


def load():
    """The program as a module."""
    loader = importlib.machinery.SourceFileLoader("kopano_ocf_report", PROGRAM)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


program = load()

HELD = [
    "mysql_password = {}", "#mysql_password={}", "ldap_bind_passwd =\t{}  ", "server_ssl_key_pass={}",
    "sslkey_pass = {}", "  password = {}", "MYSQL_PWD={}", "kopano-admin -c anna --password {}",
    "mount -o username=x,password={},vers=3", "primitive f stonith:fence_ipmilan params username=a passwd=\"{}\" ip=1",
    "primitive f stonith:fence_virsh params password={} op monitor",
    "define('SECRET_KEY', '{}');", "define(\"PASSWORD_KEY\",\"{}\");", "$config['password'] = '{}';",
    "'db_password' => '{}',", "\"api_key\": \"{}\",", "shared-secret \"{}\";", "    shared-secret {};",
    "stats auth admin:{}", "user anna insecure-password {}", "user anna password {}", "bindpw {}",
    "IDENTIFIED BY '{}'", "GRANT ALL ON kopano.* TO 'k'@'%' IDENTIFIED WITH mysql_native_password BY '{}';",
    "relayhost = smtp://user:{}@example.com:25", "ldap_uri = ldaps://cn=x:{}@ldap", "Authorization: Basic {}",
    '<nvpair id="x" name="passwd" value="{}"/>', '<nvpair value="{}" name="password" id="x"/>',
    '<nvpair id="y" name="options" value="user=a,password={}"/>', "token={}&x=1",
    "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\n{}\n",
]
KEPT = [
    "server_listen = *:236", "mysql_host = 192.168.122.101", "test_password_file = /etc/kopano/check.secret",
    "password_script=/etc/pacemaker/ipmi-password", "server_ssl_key_file = /etc/kopano/ssl/server.pem",
    "relayhost = [smtp.example.com]:25", "define('DEFAULT_SERVER', 'default:');", "passed 3 checks",
    "<nvpair id=\"x\" name=\"ip\" value=\"192.168.122.100\"/>", "http://192.168.122.100:236/kopano",
    "auth-files = none", "drbd mysql role:Primary", "smtp_sasl_password_maps = hash:/etc/postfix/sasl",
    "kopano_fs on bob: monitor failed: password of the test user refused",
]


@pytest.mark.parametrize("line", HELD)
def test_what_holds_a_secret_holds_it_no_more(line):
    secrets = program.Secrets()
    text = secrets.strip(f"before = 1\n{line.format(SECRET)}\nafter = 2\n")
    assert SECRET not in text
    assert text.startswith("before = 1\n") and text.endswith("after = 2\n") or "BEGIN" in line
    if "BEGIN" not in line:
        assert program.MASK in text
        assert [known for known in secrets.known if known.startswith(SECRET)]
        assert secrets.strip(text) == text, "stripping it again changes nothing"


@pytest.mark.parametrize("line", KEPT)
def test_what_holds_none_is_kept(line):
    assert program.Secrets().strip(line + "\n") == line + "\n"


@given(st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_&!?%+~.$#*", min_size=3, max_size=30),
       st.sampled_from(HELD))
@settings(deadline=None, max_examples=200)
def test_no_secret_gets_through(word, line):
    word += "Zq7"
    assert word not in program.Secrets().strip(line.format(word))


@pytest.fixture
def node(tmp_path):
    """A node with files that hold secrets, and stand-ins for the cluster's commands."""
    files = {
        "/etc/kopano/server.cfg": f"server_listen = *:236\nmysql_password = {SECRET}\n",
        "/etc/kopano/webapp/config.php": "<?php define('DEFAULT_SERVER', 'x:');\ndefine('SECRET', 'phpsecret1');\n",
        "/etc/kopano/check.secret": "mailboxsecret\n",
        "/etc/drbd.d/kopano.res": "resource kopano { net { shared-secret \"drbdsecret\"; } }\n",
        "/etc/kopano/ssl.key": "-----BEGIN PRIVATE KEY-----\nMIIkeykeykey\n-----END PRIVATE KEY-----\n",
        "/var/log/kopano/server.log": f"connected with {SECRET}\nlogin with mailboxsecret refused\nwell again\n",
        "/run/resource-agents/kopano-ocf-server-x": "kopano-ocf-state 1\nverdict 190 its database is away\n",
    }
    for path, text in files.items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)
    cib = """<cib><configuration><resources><primitive id="kopano-server" class="ocf" provider="kopano" type="server">
        <instance_attributes id="a"><nvpair id="b" name="test_password_file" value="/etc/kopano/check.secret"/>
        </instance_attributes></primitive><primitive id="fence_bob" class="stonith" type="fence_ipmilan">
        <instance_attributes id="c"><nvpair id="d" name="password" value="ipmisecret"/></instance_attributes>
        </primitive></resources></configuration></cib>"""
    fakes = tmp_path / "bin"
    fakes.mkdir()
    for name, script in (("cibadmin", f"cat <<'END'\n{cib}\nEND"), ("crm", "echo 'params password=ipmisecret'"),
                         ("crm_mon", "echo 'kopano-server: Started bob'"), ("crm_verify", "exit 0"),
                         ("stonith_admin", "exec sleep 300"), ("journalctl", "echo ipmisecret for bob refused"),
                         ("corosync-cfgtool", "exit 1"), ("corosync-quorumtool", "exit 1"), ("drbdadm", "exit 1")):
        (fakes / name).write_text(f"#!/bin/sh\n{script}\n")
        (fakes / name).chmod(0o755)
    subprocess.run(["make", "-s", "-C", ROOT, "install-agents"], check=True, timeout=60)
    yield {"PATH": f"{fakes}:/usr/sbin:/usr/bin:/sbin:/bin"}
    for path in files:
        os.unlink(path)
    subprocess.run(["rm", "-r", "/usr/lib/ocf/resource.d/kopano", "/usr/lib/ocf/lib/kopano"], check=True, timeout=60)


def test_a_bundle(node, tmp_path):
    """A command that never ends is given up; the rest is there, and no secret in any of it."""
    source = tmp_path / "kopano-ocf-report"
    with open(PROGRAM) as file:
        source.write_text(file.read().replace("TIMEOUT = 20 ", "TIMEOUT = 2 "))
    source.chmod(0o755)
    archive = tmp_path / "bundle.tar.gz"
    done = subprocess.run([source, "-o", archive], env=node, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert b"Look through it" in done.stdout
    assert stat.S_IMODE(os.stat(archive).st_mode) == 0o600
    with tarfile.open(archive) as bundle:
        parts = {name.partition("/")[2]: bundle.extractfile(name).read().decode() for name in bundle.getnames()}
    everything = "\n".join(parts.values())
    for secret in (SECRET, "phpsecret1", "mailboxsecret", "drbdsecret", "MIIkeykeykey", "ipmisecret"):
        assert secret not in everything, [name for name, text in parts.items() if secret in text]
    assert "server_listen = *:236" in parts["files/etc/kopano/server.cfg"]
    assert "well again" in parts["files/var/log/kopano/server.log"]
    assert "its database is away" in parts["files/run/resource-agents/kopano-ocf-server-x"]
    assert "Started bob" in parts["cluster/crm_mon"]
    assert "validate-all" in parts["agents/kopano-server"]
    assert "resource-agents" in parts["node/packages"]
    assert "stonith_admin: no end within 2 s" in parts["missing"]
    assert not any(name.endswith((".key", ".secret")) for name in parts)


def test_an_archive_that_is_there_is_not_overwritten(node, tmp_path):
    (tmp_path / "there").write_text("mine")
    done = subprocess.run([PROGRAM, "-o", tmp_path / "there"], env=dict(node, PATH="/nonexistent"),
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120,
                          check=False)
    assert done.returncode == 1
    assert b"File exists" in done.stderr
    assert (tmp_path / "there").read_text() == "mine"
