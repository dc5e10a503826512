# SPDX-License-Identifier: GPL-2.0-or-later
"""crm/node: each file is taken by the program it is for, and does there what its comments say.

All of it twice: as shipped, and turned to IPv6 by crm/node/ipv6.sed.
"""
import http.client
import os
import pathlib
import pwd
import re
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree

import pymysql
import pytest

import certificates
import sandbox
from kopano_ocf import foreign, kopano_cfg
from kopano_site import DAEMONS, HERE, PYTHON, ROOT
from namespaces import ENVIRONMENT, command, in_network_of, wait_for

NODE = f"{ROOT}/crm/node"
ROOTFS = f"{HERE}/rootfs"
BOB, ALICE, BALANCER, STRANGER, KOPANO, DATABASE = 25, 26, 20, 77, 100, 101

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("node-files")]


class Files:
    """crm/node in a directory of its own, for one family of addresses."""

    def __init__(self, family, directory):
        self.family, self.directory = family, str(directory)
        shutil.copytree(NODE, self.directory, dirs_exist_ok=True)
        if family == "IPv6":
            for folder, _, names in os.walk(self.directory):
                for name in names:
                    command(["sed", "-i", "-f", f"{NODE}/ipv6.sed", f"{folder}/{name}"])

    def path(self, path):
        return self.directory + path

    def text(self, path):
        with open(self.path(path)) as file:
            return file.read()

    def copy(self, path, target, *changes):
        """Copy a file to `target`, with (pattern, replacement) for what is the test's own; its path."""
        text = self.text(path)
        for pattern, replacement in changes:
            text, count = re.subn(pattern, replacement, text)
            assert count, f"no {pattern} in {path}"
        with open(target, "w") as file:
            file.write(text)
        return str(target)

    def lan(self, number):
        return f"192.168.122.{number}" if self.family == "IPv4" else f"2001:db8:122::{number}"

    def replication(self, number):
        return f"10.0.0.{number}" if self.family == "IPv4" else f"fd00:10::{number}"


class Host:
    """A network namespace; what runs in it has a name and a /run of its own."""

    def __init__(self, name, directory):
        self.name, self.directory = name, str(directory)
        self.holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, env=ENVIRONMENT,
                                       stdout=subprocess.DEVNULL, start_new_session=True)
        self.pid = self.holder.pid
        wait_for(lambda: os.readlink(f"/proc/{self.pid}/exe").endswith("cat"), 10, "a network", every=0.005)
        self.running = []

    def words(self, *argv):
        """A command as it is started in here."""
        script = 'hostname "$0"; mount -t tmpfs run /run; exec "$@"'
        return ["nsenter", "--target", str(self.pid), "--net", "unshare", "--uts", "--mount", "sh", "-c", script,
                self.name, *argv]

    def run(self, *argv, env=None, **options):
        """Run a command; (exit code, what it said on both channels)."""
        done = subprocess.run(self.words(*argv), env={**ENVIRONMENT, **(env or {})}, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
                              **{"stdin": subprocess.DEVNULL, **options})
        return done.returncode, done.stdout

    def ip(self, *orders):
        code, said = self.run("ip", "-batch", "-", stdin=None, input="\n".join(orders) + "\n")
        assert not code, said

    def start(self, *argv):
        """Start a server; it is ended with the host."""
        log = open(os.path.join(self.directory, f"{self.name}-{len(self.running)}.log"), "wb")
        process = subprocess.Popen(self.words(*argv), env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=log,
                                   stderr=subprocess.STDOUT, start_new_session=True)
        log.close()
        process.log = log.name
        self.running.append(process)
        return process

    def inside(self, function):
        return in_network_of(self.pid, function)

    def connects(self, address, port, source=None, timeout=0.4):
        def connect():
            try:
                socket.create_connection((address, port), timeout, (source, 0) if source else None).close()
            except ConnectionRefusedError:
                return False
            except OSError:
                return None                     # no answer at all
            return True
        return self.inside(connect)

    def wait_for_port(self, address, port, process=None):
        def listens():
            if process and process.poll() is not None:
                with open(process.log, errors="replace") as file:
                    pytest.fail(f"{process.args[-1]} ended:\n{file.read()[-3000:]}")
            return self.connects(address, port)
        wait_for(listens, 20, f"{address} port {port}")

    def end(self):
        for process in reversed(self.running):
            stop(process)
        self.holder.stdin.close()
        self.holder.wait(10)


def stop(process):
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


@pytest.fixture(scope="module")
def folder():
    """Makes directories that servers reach whatever user they run as."""
    assert sandbox.inside()
    top = pathlib.Path(tempfile.mkdtemp(prefix="node-files-", dir="/tmp"))
    top.chmod(0o755)

    def make(name, owner="root"):
        made = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=top))
        made.chmod(0o755)
        shutil.chown(made, owner)
        return made
    yield make
    shutil.rmtree(top, ignore_errors=True)


