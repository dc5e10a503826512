# SPDX-License-Identifier: GPL-2.0-or-later
"""kopano-server: bytes on the wire, sessions, the database, workers, the upgrade lock, stolen sockets."""

import os
import pwd
import re
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time

import pytest

from world import Soap, wait_for

# generation 9 is in test_start.py, as far as it differs from 11
pytestmark = pytest.mark.generations(8, 11)

LOCK = "/tmp/kopano-upgrade-lock"
SOCK, PRIO = "/run/kopano/server.sock", "/run/kopano/prio.sock"
HEAD = b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD_ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: gSOAP/2.8\r\nX-Frame-Options: SAMEORIGIN\r\nContent-Type: "
    b"text/xml; charset=utf-8\r\n"
    b"Content-Length: 0\r\nConnection: keep-alive\r\n\r\n")
ANSWER = (
    "HTTP/1.1 200 OK\r\nServer: gSOAP/2.8\r\nX-Frame-Options: SAMEORIGIN\r\nContent-Type: "
    "text/xml; charset=utf-8\r\n"
    "Content-Length: %d\r\nConnection: keep-alive\r\n\r\n%s")
ENVELOPE = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<SOAP-ENV:Envelope xmlns:SOAP-ENV="http://schemas.xmlsoap.org/soap/envelope/" '
    'xmlns:SOAP-ENC="http://schemas.xmlsoap.org/soap/encoding/" '
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
    'xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xop="http://www.w3.org/2004/08/xop/include" '
    'xmlns:xmlmime="http://www.w3.org/2004/11/xmlmime" xmlns:ns="urn:zarafa">'
    '<SOAP-ENV:Body SOAP-ENV:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/">%s</SOAP-ENV:Body>'
    '</SOAP-ENV:Envelope>\r\n')
LOGON = (
    b'POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml\r\nContent-Length: 361\r\n'
    b'Connection: keep-alive\r\n\r\n'
    b'<SOAP-ENV:Envelope xmlns:SOAP-ENV="http://schemas.xmlsoap.org/soap/envelope/" '
    b'xmlns:ns="urn:zarafa"><SOAP-ENV:Body>'
    b'<ns:logon><szUsername>SYSTEM</szUsername><szPassword></szPassword><szImpersonateUser>'
    b'</szImpersonateUser>'
    b'<szVersion>8.7.0</szVersion><ulCapabilities>512</ulCapabilities><szClientApp>'
    b'ocf</szClientApp></ns:logon>'
    b'</SOAP-ENV:Body></SOAP-ENV:Envelope>')
CALL = (
    '<SOAP-ENV:Envelope xmlns:SOAP-ENV="http://schemas.xmlsoap.org/soap/envelope/" '
    'xmlns:ns="urn:zarafa"><SOAP-ENV:Body>'
    '<ns:%s><ulSessionId>%s</ulSessionId></ns:%s></SOAP-ENV:Body></SOAP-ENV:Envelope>')


def talk(sock, request, until=None, timeout=5):
    """Send and receive one answer (of that many bytes, or up to its end)."""
    sock.settimeout(timeout)
    sock.sendall(request)
    data = b""
    while True:
        data += sock.recv(65536)
        head, end, body = data.partition(b"\r\n\r\n")
        if end and len(body) >= (until if until is not None else int(
                re.search(rb"Content-Length: (\d+)", head).group(1))):
            return data


def unix(path=SOCK):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    return sock


def silent(sock, seconds=0.2):
    """Whether nothing comes for so long."""
    sock.settimeout(seconds)
    try:
        return sock.recv(1) and False
    except socket.timeout:
        return True


def call(name, session):
    body = CALL % (name, session, name)
    return (
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n"
        "Connection: keep-alive\r\n\r\n%s"
        % (len(body), body)).encode()


def expect(answer, inner):
    body = ENVELOPE % inner
    assert answer.decode() == ANSWER % (len(body), body)


@pytest.fixture
def up(world):
    world.up("server")
    return world


# ---- bytes


def test_head_and_options_on_all_listeners(up):
    context = ssl._create_unverified_context()
    for sock in (unix(SOCK), unix(PRIO), socket.create_connection(
        ("127.0.0.1", 236)), socket.create_connection(
            ("::1", 236)), context.wrap_socket(socket.create_connection(("127.0.0.1", 237)))):
        with sock:
            assert talk(sock, HEAD) == HEAD_ANSWER
            assert talk(sock, HEAD.replace(b"HEAD", b"OPTIONS")) == HEAD_ANSWER


