# SPDX-License-Identifier: GPL-2.0-or-later
"""The support bundle: it has what helps, and no secret."""
import gzip
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
    # MariaDB
    "wsrep_sst_auth = root:{}", "wsrep_sst_auth=\"root:{}\"", "mariadbd --wsrep-sst-auth=root:{} --user=mysql",
    "SET PASSWORD = '{}';", "SET PASSWORD FOR 'k'@'%' = '{}';", "CHANGE MASTER TO MASTER_PASSWORD = '{}';",
    "ALTER USER k IDENTIFIED VIA mysql_native_password USING '{}'",
    # Postfix
    "smtp_sasl_password_maps = static:user:{}", "smtp_sasl_password_maps = inline:{{ mail.example.com=user:{} }}",
    "smtp_sasl_password_maps =\n  inline:{{\n    {{ [a.example.com]:587 = user:{} }}\n  }}", "bind_pw = {}",
    # Apache
    "AuthLDAPBindPassword {}", "  AuthLDAPBindPassword \"{}\"", "OIDCClientSecret {}", "OIDCCryptoPassphrase {}",
    "SetEnv DB_PASSWORD {}", "RequestHeader set Authorization \"Basic {}\"", "RequestHeader set X-Api-Key \"{}\"",
    # HAProxy
    "option httpchk GET / HTTP/1.0\\r\\nAuthorization:\\ Basic\\ {}",
    "http-check send hdr Authorization \"Basic {}\"", "http-check send meth GET hdr X-Auth-Token {} ver HTTP/1.1",
    "tcp-check send AUTH\\ {}\\r\\n", "tcp-check send \"a1 LOGIN anna {}\\r\\n\"", "setenv DB_PASSWORD {}",
    # PHP
    "const SMTP_PASSWORD = '{}';", "public $password = '{}';", "private ?string $apiKey = \"{}\";",
    # the cluster
    "primitive f stonith:fence_apc_snmp params community={} ip=1", "params hexadecimal_kg=\"{}\" ip=1",
    '<nvpair id="c" name="community" value="{}"/>', '<nvpair id="h" name="hexadecimal_kg" value="{}"/>',
    "info: +  /cib/configuration/resources/primitive[@id='f']/instance_attributes[@id='f-instance_attributes']"
    "/nvpair[@id='f-instance_attributes-password']:  @value={}",
    '<nvpair value="{}" id="f-instance_attributes-passwd"/>',
    # with what ends a word elsewhere
    "mysql://root:a@{}@host/db", "mysql://root:a/{}@host/db", "smtp://anna@example.com:{}@host",
    "primitive f stonith:fence_virsh params passwd=ab,{} ip=1",
    # command lines
    "/usr/bin/python3 /usr/sbin/pcs host auth alice bob -u hacluster -p {}", "kopano-admin -c anna -p {} -e a@b",
    "mysql -uroot -p{} kopano", "/usr/bin/mariadb-dump --user=root -p'{}' kopano",
    "/usr/bin/ipmitool -I lanplus -H 10.0.0.1 -U admin -P {} chassis power status",
    "fence_ipmilan -a 10.0.0.126 -l fencing -p {} -o status", "ldapsearch -x -D cn=a -w {} -b dc=b",
    "curl -s -u anna:{} http://localhost/", "curl --user anna:{} -x p http://localhost/",
    "snmpget -v2c -c {} 10.0.0.1 sysName.0",
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
    "  token: 5000", "token = 5000", "token=30000", "  token_retransmits_before_loss_const: 10",
    "max_password_errors = 4294967295", "PasswordAuthentication=no", "bypass = yes", "passive=yes",
    "rrp_mode: passive", "compass = north", "disconnect_on_expired_password=ON",
    "ProxyPass /webapp http://127.0.0.1:8080/webapp", "SSLPassPhraseDialog builtin",
    "nvpair[@id='kopano-server-instance_attributes-test_password_file']:  @value=/etc/kopano/check.secret",
    "nvpair[@id='f-instance_attributes-ip']:  @value=10.0.0.126",
    "mysqld -P 3306 --socket=/run/mysqld/mysqld.sock", "ssh -p 2222 root@bob", "http-check send hdr Host localhost",
    "tcp-check send QUIT\\r\\n", "smtpd_client_restrictions = permit_mynetworks, reject",
]