@pytest.fixture(scope="module", params=["IPv4", "IPv6"])
def files(request, folder):
    return Files(request.param, folder("node"))


@pytest.fixture(scope="module")
def network(files, folder):
    """bob, with the cluster's addresses; alice, who is the stranger too; the load balancer."""
    bits = (24, 32) if files.family == "IPv4" else (64, 128)
    numbers = {"bob": (BOB,), "alice": (ALICE, STRANGER), "balancer": (BALANCER,)}
    hosts = []
    try:
        for name in numbers:
            hosts.append(Host(name, folder(name)))
        bob = hosts[0]
        bob.ip("link add eth0 type bridge forward_delay 0")
        for other in hosts[1:]:
            bob.ip(f"link add {other.name} type veth peer name eth0 netns {other.pid}",
                   f"link set {other.name} master eth0 up")
        for host in hosts:
            own = [f"{files.lan(number)}/{bits[0]}" for number in numbers[host.name]]
            own.append(f"{files.replication(numbers[host.name][0])}/{bits[0]}")
            if host is bob:
                own += [f"{files.lan(number)}/{bits[1]}" for number in (KOPANO, DATABASE)]
            nodad = " nodad" if files.family == "IPv6" else ""
            host.ip("link set lo up", "link set eth0 up",
                    *(f"addr add {address} dev eth0{nodad}" for address in own))
        yield hosts
    finally:
        for host in hosts:
            host.end()


# ---- the cluster's own ---------------------------------------------------------------------------------

def firewall(host, files):
    code, said = host.run("nft", "-f", files.path("/etc/nftables.conf"))
    assert (code, said) == (0, "")


@pytest.fixture
def walls(network, files):
    """The firewall, up on both hosts; down afterwards."""
    for host in network[:2]:
        firewall(host, files)
    yield
    for host in network[:2]:
        assert host.run("nft", "flush ruleset")[0] == 0


KEY = "/tmp/corosync.key"


def corosync_conf(files, path):
    """corosync.conf, but for what a test's machine may forbid, and where the key is."""
    with open(KEY, "wb") as key:
        key.write(os.urandom(256))
    text = files.text("/etc/corosync/corosync.conf")
    text = text.replace("cluster_name: kopano", f"cluster_name: kopano\n    keyfile: {KEY}")
    text = text.replace("to_syslog: yes", "to_syslog: no").replace("to_logfile: yes", "to_logfile: no")
    text = re.sub(r"(?m)^ *logfile:.*", "", text.replace("to_stderr: no", "to_stderr: yes"))
    text = text.replace("token: 3000", "token: 1000")           # to wait less
    with open(path, "w") as file:
        file.write(text + "system {\n    sched_rr: no\n    move_to_root_cgroup: no\n}\n")
    return str(path)


@pytest.mark.parametrize("files", ["IPv4"], indirect=True)
def test_corosync_of_one_machine_needs_nobody(files, network, tmp_path):
    path = corosync_conf(files, tmp_path / "corosync.conf")
    command(["sed", "-i", "-f", files.path("/virtual-machine.sed"), path])
    corosync = network[0].start("corosync", "-f", "-c", path)
    wait_for(lambda: re.search(r"Quorate:\s+Yes", network[0].run("corosync-quorumtool", "-s")[1]), 30, "quorum")
    stop(corosync)


def test_corosync_wants_the_key(files, network, tmp_path):
    path = corosync_conf(files, tmp_path / "corosync.conf")
    code, said = network[0].run("corosync", "-t", "-f", "-c", path)
    assert code == 0 and "error" not in said and "warning" not in said, said
    os.remove(KEY)
    code, said = network[0].run("corosync", "-t", "-f", "-c", path)
    assert code and "Could not open" in said


@pytest.mark.usefixtures("walls")
def test_corosync_joins_both_nodes_over_both_links_through_the_firewall(files, network, tmp_path):
    bob = network[0]
    path = corosync_conf(files, tmp_path / "corosync.conf")
    running = [host.start("corosync", "-f", "-c", path) for host in network[:2]]

    def joined():
        assert all(process.poll() is None for process in running), [open(process.log).read() for process in running]
        words = bob.run("corosync-quorumtool", "-s")[1]
        return words if re.search(r"Total votes:\s+2\b", words) else None
    assert re.search(r"Flags:\s+2Node Quorate WaitForAll", wait_for(joined, 30, "two members"))

    def links():
        words = bob.run("corosync-cfgtool", "-s")[1]
        return len(re.findall(r"nodeid:\s+2:\s+connected", words)) == 2
    wait_for(links, 20, "both links")
    for process in running:
        stop(process)


