# SPDX-License-Identifier: GPL-2.0-or-later
"""dagent, gateway, ical, spooler and monitor: bytes, the server away, drains, mail that really flows."""

import base64
import imaplib
import os
import signal
import smtplib
import socket
import time

import pytest

from world import PORTS, wait_for

# generation 9 is in test_start.py, as far as it differs from 11
pytestmark = pytest.mark.generations(8, 11)

READY = b"220 2.1.5 LMTP server is ready\r\n"
FAILED = b"421 internal error: GetSession failed\r\n"


def connect(protocol):
    return socket.create_connection(("127.0.0.1", PORTS[protocol]), 5)


def everything(sock, timeout=5):
    """What comes until the end."""
    sock.settimeout(timeout)
    data = b""
    while True:
        more = sock.recv(65536)
        if not more:
            return data
        data += more


def line(sock):
    data = b""
    while not data.endswith(b"\n"):
        more = sock.recv(1)
        if not more:
            break
        data += more
    return data


def silent(sock, seconds=0.2):
    sock.settimeout(seconds)
    try:
        return sock.recv(1) and False
    except socket.timeout:
        return True


def say(protocol, text):
    """Send all of it after the greeting, return all that comes until the end."""
    with connect(protocol) as sock:
        greeting = line(sock)
        sock.sendall(text)
        return greeting + everything(sock)


# ---- mail flows


