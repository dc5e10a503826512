# SPDX-License-Identifier: GPL-2.0-or-later
"""The database probe against a real MariaDB."""
import os
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

from kopano_ocf import talk
from kopano_ocf.kopano_cfg import Database
from kopano_ocf.probe import mysql

PORT = 13306

pytestmark = pytest.mark.skipif(not shutil.which("mariadbd"), reason="no mariadbd here")

SQL = """
CREATE DATABASE kopano;
CREATE USER kopano@'127.0.0.1' IDENTIFIED BY 'geheim'; GRANT ALL ON kopano.* TO kopano@'127.0.0.1';
CREATE USER kopano@localhost IDENTIFIED BY 'geheim'; GRANT ALL ON kopano.* TO kopano@localhost;
CREATE USER open@'127.0.0.1';
CREATE USER odd@'127.0.0.1' IDENTIFIED BY 'p\xe4ss$''"\\\\ word'; GRANT ALL ON kopano.* TO odd@'127.0.0.1';
INSTALL SONAME 'auth_ed25519';
CREATE USER modern@'127.0.0.1' IDENTIFIED VIA ed25519 USING PASSWORD('geheim');
CREATE USER other@localhost IDENTIFIED VIA unix_socket;
DELETE FROM mysql.global_priv WHERE host='::1'; FLUSH PRIVILEGES;
CREATE USER locked@'127.0.0.1' IDENTIFIED BY 'geheim' ACCOUNT LOCK;

"""


class Server:
    """A MariaDB of its own."""

    def __init__(self, folder):
        self.folder, self.socket = folder, os.path.join(folder, "sock")
        subprocess.run(["mariadb-install-db", "--no-defaults", "--user=root", "--datadir=" + folder + "/data",
                        "--auth-root-authentication-method=normal", "--skip-test-db"],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.process = None
        self.start()
        self.sql(SQL)

    def start(self):
        self.process = subprocess.Popen(
            ["mariadbd", "--no-defaults", "--user=root", "--datadir=" + self.folder + "/data",
             "--port=%d" % PORT, "--bind-address=*", "--socket=" + self.socket, "--max-connections=10",
             "--skip-name-resolve", "--innodb-buffer-pool-size=8M", "--pid-file=" + self.folder + "/pid"],
            stderr=open(self.folder + "/log", "w"))
        end = time.monotonic() + 30
        while True:
            try:
                self.connection().close()
                return
            except OSError:
                running = self.process.poll() is None
                assert running and time.monotonic() < end, open(self.folder + "/log").read()
                time.sleep(0.02)

    def connection(self):
        """A connection that has been greeted."""
        client = socket.create_connection(("127.0.0.1", PORT), timeout=10)
        assert client.recv(4096)
        return client

    def sql(self, text):
        return subprocess.run(["mariadb", "--no-defaults", "-uroot", "-N", "-S", self.socket],
                              input=text.encode(), check=True, stdout=subprocess.PIPE).stdout.decode()

    def stop(self):
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    found = Server(str(tmp_path_factory.mktemp("mariadb")))
    yield found
    found.stop()


def ask(user="kopano", password="geheim", name="kopano", host="127.0.0.1", port=PORT, path="", seconds=5.0):
    begin = time.monotonic()
    seen = mysql.ask(Database(host, port, path, user, password, name), begin + seconds)
    assert time.monotonic() - begin < seconds + 0.5
    assert not password or password not in seen.words
    assert user in seen.words and (path or str(port)) in seen.words
    return seen


def test_tcp(server):
    seen = ask()
    assert seen.how == talk.FINE and "MariaDB" in seen.data["version"]


def test_unix_socket(server):
    assert ask(host="localhost", path=server.socket).how == talk.FINE


def test_without_password(server):
    assert ask(user="open", password="", name="").how == talk.FINE


def test_odd_password(server):
    assert ask(user="odd", password="p\xe4ss$'\"\\ word").how == talk.FINE


@pytest.mark.parametrize("what, words", [
    (dict(password="wrong"), "Access denied"), (dict(password=""), "Access denied"),
    (dict(user="open", password=""), "Access denied"),
    (dict(name="nosuch"), "nosuch"), (dict(name="mysql"), "mysql"), (dict(user="locked"), "locked")])
def test_denied(server, what, words):
    seen = ask(**what)
    assert seen.how == talk.DENIED and words in seen.words


@pytest.mark.parametrize("user", ["nobody-known", "k" * 300])
def test_unknown_user(server, user):
    """MariaDB pretends to have the account and may ask for any kind of login that it knows."""
    assert ask(user=user).how in (talk.DENIED, talk.UNAVAILABLE)


def test_an_account_of_another_system_user(server):
    assert ask(user="other", password="", host="localhost", path=server.socket).how == talk.DENIED


def test_ed25519_is_no_verdict_on_the_database(server):
    seen = ask(user="modern")
    assert seen.how == talk.UNAVAILABLE and "client_ed25519" in seen.words


def test_a_login_that_is_not_spoken_never_blocks_this_host(server):
    server.sql("SET GLOBAL max_connect_errors = 2")
    for _ in range(10):
        ask(user="modern")
        ask(password="wrong")
    assert ask().how == talk.FINE


def test_too_many_connections(server):
    clients = []
    try:
        while len(clients) < 11:
            clients.append(server.connection())
        seen = ask()
        assert seen.how == talk.UNAVAILABLE and "Too many connections" in seen.words
    finally:
        for client in clients:
            client.close()
    wait_for(lambda: ask().how == talk.FINE)


def test_nothing_is_left_behind(server):
    """COM_QUIT: the server sees an end, not an aborted client."""
    def aborted():
        return server.sql("SHOW GLOBAL STATUS LIKE 'Aborted_clients'")
    before = aborted()
    for _ in range(20):
        assert ask().how == talk.FINE
    count = "SELECT count(*) FROM information_schema.processlist WHERE user='kopano'"
    wait_for(lambda: server.sql(count).strip() == "0")
    assert aborted() == before


def test_stopped_server_gives_no_greeting(server):
    server.process.send_signal(signal.SIGSTOP)
    try:
        for place in ({}, dict(host="", path=server.socket)):
            seen = ask(seconds=0.4, **place)
            assert seen.how == talk.SILENT and "greeting" in seen.words
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert ask().how == talk.FINE


def test_host_refused(server):
    """No account at all for the address that we come from."""
    seen = ask(host="::1")
    assert seen.how == talk.DENIED and "not allowed to connect" in seen.words


def test_down():
    assert ask(port=13307).how == talk.REFUSED
    assert ask(host="", path="/nowhere/mysqld.sock").how == talk.REFUSED


def test_another_host_that_can_not_be_reached():
    assert ask(host="192.0.2.1", seconds=1.0).how in (talk.UNREACHABLE, talk.SILENT)


def test_a_name_that_does_not_exist():
    assert ask(host="nosuch.invalid", seconds=3.0).how in (talk.UNREACHABLE, talk.SILENT)


@pytest.mark.parametrize("answer", [b"220 mail ESMTP\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 100,
                                    bytes(range(256)) * 20], ids=["smtp", "http", "zeros", "noise"])
def test_garbage(answer):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def serve():
            client, _ = listener.accept()
            client.sendall(answer)
            client.close()
        thread = threading.Thread(target=serve)
        thread.start()
        seen = ask(port=listener.getsockname()[1])
        thread.join(5)
    assert seen.how in (talk.NONSENSE, talk.CLOSED)


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