@pytest.mark.parametrize("module, other", [("8.4.11", "9.2.0"), ("9.2.0", "8.4.11")])
def test_drbd_takes_its_files(files, network, tmp_path, module, other):
    shutil.copytree(files.path("/etc/drbd.d"), tmp_path / "drbd.d")
    (tmp_path / "drbd.conf").write_text('include "drbd.d/global_common.conf";\ninclude "drbd.d/*.res";\n')
    if module.startswith("9"):
        files.copy("/etc/drbd.d/global_common.conf", tmp_path / "drbd.d/global_common.conf",
                   (r'include "common-8.4.conf"', 'include "common-9.conf"'))

    def dump(version):
        return network[0].run("drbdadm", "-c", str(tmp_path / "drbd.conf"), "dump",
                              env={"DRBD_DRIVER_VERSION_OVERRIDE": version})
    code, said = dump(module)
    assert code == 0, said
    for name, minor, disk, port in (("mysql", 0, "/dev/sdb1", 7788), ("kopano", 1, "/dev/sdb2", 7799)):
        words = said[said.index(f"resource {name} {{"):]
        for pattern in (rf"device +/dev/drbd{minor} minor {minor};", f"disk +{disk};",
                        rf"address +ipv[46] \[?{re.escape(files.replication(BOB))}\]?:{port};"):
            assert re.search(pattern, words), words
    common = said[:said.index("# resource")]
    assert re.search(r"protocol +C;", common) and re.search(r"fencing +resource-and-stonith;", common)
    for handler in re.findall(r"(/usr/lib/drbd/\S+?\.sh)", common):
        assert os.access(handler, os.X_OK), handler
    assert len(re.findall("crm-(?:un)?fence-peer", common)) == 2
    assert dump(other)[0] != 0, "the other version must not take it silently"


# ---- the database --------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def database(files, network, folder):
    """A MariaDB with 90-cluster.cnf, in which the accounts were made as the guide has it."""
    data = folder("mariadb", "mysql")
    (data / "lost+found").mkdir(mode=0o700)             # it is a file system of its own
    small = ["--innodb-log-file-size=16M", "--innodb-use-native-aio=0"]
    command(["mariadb-install-db", "--no-defaults", "--user=mysql", f"--datadir={data}", "--skip-test-db",
             "--auth-root-authentication-method=socket", *small])
    server = network[0].start(
        "mariadbd", f"--defaults-file={files.path('/etc/mysql/mariadb.conf.d/90-cluster.cnf')}", "--user=mysql",
        f"--datadir={data}", f"--socket={data}/sock", f"--pid-file={data}/pid", *small)
    network[0].wait_for_port(files.lan(DATABASE), 3306, server)
    for _ in range(2):                                  # a second time does no harm
        with open(files.path("/sql/account.sql")) as orders:
            code, said = network[0].run("mariadb", "--no-defaults", f"--socket={data}/sock", stdin=orders)
            assert (code, said) == (0, "")
    yield str(data / "sock")
    stop(server)


def ask(host, files, question, source=None, **how):
    def talk():
        connection = pymysql.connect(host=files.lan(DATABASE), user="kopano", password="secret", bind_address=source,
                                     connect_timeout=10, **how)
        with connection, connection.cursor() as cursor:
            for order in question.split(";"):
                cursor.execute(order)
            return cursor.fetchall()
    return host.inside(talk)


def test_account_works_from_both_nodes(files, network, database):
    bob, alice, _ = network
    # the database is here: the connection comes from its own address
    assert ask(bob, files, "SELECT CURRENT_USER()") == ((f"kopano@{files.lan(DATABASE)}",),)
    assert ask(alice, files, "SELECT CURRENT_USER()", files.lan(ALICE)) == ((f"kopano@{files.lan(ALICE)}",),)
    for source in (BOB, KOPANO):
        assert ask(bob, files, "SELECT 1", files.lan(source)) == ((1,),)
    # kopano-server makes its database itself
    made = "CREATE DATABASE IF NOT EXISTS kopano; USE kopano; CREATE TABLE t (i INT); DROP TABLE t; SHOW TABLES"
    assert ask(bob, files, made) == ()


def test_account_is_good_for_nothing_else(files, network, database):
    bob, alice, _ = network
    with pytest.raises(pymysql.err.OperationalError, match="is not allowed to connect"):
        ask(alice, files, "SELECT 1", files.lan(STRANGER))
    for order in ("CREATE DATABASE other", "SELECT user FROM mysql.user", "SET GLOBAL max_connections = 1"):
        with pytest.raises(pymysql.err.OperationalError, match="denied"):
            ask(bob, files, order)
    for address in (files.lan(BOB), "127.0.0.1"):       # bound to the cluster's address alone
        assert bob.connects(address, 3306) is False
    assert ask(bob, files, "SHOW DATABASES LIKE '%lost%'") == ()