@pytest.mark.parametrize("request_line", (b"GET / HTTP/1.1", b"GET /?wsdl HTTP/1.1", b"GET /x HTTP/1.0"))
def test_get(up, request_line):
    with socket.create_connection(("127.0.0.1", 236)) as sock:
        answer = talk(sock, request_line + b"\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert (
            head == b"HTTP/1.1 405 Method Not Allowed\r\nServer: gSOAP/2.8\r\nX-Frame-Options: SAMEORIGIN\r\n"
            b"Content-Type: text/xml; charset=utf-8\r\nContent-Length: 579\r\nConnection: close")
        assert len(body) == 579 and b"<faultstring>HTTP GET method not implemented</faultstring>" in body
        assert sock.recv(1) == b""


def test_garbage_gets_no_answer(up):
    with socket.create_connection(("127.0.0.1", 236)) as sock:
        sock.sendall(b"\x00\x01rubbish\r\n\r\n")
        assert silent(sock)


def deep(world, dead):
    """The conversation of the deep check, compared byte by byte; returns nothing."""
    with unix() as sock:
        answer = talk(sock, LOGON)
        session = re.search(rb"<ulSessionId>(\d+)<", answer).group(1).decode()
        guid = re.search(rb"<sServerGuid>([^<]{24})<", answer).group(1).decode()
        version = {8: "0,8,7,25", 9: "0,9,0,11", 11: "0,11,0,2"}[world.generation]
        expect(
            answer, "<ns:logonResponse><er>0</er><ulSessionId>%s</ulSessionId><lpszVersion>%s</lpszVersion>"
            "<ulCapabilities>39592</ulCapabilities><sLicenseResponse></sLicenseResponse><sServerGuid>"
            "%s</sServerGuid>"
            "</ns:logonResponse>" % (session, version, guid))
        answer = talk(sock, call("getStore", session))
        if dead:
            expect(
                answer,
                "<ns:getStoreResponse><er>2147483655</er><sStoreId></sStoreId><sRootId></sRootId><guid>"
                "</guid>"
                "</ns:getStoreResponse>")
        else:
            ids = re.search(rb"<sStoreId>(.{48})</sStoreId><sRootId>(.{48})</sRootId><guid>(.{24})</guid>",
                            answer).groups()
            expect(
                answer,
                "<ns:getStoreResponse><er>0</er><sStoreId>%s</sStoreId><sRootId>%s</sRootId><guid>%s</guid>"
                "<lpszServerPath>pseudo://Unknown</lpszServerPath></ns:getStoreResponse>"
                % tuple(w.decode() for w in ids))
        expect(talk(sock, call("logoff", session)),
               "<ns:logoffResponse><result>0</result></ns:logoffResponse>")


def test_deep_check_healthy(up):
    deep(up, dead=False)
    assert up.counters("server")["sessions"] == 0


def test_deep_check_with_the_database_dead(up):
    up.database.kill()
    deep(up, dead=True)
    assert up.head() == 200
    up.database.start()
    deep(up, dead=False)


# ---- sessions


def test_logon_codes(mail):
    with Soap(SOCK) as client:
        assert client.logon("nosuch", "x") == client.logon("alice", "wrong") == 0x80000009
        assert client.logon("alice", "secret") == 0
        assert client.er("logon", szUsername="SYSTEM", szVersion="8", ulCapabilities=512) == 0x80000009
        assert 'Invalid argument "impuser"' in mail.last_words("server")
        assert client.er("logon", szUsername="SYSTEM", szImpersonateUser="",
                         ulCapabilities=0) == (0x80000009 if mail.generation == 8 else 0x80000031)
    mail.database.kill()
    with Soap(SOCK) as client:
        assert client.logon("alice", "secret") == 0x80000009
        assert client.logon() == 0
        assert [client.er(name)
                for name in ("resolveUserStore", "getUserList", "purgeDeferredUpdates")] == [0x80000007] * 3
        assert client.er("resolveUsername") == 0x80000002 and client.er("getStoreName") == 0x80000014
    mail.database.start()


def test_session_belongs_to_the_peers_pid(up):
    with up.soap() as client:
        code = (
            "import sys; sys.path.insert(0, %r); from world import Soap; s = Soap(%r); s.session = %r;"
            "print(s.er('getStore'))")
        other = subprocess.run(
            [sys.executable, "-c", code % (os.path.dirname(os.path.dirname(__file__)), SOCK, client.session)],
            capture_output=True, text=True)
        assert int(other.stdout) == 0x80000010
        assert "Denying access to session from source" in up.last_words("server")
        assert client.er("getStore") == 0


def test_who_may_be_system(up):
    code = (
        "import os, sys; os.setgid(%d); os.setuid(%d); sys.path.insert(0, %r); from world import Soap;"
        "print(Soap(%r).logon())")
    for user, expected in (("root", 0), ("kopano", 0), ("nobody", 0x80000009)):
        entry = pwd.getpwnam(user)
        done = subprocess.run([
            sys.executable, "-c", code %
            (entry.pw_gid, entry.pw_uid, os.path.dirname(os.path.dirname(__file__)), SOCK)
        ], capture_output=True, text=True)
        assert done.stdout.strip() == str(expected), done