def test_mail_from_lmtp_to_imap_and_pop3(mail):
    mail.up("dagent", "gateway")
    mail.deliver("alice", "first\r\n.a line with a dot\r\n", subject="one")
    mail.deliver("alice", "second", subject="two")
    for box in (mail.read_imap("alice"), mail.read_pop3("alice"), mail.read_imap("alice", tls=True),
                mail.read_pop3("alice", tls=True)):
        assert b"first\r\n.a line with a dot" in box[-2] and b"Subject: two" in box[-1]
    pid = mail.main_pid("server")
    os.kill(pid, signal.SIGKILL)  # 250 was said: it must be there
    mail.kill_daemon("server")
    mail.database.kill()
    mail.up("server")
    assert b"Subject: two" in mail.read_imap("alice")[-1]
    with mail.imap("alice") as imap:
        assert imap.list()[0] == "OK" and imap.select("INBOX")[0] == "OK"
        assert imap.uid("search", None, "SUBJECT", '"one"')[1][0].split()
        number = imap.search(None, "ALL")[1][0].split()[-1].decode()
        assert b"two" in imap.fetch(number, "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1][0][1]
        imap.store(number, "+FLAGS", "\\Deleted")
        imap.expunge()
        assert number.encode() not in imap.search(None, "ALL")[1][0].split()


def test_starttls(mail):
    import ssl

    mail.up("gateway")
    imap = imaplib.IMAP4("127.0.0.1", PORTS["imap"])
    imap.starttls(ssl._create_unverified_context())
    assert "STARTTLS" not in imap.capabilities
    assert imap.login("alice", "secret")[0] == "OK"
    imap.logout()


def test_disabled_features(mail):
    mail.write_config("server", disabled_features="imap pop3")
    mail.stop_daemon("server")
    mail.up("server", "gateway")
    with pytest.raises(imaplib.IMAP4.error):
        mail.imap("alice")
    assert mail.hold("imap").greeting.startswith(b"* OK")


# ---- dagent


def test_lmtp_bytes(mail):
    mail.up("dagent")
    if "storeless" not in mail.users:
        mail.add_user("storeless", store=False)
    assert (
        say(
            "lmtp", b"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<nouser@x>\r\nNOOP\r\nRCPT TO:<alice@example.com>\r\n"
            b"RCPT TO:<storeless@example.com>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\nQUIT\r\n") == READY +
        b"250-SERVER ready\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODE\r\n"
        b"250-RSET\r\n250 SMTPUTF8\r\n"
        b"250 2.1.0 Ok\r\n503 5.1.1 User does not exist\r\n555 5.5.4 Command not recognized\r\n250 "
        b"2.1.5 Ok\r\n250 2.1.5 Ok\r\n"
        b"354 2.1.5 Start mail input; end with <CRLF>.<CRLF>\r\n250 2.1.5 alice@example.com Ok\r\n"
        b"450 4.2.0 storeless@example.com Mailbox temporarily unavailable\r\n221 2.0.0 Bye\r\n")


def test_one_session_per_lmtp_client(mail):
    mail.up("dagent")
    before = mail.counters("server")["sessions"]
    socks = [mail.hold("lmtp") for _number in range(3)]
    assert mail.counters("server")["sessions"] == before + 3
    children = [pid for pid in mail.pids("dagent") if pid != mail.main_pid("dagent")]
    assert len(children) == (4 if mail.generation == 8 else 0)  # logger and one for each
    for sock in socks:
        sock.sendall(b"QUIT\r\n")
        assert everything(sock) == b"221 2.0.0 Bye\r\n"
    wait_for(lambda: mail.counters("server")["sessions"] == before, 5, "they log off")


@pytest.mark.parametrize("what", ("server down", "database dead"))
def test_421_leaks_a_slot_in_the_thread_model(mail, what):
    mail.up("dagent")
    if what == "server down":
        mail.kill_daemon("server")
    else:
        mail.database.kill()
    for _number in range(20):
        with connect("lmtp") as sock:
            assert everything(sock) == FAILED
    with connect("lmtp") as last:
        if mail.generation == 8:
            assert everything(last) == FAILED
        else:
            assert silent(last)
    if what == "server down":
        mail.up("server")
    else:
        assert mail.head() == 200
        mail.database.start()
    with connect("lmtp") as sock:
        if mail.generation == 8:
            assert line(sock) == READY
        else:
            assert silent(sock, 0.5)


def test_hung_server_leaks_nothing(mail):
    mail.up("dagent")
    mail.freeze("server")
    socks = [connect("lmtp") for _number in range(19)]
    assert all(silent(sock, 0.01) for sock in socks)
    mail.thaw("server")
    for sock in socks:
        sock.settimeout(5)
        assert line(sock) == READY
        sock.sendall(b"QUIT\r\n")
        everything(sock)
        sock.close()
    assert say("lmtp", b"QUIT\r\n").startswith(READY)


def test_no_more_than_lmtp_max_threads(world):
    world.write_config("dagent", lmtp_max_threads="2")
    world.up("server", "dagent")
    first, second = world.hold("lmtp"), world.hold("lmtp")
    third = world.hold("lmtp", greeting=False)
    assert silent(third)
    first.close()
    third.settimeout(5)
    assert line(third) == READY
    second.close()


@pytest.mark.slow
def test_one_leaked_slot_makes_term_take_30_seconds(mail):
    mail.up("dagent")
    mail.kill_daemon("server")
    with connect("lmtp") as sock:
        assert everything(sock) == FAILED
    check_drain(mail, "dagent", 0.1 if mail.generation == 8 else 30, "lmtp")


@pytest.mark.slow
@pytest.mark.generations(11)
def test_gateway_waits_10_seconds_for_idle_clients(mail):
    mail.up("gateway")
    mail.hold("imap")
    check_drain(mail, "gateway", 10, "imap")


def check_drain(world, name, seconds, protocol):
    """TERM takes so long; meanwhile connections are accepted and never answered."""
    pid = world.main_pid(name)
    began = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    if seconds > 1:
        wait_for(lambda: not world.catches_term(name), 2, "TERM has arrived")
        with connect(protocol) as sock:
            assert silent(sock)
    wait_for(lambda: world.gone(name), seconds + 2, "it never ends")
    assert seconds - 0.2 <= time.monotonic() - began <= seconds + 1
    if name == "dagent" and seconds > 1:
        assert "Forced shutdown with 1 processes/threads left" in world.last_words(name)


def test_term_with_an_idle_lmtp_client(mail):
    """Fork model: children are told to go. Thread model: waits until the client leaves."""
    mail.up("dagent")
    client = mail.hold("lmtp")
    mail.signal("dagent", signal.SIGTERM)
    if mail.generation == 8:
        wait_for(lambda: mail.gone("dagent"), 1, "the fork model leaves at once")
        return
    time.sleep(0.3)
    assert not mail.gone("dagent")
    client.close()
    wait_for(lambda: mail.gone("dagent"), 1, "the last client has left")


def test_second_term_kills_at_once(mail):
    mail.up("dagent", "gateway")
    for name, protocol in (("dagent", "lmtp"), ("gateway", "imap")):
        if name == "dagent" and mail.generation == 8:
            continue
        mail.hold(protocol)
        started = [one for one in mail._started if one.pid == mail.main_pid(name)]
        mail.signal(name, signal.SIGTERM)
        wait_for(lambda: not mail.catches_term(name), 2, "the handler is used up")
        mail.signal(name, signal.SIGTERM)
        wait_for(lambda: mail.gone(name), 1, "the second TERM kills")
        assert not started or started[0].wait(1) == -signal.SIGTERM


@pytest.mark.generations(8)
def test_children_of_a_killed_dagent_live_on(mail):
    mail.up("dagent")
    client = mail.hold("lmtp")
    main = mail.main_pid("dagent")
    os.kill(main, signal.SIGKILL)
    wait_for(lambda: main not in mail.pids("dagent"), 2, "main is dead")
    client.sendall(b"LHLO x\r\n")
    assert line(client) == b"250-SERVER ready\r\n" and mail.pids("dagent")


# ---- gateway


def test_imap_bytes(mail):
    mail.up("gateway")
    greeting = b"* OK [CAPABILITY IMAP4rev1 LITERAL+ STARTTLS AUTH=PLAIN] IMAP gateway ready\r\n"
    assert (
        say("imap", b"a1 CAPABILITY\r\na2 NOOP\r\na3 LOGIN nosuch x\r\na8 LOGOUT\r\n") == greeting
        + b"* CAPABILITY IMAP4rev1 LITERAL+ STARTTLS AUTH=PLAIN CHILDREN XAOL-OPTION NAMESPACE QUOTA IDLE\r\n"
        b"a1 OK CAPABILITY Completed\r\na2 OK NOOP completed\r\na3 NO LOGIN wrong username or password\r\n"
        b"* BYE server logging out\r\na8 OK LOGOUT completed\r\n")


def test_pop3_bytes(mail):
    mail.up("gateway")
    assert (say("pop3", b"CAPA\r\nUSER nosuch\r\nPASS x\r\nQUIT\r\n") == b"+OK POP3 gateway ready\r\n"
            b"+OK \r\nCAPA\r\nTOP\r\nUIDL\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nSTLS\r\nUSER\r\n.\r\n"
            b"+OK Waiting for password\r\n-ERR [AUTH] Wrong username or password\r\n+OK Bye\r\n")


def test_greeting_with_the_hosts_name(mail):
    mail.write_config("gateway", server_hostname_greeting="yes", server_hostname="mx.example.com")
    mail.up("gateway")
    assert mail.hold("imap").greeting.endswith(b"IMAP gateway ready on mx.example.com\r\n")


def test_gateway_with_the_server_down(mail):
    mail.up("gateway")
    mail.kill_daemon("server")
    assert say(
        "imap",
        b"a LOGIN alice secret\r\n").endswith(b"ready\r\na BAD Internal error: OpenECSession failed\r\n")
    assert say(
        "pop3",
        b"USER alice\r\nPASS secret\r\n").endswith(b"-ERR [SYS/TEMP] Internal error: HrLogin failed\r\n")
    assert say("imap", b"a NOOP\r\nb LOGOUT\r\n").endswith(b"b OK LOGOUT completed\r\n")


def test_gateway_with_the_database_dead(mail):
    mail.up("gateway")
    mail.database.kill()
    assert b"a NO LOGIN wrong username or password\r\n" in say("imap",
                                                               b"a LOGIN alice secret\r\nb LOGOUT\r\n")
    mail.database.start()
    assert b"a OK" in say("imap", b"a LOGIN alice secret\r\nb LOGOUT\r\n")


def test_gateway_with_the_server_frozen(mail):
    mail.up("gateway", "ical")
    mail.freeze("server")
    sock = mail.hold("imap")
    sock.sendall(b"a NOOP\r\n")
    assert line(sock) == b"a OK NOOP completed\r\n"
    sock.sendall(b"b LOGIN alice secret\r\n")
    assert silent(sock)
    mail.thaw("server")
    sock.settimeout(5)
    assert line(sock).startswith(b"b OK")


def test_bad_certificate_drops_the_tls_listeners(mail):
    for name in ("gateway", "ical"):
        mail.write_config(name, ssl_certificate_file="/nosuch.pem")
    mail.up("gateway", "ical")
    for protocol in ("imaps", "pop3s", "caldavs"):
        with pytest.raises(ConnectionRefusedError):
            connect(protocol)
    assert (mail.hold("imap").greeting ==
            b"* OK [CAPABILITY IMAP4rev1 LITERAL+ AUTH=PLAIN] IMAP gateway ready\r\n")
    assert b"STLS" not in say("pop3", b"CAPA\r\nQUIT\r\n")


# ---- ical


def http(request, user=None, password="secret"):
    """Head and body of one HTTP exchange with ical."""
    if user:
        secret = base64.b64encode(("%s:%s" % (user, password)).encode())
        request += b"Authorization: Basic " + secret + b"\r\n"
    with connect("caldav") as sock:
        sock.sendall(request + b"\r\n")
        head, _, body = everything(sock).partition(b"\r\n\r\n")
        lines = [text for text in head.split(b"\r\n") if not text.startswith(b"Date: ")]
        assert len(lines) == head.count(b"\r\n")  # one Date
        return lines, body


def test_ical_bytes(mail):
    mail.up("ical")
    tail = [b"Content-Length: 0", b"Server: Kopano", b"Connection: close"]
    assert (http(b"OPTIONS / HTTP/1.1\r\nHost: x\r\n")[0] == [
        b"HTTP/1.1 200 OK", b"Allow: OPTIONS, GET, POST, PUT, DELETE, MOVE",
        b"Allow: PROPFIND, PROPPATCH, REPORT, MKCALENDAR"
    ] + tail)
    denied = b'WWW-Authenticate: Basic realm="Kopano %s Gateway"'
    for method, path, realm in ((b"GET", b"/", b"CalDav"), (b"HEAD", b"/", b"CalDav"), (b"GET", b"/ical/",
                                                                                        b"iCal")):
        assert (http(method + b" " + path
                     + b" HTTP/1.1\r\nHost: x\r\n")[0] == [b"HTTP/1.1 401 Unauthorized", denied % realm]
                + tail)
    dav = http(b"PROPFIND /caldav/ HTTP/1.1\r\nHost: x\r\n")[0]
    assert dav[:2] == [b"HTTP/1.1 401 Unauthorized", denied % b"CalDav"] and any(
        text.startswith(b"DAV:") for text in dav)
    assert http(b"BREW / HTTP/1.1\r\n")[0][0] == b"HTTP/1.1 501 Not Implemented"


def test_ical_login(mail):
    mail.up("ical")
    get, propfind = (b"GET /ical/alice/ HTTP/1.1\r\nHost: x\r\n",
                     b"PROPFIND /caldav/alice/ HTTP/1.1\r\nHost: x\r\n")
    head, body = http(get, "alice")
    assert (head[0] == b"HTTP/1.1 200 OK" and b"text/calendar" in b"".join(head)
            and body.startswith(b"BEGIN:VCALENDAR"))
    assert http(propfind, "alice")[0][0] == b"HTTP/1.1 207 Multi-Status"
    assert http(get, "alice", "wrong")[0][0] == b"HTTP/1.1 401 Unauthorized"
    mail.database.kill()
    assert http(get, "alice")[0][0] == b"HTTP/1.1 401 Unauthorized"
    mail.database.start()
    mail.freeze("server")
    assert http(b"OPTIONS / HTTP/1.1\r\n")[0][0] == b"HTTP/1.1 200 OK"
    with pytest.raises(socket.timeout):
        with connect("caldav") as sock:
            sock.sendall(get + b"Authorization: Basic YWxpY2U6c2VjcmV0\r\n\r\n")
            everything(sock, 0.3)
    mail.thaw("server")
    mail.kill_daemon("server")
    assert http(get, "alice")[0][0] == b"HTTP/1.1 401 Unauthorized"
    assert "Login failed: network error" in mail.last_words("ical")


def test_ical_leaves_at_once_with_an_idle_client(mail):
    mail.up("ical")
    mail.hold("caldav", greeting=False)
    began = time.monotonic()
    mail.stop_daemon("ical")
    assert time.monotonic() - began < 1


# ---- spooler


def test_spooler_has_two_connections(mail):
    mail.up("spooler")
    assert len(mail.server_connections("spooler")) == 2
    mail.database.kill()
    with mail.soap():  # the server lives
        assert len(mail.server_connections("spooler")) == 2
    mail.database.start()


def test_spooler_over_tcp(world):
    """SYSTEM may log on by unix socket alone: the spooler is refused, and goes on trying."""
    world.up("server")
    world.write_config("spooler", server_socket="http://localhost:236/")
    started = world.start_daemon("spooler")
    wait_for(lambda: "Unable to open admin session" in world.last_words("spooler"), 5, "refused")
    assert started.rc is None


def test_spooler_waits_for_the_server(world):
    world.start_daemon("spooler")
    wait_for(lambda: "Server connection lost. Reconnecting in 3 seconds..." in world.last_words("spooler"), 5,
             "retries")
    world.up("server")
    world.wait_ready("spooler", timeout=5)
    wait_for(lambda: "Connection to storage server succeeded after" in world.last_words("spooler"), 5,
             world.last_words("spooler"))


def test_spooler_leaves_with_1_when_the_server_is_down(world):
    started = world.start_daemon("spooler")
    wait_for(lambda: "Reconnecting" in world.last_words("spooler"), 5, "retries")
    world.signal("spooler", signal.SIGTERM)
    assert started.wait(1) == 1


def test_spooler_in_a_frozen_server(mail):
    mail.freeze("server")
    started = mail.start_daemon("spooler")
    wait_for(lambda: mail.catches_term("spooler"), 5, "starts")
    pid = mail.main_pid("spooler")
    os.kill(pid, signal.SIGTERM)
    time.sleep(0.3)
    assert started.rc is None  # blocked in the server
    os.kill(pid, signal.SIGTERM)
    assert started.wait(1) == -signal.SIGTERM


def ticks(pid):
    """Thread -> voluntary context switches."""
    found = {}
    for task in os.listdir("/proc/%d/task" % pid):
        with open("/proc/%d/task/%s/status" % (pid, task)) as file:
            found[task] = int(file.read().split("\nvoluntary_ctxt_switches:")[1].split()[0])
    return found


def settled(pid):
    """ticks() once the main thread has nothing more to do."""

    def quiet():
        before = ticks(pid)
        time.sleep(0.2)
        return before if ticks(pid)[str(pid)] == before[str(pid)] else None

    return wait_for(quiet, 5, "main thread is at rest")


def test_spooler_and_monitor_tick(mail):
    mail.up("spooler", "monitor")
    pids = [mail.main_pid(name) for name in ("spooler", "monitor")]
    before = [settled(pid) for pid in pids]
    time.sleep(5.5)
    after = [ticks(pid) for pid in pids]
    moved = [sorted(after[i][task] - before[i][task] for task in before[i]) for i in (0, 1)]
    assert moved[0][:2] == [0, 0] and 4 <= moved[0][2] <= 7  # notification thread, once a second
    assert moved[1][0] == 0 and 1 <= moved[1][1] <= 2  # scheduler, every 5 s
    assert mail.server_connections("monitor") == set()


class Relay:
    """An SMTP server that keeps what it gets; its answers can be held back."""

    def __init__(self):
        from aiosmtpd.controller import Controller

        self.mails, self.hold = [], False
        self._controller = Controller(self, hostname="127.0.0.1", port=25)
        self._controller.start()

    async def handle_DATA(self, _server, _session, envelope):
        import asyncio

        while self.hold:
            await asyncio.sleep(0.02)
        self.mails.append((envelope.mail_from, envelope.rcpt_tos, envelope.content))
        return "250 taken"

    def stop(self):
        self._controller.stop()


@pytest.fixture
def relay():
    made = Relay()
    yield made
    made.hold = False
    made.stop()


def test_outgoing_mail(mail, relay):
    mail.up("spooler")
    mail.submit("alice", "bob@example.net", "going out")
    wait_for(lambda: relay.mails, 5, mail.last_words("spooler"))
    sender, recipients, content = relay.mails[0]
    assert (sender, recipients) == ("alice@example.com", ["bob@example.net"]) and b"going out" in content
    with mail.soap() as client:
        wait_for(lambda: "<szMessages></szMessages>" in client.call("standinQueue"), 5, "queue is empty")


def test_spooler_waits_for_mails_being_sent(mail, relay):
    relay.hold = True
    mail.up("spooler")
    mail.submit("alice", "bob@example.net", "slow")
    wait_for(lambda: mail.counters("spooler")["sending"] == 1, 5, mail.last_words("spooler"))
    main = mail.main_pid("spooler")
    senders = []
    if mail.generation == 8:

        def sending():
            found = []
            for pid in mail.pids("spooler"):
                with open("/proc/%d/cmdline" % pid) as file:
                    if "--send-message-entryid" in file.read():
                        found.append(pid)
            return found

        senders = wait_for(sending, 5, "mail child")
        os.kill(senders[0], signal.SIGTERM)  # ignored
    os.kill(main, signal.SIGTERM)
    time.sleep(0.3)
    assert main in mail.pids("spooler") and set(senders) <= set(mail.pids("spooler"))
    relay.hold = False
    wait_for(lambda: mail.gone("spooler"), 5, "leaves when the mail is sent")
    assert len(relay.mails) == 1


@pytest.mark.slow
@pytest.mark.generations(11)
def test_a_minute(mail):
    """dagent's idle limit; the spooler notices a dead server at its tick and is back soon "
    "after its return."""
    mail.up("dagent", "spooler")
    began = time.monotonic()
    idle = mail.hold("lmtp")
    mail.kill_daemon("server")
    time.sleep(2)
    assert "Server connection lost" not in mail.last_words("spooler")
    assert everything(idle, 70) == b""
    assert 59 <= time.monotonic() - began <= 62
    wait_for(lambda: "Server connection lost" in mail.last_words("spooler"), 10, "the 60 s tick")
    assert mail.server_connections("spooler") == set()
    mail.up("server")
    mail.wait_ready("spooler", timeout=5)


# ---- monitor


def test_monitor_checks_quota(mail):
    mail.write_config("monitor", quota_check_interval="1")
    mail.up("monitor")
    wait_for(lambda: "Quota monitor done in 0 seconds. Processed:" in mail.last_words("monitor"), 12,
             mail.last_words("monitor"))
    wait_for(lambda: mail.server_connections("monitor") == set(), 5, "no connection stays between two checks")


def test_monitors_term_handler_stays(mail):
    mail.up("monitor")
    assert mail.catches_term("monitor")
    mail.stop_daemon("monitor", 2)


def test_refused_recipient(mail):
    mail.up("dagent")
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        mail.deliver("nobody-here", "x")