def test_database_keeps_what_it_has_acknowledged(files, network, database):
    wanted = {"innodb_flush_log_at_trx_commit": "1", "innodb_doublewrite": "ON", "skip_name_resolve": "ON",
              "max_allowed_packet": str(16 << 20)}
    seen = ask(network[0], files, "SHOW VARIABLES")
    assert {name: value for name, value in seen if name in wanted} == wanted


# ---- Kopano --------------------------------------------------------------------------------------------

@pytest.fixture(scope="module", params=[8, 9, 11])
def daemons(request, folder):
    """The directory of the daemons' stand-ins, of one generation."""
    prefix = folder(f"generation-{request.param}")
    command([PYTHON, f"{ROOT}/tests/standin/build.py", str(prefix), "--generation", str(request.param)])
    return f"{prefix}/sbin"


def settings(files, daemon):
    path = files.path(f"/etc/kopano/{daemon}.cfg")
    return kopano_cfg.Settings(daemon, kopano_cfg.read(path), path)


@pytest.mark.parametrize("daemon", DAEMONS)
def test_kopano_takes_its_files(files, daemons, daemon):
    path = files.path(f"/etc/kopano/{daemon}.cfg")
    words = ["-l"] if daemon == "dagent" else []
    dumped = kopano_cfg.dump(f"{daemons}/kopano-{daemon}", path, words, time.monotonic() + 20)
    for key, value in kopano_cfg.read(path).items():
        assert dumped[key] == value and key not in dumped.defaults, key


@pytest.mark.parametrize("daemon, ports", [("server", {236}), ("dagent", {2003}), ("gateway", {143, 110}),
                                           ("ical", {8080})])
def test_kopano_listens_on_the_cluster_address_alone(files, daemon, ports):
    places = [endpoint for endpoint in settings(files, daemon).endpoints() if not endpoint.path]
    assert {endpoint.port for endpoint in places} == ports
    assert {(endpoint.host, endpoint.device) for endpoint in places} == {(files.lan(KOPANO), "")}


def test_kopano_clients_find_the_server(files):
    server = settings(files, "server")
    paths = {endpoint.path for endpoint in server.endpoints() if endpoint.path}
    for daemon in ("dagent", "spooler", "monitor"):
        assert settings(files, daemon).server().path in paths
    for daemon in ("gateway", "ical"):              # users log in there: by the socket any password is good
        target = settings(files, daemon).server()
        assert (target.host, target.port, target.path) == (files.lan(KOPANO), 236, "")
    assert server.database().host == files.lan(DATABASE)
    assert server.get("attachment_path").startswith("/var/lib/kopano/")
    assert "root" in server.get("local_admin_users").split()


def test_webapp_finds_the_server(files):
    path = files.path("/etc/kopano/webapp/config.php")
    assert command(["php", "-l", path]).stdout.startswith("No syntax errors")
    target = kopano_cfg.default_server(path)
    assert (target.host, target.port) == (files.lan(KOPANO), 236)


# ---- Postfix -------------------------------------------------------------------------------------------

class Mailboxes(threading.Thread):
    """What dagent is to Postfix: an LMTP server that knows one recipient. `with Mailboxes(...) as it: ...`"""

    def __init__(self, host, address):
        super().__init__(daemon=True)
        self.delivered, self.open, self.most, self.lock = [], 0, 0, threading.Lock()
        self.listener = host.inside(lambda: socket.create_server(
            address, family=socket.AF_INET6 if ":" in address[0] else socket.AF_INET, backlog=64))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.join(10)

    def run(self):
        while True:
            try:
                connection, peer = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection, peer), daemon=True).start()

    def serve(self, connection, peer):
        with self.lock:
            self.open += 1
            self.most = max(self.most, self.open)
        try:
            with connection, connection.makefile("rwb", buffering=0) as stream:
                self.talk(stream)
        except OSError:
            pass
        finally:
            with self.lock:
                self.open -= 1

    def talk(self, stream):
        stream.write(b"220 2.1.5 LMTP server is ready\r\n")
        while True:
            line = stream.readline().strip().upper()
            if not line or line == b"QUIT":
                stream.write(b"221 2.0.0 Bye\r\n")
                return
            if line.startswith(b"LHLO"):
                stream.write(b"250-SERVER ready\r\n250-PIPELINING\r\n250 RSET\r\n")
            elif line.startswith(b"RCPT") and b"ANNA@" not in line:
                stream.write(b"503 5.1.1 User does not exist\r\n")
            elif line == b"DATA":
                stream.write(b"354 2.1.5 Start mail input\r\n")
                lines = []
                while not lines or lines[-1] not in (b".\r\n", b""):
                    lines.append(stream.readline())
                time.sleep(0.05)                        # the others come meanwhile
                with self.lock:
                    self.delivered.append(b"".join(lines))
                stream.write(b"250 2.1.5 anna@example.com Ok\r\n")
            else:
                stream.write(b"250 2.1.0 Ok\r\n")