def test_sessions_left_behind(world):
    world.write_config("server", session_timeout="2")
    world.up("server")
    for _number in range(3):
        world.soap().close()
    assert world.counters("server")["sessions"] == 3
    wait_for(lambda: world.counters("server")["sessions"] == 0, 8, "they time out")


# ---- sockets


def test_modes_and_owner_of_the_sockets(up):
    for path, mode in ((SOCK, 0o666), (PRIO, 0o660)):
        found = os.stat(path)
        assert (stat.S_IMODE(found.st_mode), pwd.getpwuid(found.st_uid).pw_name) == (mode, "kopano")


def test_listens_on_lo_alone_by_default(up):
    with socket.socket() as sock:
        sock.settimeout(1)
        refused = sock.connect_ex(("127.0.0.1", 236))
    assert refused == 0
    with open("/proc/net/tcp6") as file:
        assert any(words[1].endswith(":00EC") and words[3] == "0A" for words in map(str.split, file))


def test_second_server_steals_the_sockets(up):
    first = up.main_pid("server")
    second_cfg = "/etc/kopano/second.cfg"
    with open(up.config("server")) as file, open(second_cfg, "w") as out:
        out.write(
            file.read()
            + "server_listen = 127.0.0.1:1236\nserver_listen_tls =\npid_file = /run/kopano/second.pid\n")
    second = up.start_daemon("server", config=second_cfg)
    wait_for(lambda: "Startup succeeded on pid %d" % second.pid in up.last_words("server"), 5,
             "second server")
    with unix() as sock:
        pid = int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 4), sys.byteorder)
        assert pid == second.pid
    os.kill(second.pid, signal.SIGTERM)
    assert second.wait(5) == 0
    assert up.pids("server") == [first]
    with pytest.raises(ConnectionRefusedError):
        unix()
    with socket.create_connection(("127.0.0.1", 236)) as sock:
        assert talk(sock, HEAD) == HEAD_ANSWER


def test_second_server_on_the_same_ports_leaves_the_sockets_alone(up):
    assert up.start_daemon("server").wait(5) == (-signal.SIGTERM if up.generation == 8 else 255)
    assert up.head() == 200


# ---- start and the database


def test_waits_for_the_database(world):
    world.database.kill()
    started = world.start_daemon("server")
    wait_for(lambda: "Unable to connect, retrying in 10s" in world.last_words("server"), 5,
             world.last_words("server"))
    for sock in (unix(), unix(PRIO), socket.create_connection(("127.0.0.1", 236))):
        with sock:
            sock.sendall(HEAD)
            assert silent(sock, 0.1)
    assert started.rc is None and not os.path.exists(LOCK)
    os.kill(started.pid, signal.SIGTERM)
    assert started.wait(1) == -signal.SIGTERM


def test_gives_up_after_nine_tries(world):
    """Without -F, too: generation 8 goes into the background only once the database answered."""
    world.fault("server", "retry", 0.02)
    world.write_config("server", mysql_password="wrong")
    started = world.start_daemon("server", foreground=world.generation != 8)
    assert started.wait(10) == 255
    assert "An error occurred: disk error (0x80000007)" in started.output
    with open("%s/server.log" % world.log) as file:
        text = file.read()
    assert text.count("mysql_real_connect: ") == text.count("Unable to connect, retrying in") == 9


def test_hup_before_the_database_answered_kills(world):
    world.database.freeze()
    started = world.start_daemon("server")
    wait_for(
        lambda: os.path.exists(SOCK) and "uid %d" % pwd.getpwnam("kopano").pw_uid in world.last_words(
            "server"), 5, "")
    os.kill(started.pid, signal.SIGHUP)
    assert started.wait(2) == -signal.SIGHUP
    world.database.thaw()


@pytest.mark.generations(8)
def test_background_start_returns_before_it_serves(world):
    with open("/run/kopano/server.pid", "w") as file:
        file.write("4194303\n")
    os.chmod("/run/kopano/server.pid", 0o666)
    world.fault("server", "upgrade", 60)
    world.database.freeze()
    started = world.start_daemon("server", foreground=False)
    wait_for(lambda: os.path.exists(SOCK), 5, "listens")
    with open("/run/kopano/server.pid") as file:
        assert file.read() == "4194303\n" and started.rc is None
    world.database.thaw()
    assert started.wait(5) == 0
    wait_for(lambda: open("/run/kopano/server.pid").read() == "%s\n" % world.main_pid("server"), 5,
             "pid file")
    with unix() as sock:
        sock.sendall(HEAD)
        assert silent(sock, 0.1)
        world.fault("server", None)
        assert talk(sock, b"") == HEAD_ANSWER