@pytest.mark.parametrize("line", HELD)
def test_what_holds_a_secret_holds_it_no_more(line):
    secrets = program.Secrets()
    text = secrets.strip(f"before = 1\n{line.format(SECRET)}\nafter = 2\n")
    assert SECRET not in text
    assert text.startswith("before = 1\n") and text.endswith("after = 2\n") or "BEGIN" in line
    if "BEGIN" not in line:
        assert program.MASK in text
        assert secrets.strip(text) == text, "stripping it again changes nothing"
    if "BEGIN" not in line and "AUTH" not in line and "LOGIN" not in line and "=\n" not in line:
        assert [known for known in secrets.known if known.startswith(SECRET) or known.endswith(SECRET)]


@pytest.mark.parametrize("line", KEPT)
def test_what_holds_none_is_kept(line):
    assert program.Secrets().strip(line + "\n") == line + "\n"


@given(st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_&!?%+~.$#*", min_size=3, max_size=30),
       st.sampled_from(HELD))
@settings(deadline=None, max_examples=200)
def test_no_secret_gets_through(word, line):
    word += "Zq7"
    assert word not in program.Secrets().strip(line.format(word))


def test_what_one_part_shows_to_be_secret_is_taken_out_of_all():
    """In every spelling; also what stands in a part that comes before, and a password that was changed."""
    parts = {
        "a log": "said a&b'c12 to bob\nsaid a&amp;b&#x27;c12 to bob\nhttp://x/?p=a%26b%27c12\nwell\n",
        "cib": '<nvpair id="odd-id" name="passwd" value="a&amp;b\'c12"/><nvpair id="x" name="ip" value="10.0.0.1"/>',
        "pacemaker.log": "+  /cib/nvpair[@id='odd-id']:  @value=theformer1\nused theformer1\n",
        "proxy": "http-check send hdr Authorization \"Basic YW5uYTpodW50ZXIyeHg=\"\n",
        "mail": "AUTH as hunter2xx\n",
    }
    everything = "\n".join(program.Secrets().cleaned(parts).values())
    for secret in ("a&b", "a&amp;b", "a%26b", "theformer1", "YW5u", "hunter2xx"):
        assert secret not in everything
    for rest in ("to bob", "well", "10.0.0.1", "AUTH as"):
        assert rest in everything


@pytest.mark.parametrize("word, text, kept", [
    ("bob", "node bob is up", True), ("kopano", "ocf:kopano:server", True), ("5000", "timeout 5000 ms", True),
    ("Ab3x", "xAb3xy went, Ab3x went", "xAb3xy went, ******** went"), ("Ab3xy", "zAb3xyz", "z********z"),
])
def test_short_and_common_words_are_not_hunted(word, text, kept):
    """Where they stand as a password they are taken out all the same, and the bundle's maker is told."""
    secrets = program.Secrets()
    cleaned = secrets.cleaned({"cnf": f"password={word}\n", "log": text})
    assert cleaned["cnf"] == "password=********\n"
    assert cleaned["log"] == (text if kept is True else kept)
    assert (word in secrets.unhunted) == (kept is True)


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
    files["/var/lib/mysql/mysqld.log"] = "[ERROR] early\n" + "[Note] filling\n" * 40000 + f"[ERROR] {SECRET}\nlate\n"
    files["/var/log/apache2/error.log"] = "AH00161: server reached MaxRequestWorkers\n"
    files["/var/log/mail.log.1"] = "postfix/lmtp: yesterday's last words\n"
    files["/var/log/mail.log"] = "postfix/lmtp: connection refused\n"
    packed = "/var/log/kopano/server.log-20260101.gz"
    for path, text in files.items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)
    with gzip.open(packed, "wt") as file:
        file.write("rotated\n" * 100000 + f"{SECRET} was in the rotated one\n")
    files[packed] = ""
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
    assert "was in the rotated one" in parts["files/var/log/kopano/server.log-20260101"]
    assert "MaxRequestWorkers" in parts["files/var/log/apache2/error.log"]
    assert "connection refused" in parts["files/var/log/mail.log"]
    assert "last words" in parts["files/var/log/mail.log.1"]
    database = parts["files/var/lib/mysql/mysqld.log"]
    assert "late" in database and "early" not in database and len(database) <= program.LOG_TAIL
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