@pytest.fixture
def postfix(files, network, folder):
    """Postfix with the main.cf, on bob."""
    etc, queue, data = folder("etc"), folder("queue"), folder("data", "postfix")
    files.copy("/etc/postfix/main.cf", etc / "main.cf", ("(?m)^(mynetworks = \\S+ \\S+) .*", f"""\\1
queue_directory = {queue}
data_directory = {data}
maillog_file = /dev/stdout
myhostname = bob.example.com
address_verify_poll_delay = 1s
"""))
    # as Debian ships it, but none of its services in a chroot: there is none here; and its own logger
    with open("/usr/share/postfix/master.cf.dist") as source, open(etc / "master.cf", "w") as target:
        target.write(re.sub(r"(?m)^(\w\S*\s+\w+\s+\S+\s+\S+\s+)y(\s)", r"\1n\2", source.read())
                     + "postlog unix-dgram n - n - 1 postlogd\n")
    code, said = network[0].run("postconf", "-c", str(etc), "-n")
    assert code == 0 and "warning" not in said and "virtual_transport = lmtp:" in said, said
    master = network[0].start("postfix", "-c", str(etc), "start-fg")
    network[0].wait_for_port(files.lan(BOB), 25, master)
    yield
    network[0].run("postfix", "-c", str(etc), "stop")
    stop(master)


def submit(host, files, sender, recipient, count=1):
    """Hand mails to Postfix from one of a host's addresses."""
    def talk():
        with smtplib.SMTP(files.lan(BOB), timeout=30, source_address=(files.lan(sender), 0)) as client:
            for number in range(count):
                client.sendmail("someone@example.org", [recipient], f"Subject: {number}\r\n\r\nhello\r\n")
    host.inside(talk)


@pytest.mark.usefixtures("postfix")
def test_postfix_delivers_to_the_cluster_address_and_takes_nothing_for_nobody(files, network):
    with Mailboxes(network[0], (files.lan(KOPANO), 2003)) as dagent:
        submit(network[1], files, STRANGER, "anna@example.com", 30)
        wait_for(lambda: len(dagent.delivered) == 30, 30, "30 mails delivered")
        assert dagent.most <= 8 + 1                     # and one that asks for recipients
        wait_for(lambda: not dagent.open, 5, "no connection is kept")
        with pytest.raises(smtplib.SMTPRecipientsRefused, match="User does not exist"):
            submit(network[1], files, STRANGER, "nobody@example.com")
        with pytest.raises(smtplib.SMTPRecipientsRefused, match="Relay access denied"):
            submit(network[1], files, STRANGER, "anna@elsewhere.example")


# ---- Apache and the load balancer ----------------------------------------------------------------------

APACHE = """
ServerRoot {folder}
ServerName localhost
PidFile {folder}/pid
ErrorLog {folder}/log
{listen}
User www-data
Group www-data
LoadModule mpm_prefork_module {modules}/mod_mpm_prefork.so
LoadModule php_module {php}
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule authz_host_module {modules}/mod_authz_host.so
LoadModule alias_module {modules}/mod_alias.so
LoadModule dir_module {modules}/mod_dir.so
LoadModule headers_module {modules}/mod_headers.so
LoadModule status_module {modules}/mod_status.so
ServerLimit 8
MaxRequestWorkers 8
StartServers 4
MinSpareServers 1
KeepAliveTimeout 1
DocumentRoot {folder}/webapp
Alias /webapp {folder}/webapp
DirectoryIndex index.php
<Directory {folder}/webapp>
  Require all granted
</Directory>
<FilesMatch "[.]php$">
  SetHandler application/x-httpd-php
</FilesMatch>
Include {configuration}
"""
MODULES = "/usr/lib/apache2/modules"


def brackets(address):
    return f"[{address}]" if ":" in address else address


def start_apache(host, files, folder, address):
    """Apache with kopano-cluster.conf and the lab's WebApp, which like the real one wants https."""
    (folder / "webapp").mkdir()
    with open(f"{ROOTFS}/usr/share/kopano-webapp/index.php") as source:
        page = source.read().replace("/etc/kopano/webapp/config.php", files.path("/etc/kopano/webapp/config.php"))
    (folder / "webapp/index.php").write_text(page)
    php = next(f"{MODULES}/{name}" for name in os.listdir(MODULES) if re.match(r"libphp.*\.so", name))
    conf = folder / "httpd.conf"
    listen = [address] + (["127.0.0.1"] if address == files.lan(BOB) else [])
    conf.write_text(APACHE.format(folder=folder, modules=MODULES, php=php,
                                  listen="\n".join(f"Listen {brackets(place)}:80" for place in listen),
                                  configuration=files.path("/etc/apache2/conf-available/kopano-cluster.conf")))
    code, said = host.run("apache2", "-t", "-f", str(conf))
    assert code == 0 and "Syntax OK" in said, said
    apache = host.start("apache2", "-DFOREGROUND", "-f", str(conf))
    host.wait_for_port(address, 80, apache)
    apache.pages = folder / "webapp"
    return apache