def test_missing_database_is_created(world):
    world.write_config("server", mysql_database="brand new")
    world.up("server")
    deep(world, dead=False)


# ---- schema upgrade


def holds_lock(pid):
    return any(os.readlink("/proc/%d/fd/%s" % (pid, fd)) == LOCK for fd in os.listdir("/proc/%d/fd" % pid))


def test_upgrade_lock(world):
    world.fault("server", "upgrade", 60)
    started = world.start_daemon("server")
    wait_for(lambda: os.path.exists(LOCK), 5, LOCK)
    assert holds_lock(started.pid)
    with unix() as sock:
        sock.sendall(HEAD)
        assert silent(sock, 0.1)
    os.kill(started.pid, signal.SIGHUP)
    os.kill(started.pid, signal.SIGTERM)
    time.sleep(0.2)
    assert started.rc is None and holds_lock(started.pid)
    world.fault("server", None)
    assert started.wait(5) == 0  # the upgrade ended, then it left
    assert not os.path.exists(LOCK)


def test_second_term_kills_the_upgrade(world):
    world.fault("server", "upgrade", 60)
    started = world.start_daemon("server")
    wait_for(lambda: os.path.exists(LOCK), 5, LOCK)
    os.kill(started.pid, signal.SIGTERM)
    wait_for(lambda: not world.catches_term("server"), 2, "the handler is used up")
    os.kill(started.pid, signal.SIGTERM)
    assert started.wait(2) == -signal.SIGTERM
    os.unlink(LOCK)


def test_left_over_lock_file(world):
    with open(LOCK, "w"):
        pass
    shutil.chown(LOCK, "kopano")  # it could open it
    world.fault("server", "upgrade", 60)
    started = world.start_daemon("server")
    wait_for(lambda: LOCK in world.last_words("server"), 5, world.last_words("server"))
    assert "[warning]" in world.last_words("server") and not holds_lock(started.pid)
    world.fault("server", None)
    world.wait_ready("server")
    assert os.path.exists(LOCK)
    os.unlink(LOCK)


def test_lock_is_gone_when_it_serves(up):
    assert not os.path.exists(LOCK)


# ---- the database hangs


def block(world, count):
    """So many calls that hang in the database."""
    world.database.freeze()
    clients = []
    for _number in range(count):
        client = world.soap()
        client._sock.sendall(call("getStore", client.session))
        clients.append(client)
    wait_for(lambda: world.counters("server")["db_calls"] >= min(count, 8), 10, world.counters("server"))
    return clients


def test_hung_database_blocks_workers(up):
    clients = block(up, 7)
    began = time.monotonic()
    assert up.head() == 200 and up.soap().session
    assert time.monotonic() - began < 0.5
    more = up.soap()
    more._sock.sendall(call("getStore", more.session))
    wait_for(lambda: up.counters("server")["db_calls"] == 8, 5, "eight calls")
    for path in (SOCK, PRIO):
        with unix(path) as sock:
            sock.sendall(HEAD)
            assert silent(sock)
    wait_for(lambda: up.counters("server")["workers"] > 8, 5, "the watchdog adds workers")
    assert up.head() == 200
    up.database.thaw()
    wait_for(lambda: up.counters("server")["db_calls"] == 0, 5, "all calls come back")
    assert up.head() == 200
    for client in clients + [more]:
        client.close()


def test_term_with_calls_in_a_hung_database(up):
    pid = up.main_pid("server")
    clients = block(up, 1)
    os.kill(pid, signal.SIGTERM)
    time.sleep(0.5)
    assert up.pids("server") == [pid]
    with unix() as sock:
        sock.sendall(HEAD)
        assert silent(sock)
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: up.gone("server"), 2, "the second TERM kills")
    up.database.thaw()
    clients[0].close()


def test_term_with_the_database_dead(up):
    started = up.start_daemon("monitor")
    up.database.kill()
    began = time.monotonic()
    up.stop_daemon("server")
    assert time.monotonic() - began < 1 and started.rc is None


def test_term_with_idle_clients(up):
    with unix() as sock, up.soap():
        talk(sock, HEAD)
        began = time.monotonic()
        up.stop_daemon("server")
        assert time.monotonic() - began < 1


def test_incomplete_request_holds_a_worker(world):
    world.write_config("server", server_read_timeout="2")
    world.up("server")
    socks = [unix() for _number in range(8)]
    for sock in socks:
        sock.sendall(b"HEAD / HT")
    with unix() as sock:
        sock.sendall(HEAD)
        assert silent(sock, 0.5)
    for sock in socks:
        sock.settimeout(5)
        assert sock.recv(1) == b""  # closed after server_read_timeout
        sock.close()
    assert world.head() == 200