def get(host, address, path, source=None, tls="", headers=()):
    """(status, headers, body) of a page; by https, when the server's certificate is in the file `tls`."""
    def fetch():
        how = {"timeout": 10, "source_address": (source, 0) if source else None}
        if tls:
            context = ssl.create_default_context(cafile=tls)
            connection = http.client.HTTPSConnection(address, 443, context=context, **how)
        else:
            connection = http.client.HTTPConnection(address, 80, **how)
        try:
            connection.request("GET", path, headers=dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()
        finally:
            connection.close()
    return host.inside(fetch)


@pytest.fixture
def web(files, network, folder, tmp_path):
    """{"bob": Apache's process, "alice": ...} with HAProxy in front of them."""
    bob, alice, balancer = network
    apaches = {"bob": start_apache(bob, files, folder("bob"), files.lan(BOB)),
               "alice": start_apache(alice, files, folder("alice"), files.lan(ALICE))}
    made = certificates.make(tmp_path / "tls", "webapp", f"IP:{files.lan(BALANCER)}")
    with open(made.key) as key, open(made.pem, "a") as certificate:
        certificate.write(key.read())
    conf = files.copy("/etc/haproxy/haproxy.cfg", tmp_path / "haproxy.cfg",
                      ("/etc/haproxy/webapp.pem", made.pem), ("log /dev/log local0", "log stdout local0"))
    code, said = balancer.run("haproxy", "-c", "-f", conf)
    assert code == 0 and "WARNING" not in said, said
    haproxy = balancer.start("haproxy", "-db", "-f", conf)
    balancer.wait_for_port(files.lan(BALANCER), 443, haproxy)
    balancer.certificate = made.pem
    yield apaches
    for process in (haproxy, *apaches.values()):
        stop(process)


HTTPS = {"X-Forwarded-Proto": "https"}


def test_webapp_is_shown_to_https_the_balancer_and_the_checks_alone(files, network, web):
    bob, alice, balancer = network
    assert get(bob, "127.0.0.1", "/webapp/")[0] == 200                          # webapp-health
    assert "Scoreboard" in get(bob, "127.0.0.1", "/server-status?auto")[2]
    assert get(balancer, files.lan(BOB), "/server-status?auto")[0] == 403
    assert get(balancer, files.lan(BOB), "/webapp/", headers=HTTPS)[0] == 200
    assert get(balancer, files.lan(BOB), "/webapp/")[0] == 400
    assert get(alice, files.lan(BOB), "/webapp/", files.lan(STRANGER), headers=HTTPS)[0] == 400


def visit(network, files, cookie=None):
    """Ask the load balancer for the page: (its answer is good, the node's cookie)."""
    status, headers, body = get(network[0], files.lan(BALANCER), "/webapp/", tls=network[2].certificate,
                                headers={"Cookie": f"NODE={cookie}"} if cookie else {})
    set_to = re.search(r"NODE=(\w+)", headers.get("Set-Cookie", ""))
    return status == 200 and 'name="username"' in body, set_to[1] if set_to else cookie


@pytest.mark.parametrize("files", ["IPv4"], indirect=True)
def test_a_dead_apache_costs_no_request(files, network, web):
    status, headers, _ = get(network[0], files.lan(BALANCER), "/webapp/")
    assert status == 301 and headers["Location"].startswith("https://")
    assert {visit(network, files)[1] for _ in range(8)} == {"bob", "alice"}
    assert [visit(network, files, "bob") for _ in range(8)] == [(True, "bob")] * 8
    os.killpg(web["bob"].pid, signal.SIGKILL)
    web["bob"].wait()
    until = time.monotonic() + 5                        # until it is long known to be dead
    while time.monotonic() < until:
        assert visit(network, files, "bob") == (True, "alice")


def test_a_webapp_that_is_broken_is_left_out(files, network, web):
    (web["alice"].pages / "index.php").write_text("<h1>Invalid configuration</h1>")      # with status 200

    def left_out():
        return [visit(network, files, "alice") for _ in range(4)] == [(True, "bob")] * 4
    wait_for(left_out, 15, "alice is left out", every=0.2)


# ---- systemd -------------------------------------------------------------------------------------------

UNITS = ("pacemaker.service", "corosync.service", "resource-agents-deps.target", "dbus.service", "shutdown.target",
         "basic.target", "sysinit.target", "network.target", "network-online.target", "time-sync.target",
         "multi-user.target")


@pytest.fixture(scope="module")
def root(folder):
    """A root directory with the units that matter and crm/node's files."""
    path = folder("root")
    units = path / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    for unit in UNITS:
        shutil.copy(f"/lib/systemd/system/{unit}", units)
    for program in set(re.findall(r"(?m)^ExecSt\w+=[@-]*(/\S+)", "".join(
            (units / unit).read_text() for unit in UNITS))):
        (path / program[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy("/bin/true", path / program[1:])
    for name in ("systemd", "tmpfiles.d"):
        shutil.copytree(f"{NODE}/etc/{name}", path / "etc" / name)
    return path


DROP_IN = "/etc/systemd/system/resource-agents-deps.target.d/kopano.conf"


def held():
    """The units that Pacemaker's resources need until they are stopped."""
    with open(NODE + DROP_IN) as file:
        return [unit for line in file if line.startswith("After=") for unit in line[6:].split()]


def test_all_that_resources_may_need_is_held():
    assert {"network-online.target", "remote-fs.target", "rpcbind.service", "multipathd.service", "iscsid.service",
            "libvirtd.service", "nss-user-lookup.target", "postfix.service"} <= set(held())


def verify(root):
    done = subprocess.run(["systemd-analyze", "verify", f"--root={root}", "--man=no", "pacemaker.service"], text=True,
                          env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
    return done.stdout


def test_systemd_takes_the_drop_in(root):
    assert verify(root) == ""


@pytest.mark.parametrize("unit", held())
def test_what_resources_need_stops_after_pacemaker(root, unit, tmp_path):
    """systemd itself says so: with the opposite order added it finds a cycle."""
    copy = tmp_path / "root"
    shutil.copytree(root, copy, symlinks=True)
    body = "[Service]\nExecStart=/usr/sbin/pacemakerd\n" if unit.endswith(".service") else ""
    (copy / "usr/lib/systemd/system" / unit).write_text(
        f"[Unit]\nDescription=it\nDefaultDependencies=no\nAfter=pacemaker.service\n{body}")
    wanted = copy / "etc/systemd/system/pacemaker.service.d"
    wanted.mkdir()
    (wanted / "wanted.conf").write_text(f"[Unit]\nWants={unit}\n")
    assert "Found ordering cycle" in verify(copy)
    os.remove(str(copy) + DROP_IN)
    if unit not in ("network-online.target",):          # corosync's own unit has that one
        assert "Found ordering cycle" not in verify(copy)


def preset_lines():
    with open(f"{NODE}/etc/systemd/system-preset/00-kopano-cluster.preset") as file:
        return dict(reversed(line.split()) for line in file if line.split() and not line.startswith("#"))


def test_boot_starts_the_cluster_and_nothing_that_it_manages(root, tmp_path):
    copy = tmp_path / "root"
    shutil.copytree(root, copy, symlinks=True)
    units = preset_lines()
    for unit in units:
        (copy / "usr/lib/systemd/system" / unit).write_text(
            "[Unit]\nDescription=it\n[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n")
    systemctl = ["systemctl", f"--root={copy}"]
    command(systemctl + ["enable", *units])
    command(systemctl + ["preset", *units])
    states = command(systemctl + ["is-enabled", *units], check=False).stdout.split()
    assert dict(zip(units, states)) == {unit: f"{word}d" for unit, word in units.items()}
    managed = {f"kopano-{name}.service" for name in DAEMONS} | {
        "mariadb.service", "mysql.service", "mysqld.service", "apache2.service", "httpd.service", "drbd.service"}
    assert {unit for unit, word in units.items() if word == "disable"} == managed


def test_tmpfiles_make_the_directories_of_sockets(root):
    shutil.copytree("/etc", root / "etc", dirs_exist_ok=True, symlinks=True,
                    ignore=lambda _, names: [name for name in names if name not in ("passwd", "group")])
    command(["systemd-tmpfiles", f"--root={root}", "--create", "kopano-cluster.conf"])
    seen = {name: (pwd.getpwuid(os.stat(root / "run" / name).st_uid).pw_name,
                   os.stat(root / "run" / name).st_mode & 0o7777) for name in os.listdir(root / "run")}
    assert seen == {"kopano": ("kopano", 0o775), "mysqld": ("mysql", 0o755), "mariadb": ("mysql", 0o755)}


# ---- the firewall --------------------------------------------------------------------------------------

EVERYBODY = {ALICE, BALANCER, STRANGER, "replication"}
REACHED_BY = {
    22: {ALICE, BALANCER, STRANGER}, 25: EVERYBODY, 80: {BALANCER}, 143: {ALICE, BALANCER, STRANGER}, 236: {ALICE},
    237: {ALICE, BALANCER, STRANGER}, 443: {BALANCER}, 2003: {ALICE}, 2224: {ALICE}, 3306: {ALICE},
    7788: {"replication"}, 7799: {"replication"}, 8080: {ALICE, BALANCER, STRANGER}, 9999: set(),
}


@pytest.mark.usefixtures("walls")
def test_firewall_lets_through_who_must_and_nobody_else(files, network):
    """A port that nothing listens on is refused at once, when the firewall lets the question through."""
    alice, balancer = network[1:]
    ways = {ALICE: (alice, files.lan(KOPANO), files.lan(ALICE)),
            STRANGER: (alice, files.lan(KOPANO), files.lan(STRANGER)),
            BALANCER: (balancer, files.lan(KOPANO), files.lan(BALANCER)),
            "replication": (alice, files.replication(BOB), files.replication(ALICE))}

    def reached(way):
        port, (host, address, source) = way
        return host.connects(address, port, source, 0.5) is not None
    questions = [(port, name) for port in REACHED_BY for name in ways]
    with ThreadPoolExecutor(len(questions)) as pool:
        answers = dict(zip(questions, pool.map(reached, [(port, ways[name]) for port, name in questions])))
    assert {port: {name for name in ways if answers[port, name]} for port in REACHED_BY} == REACHED_BY


TCP_REPAIR = 19                     # a socket that is closed in this state says nothing to its peer


def test_connections_of_the_other_node_are_reset_not_dropped(files, network):
    """A client that goes on with a connection after a take-over hears so at once."""
    bob, alice, _ = network
    family = socket.AF_INET6 if files.family == "IPv6" else socket.AF_INET
    listener = bob.inside(lambda: socket.create_server((files.lan(KOPANO), 143), family=family))
    client = alice.inside(lambda: socket.create_connection((files.lan(KOPANO), 143), 5))
    peer, _ = listener.accept()
    # the node that knew the connection is gone without a word; another, with the firewall, has its address
    listener.close()
    peer.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    peer.close()
    firewall(bob, files)
    try:
        client.settimeout(5)
        client.sendall(b"1 NOOP\r\n")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    finally:
        client.close()
        bob.run("nft", "flush ruleset")


def test_firewalld_opens_the_same_ports():
    def ports(path):
        root = ElementTree.parse(path).getroot()
        found = set()
        for port in root.iter("port"):
            first, _, last = port.get("port").partition("-")
            found |= {(port.get("protocol"), number) for number in range(int(first), int(last or first) + 1)}
        return found
    folder = f"{NODE}/etc/firewalld"
    opened = ports(f"{folder}/services/kopano-nodes.xml") | ports(f"{folder}/services/kopano-clients.xml")
    with open(f"{NODE}/etc/nftables.conf") as file:
        text = file.read()
    wanted = set()
    for protocol, words in re.findall(r"(tcp|udp) dport (\{[^}]*\}|\S+) accept", text):
        for word in words.strip("{} ").split(","):
            first, _, last = word.strip().partition("-")
            wanted |= {(protocol, number) for number in range(int(first), int(last or first) + 1)}
    by_zones = {("tcp", 22), ("tcp", 80), ("tcp", 443)}         # firewalld's own ssh, http, https
    assert opened | by_zones == wanted
    for zone in os.listdir(f"{folder}/zones"):
        ElementTree.parse(f"{folder}/zones/{zone}")


# ---- the rest ------------------------------------------------------------------------------------------

def test_nodes_know_each_other(files):
    known = dict(reversed(line.split()[:2]) for line in files.text("/etc/hosts").splitlines()
                 if line.strip() and not line.startswith("#"))
    assert (known["bob"], known["alice"]) == (files.lan(BOB), files.lan(ALICE))


@pytest.mark.parametrize("files", ["IPv6"], indirect=True)
def test_no_example_address_is_left_in_ipv6(files):
    left = subprocess.run(["grep", "-rnE", r"192\.168\.122|10\.0\.0\.", files.directory, "--exclude=ipv6.sed",
                           "--exclude=README.md"], text=True, stdout=subprocess.PIPE).stdout
    assert left == ""


def test_password_script_says_the_password():
    assert command([f"{NODE}/etc/pacemaker/ipmi-password"]).stdout == "secret\n"


def test_the_lab_runs_on_these_files():
    """What is in rootfs and in crm/node is the same file."""
    same = []
    for folder, _, names in os.walk(f"{ROOTFS}/etc"):
        for name in names:
            shipped = f"{NODE}/etc{folder[len(ROOTFS) + 4:]}/{name}"
            if os.path.exists(shipped):
                assert os.path.samefile(f"{folder}/{name}", shipped), shipped
                same.append(name)
    assert {f"{daemon}.cfg" for daemon in DAEMONS} | {"90-cluster.cnf", "config.php"} == set(same)


def test_php_constants_are_plain():
    with open(f"{NODE}/etc/kopano/webapp/config.php") as file:
        assert foreign.php_constants(file.read())["DEFAULT_SERVER"].startswith("http://")
