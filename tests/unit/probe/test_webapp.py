# SPDX-License-Identifier: GPL-2.0-or-later
"""WebApp's page, Apache's status and a login through the form, against web servers good and bad."""

import gzip
import http.server
import os
import signal
import socketserver
import subprocess
import sys
import threading
import time
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings, strategies as st

import certificates
from kopano_ocf import talk
from kopano_ocf.probe import webapp
from scripted import Peer, descriptors, left_open, server_side


requests = pytest.importorskip("requests")

LIB = os.path.dirname(os.path.dirname(os.path.abspath(talk.__file__)))
FORM = ('<html><head><title>Kopano WebApp</title></head><body class="login theme-basic">\n'
        '<form action="?logon" method="post"><div id="error">%s</div>\n'
        '<input type="text" name="username" id="username" value="">\n'
        '<input type="password" name="password" id="password"></form></body></html>')
BROKEN = ('<html><body><h1>Invalid configuration</h1><p>php-mapi extension not found.</p>'
          '<input name="username"><input name="password"></body></html>')


def children():
    """Child processes of the test runner, zombies included; other tests may keep some."""
    with open("/proc/self/task/%d/children" % os.getpid()) as file:
        return set(file.read().split())


@pytest.fixture(autouse=True)
def nothing_is_left():
    before, others = descriptors(), children()
    yield
    assert not left_open(before)
    assert children() == others


@pytest.fixture
def serve():
    """Run a web server: answer(handler) returns (status, headers, body); the URL of its root."""
    servers = []

    def make(answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"       # noqa: V107

            def handle_one_request(self):
                try:
                    http.server.BaseHTTPRequestHandler.handle_one_request(self)
                except OSError:
                    self.close_connection = True        # noqa: V101

            def do_GET(self):
                status, headers, body = answer(self)
                body = body if isinstance(body, bytes) else body.encode()
                self.send_response(status)
                for pair in headers:
                    self.send_header(*pair)
                if not any(name == "Content-Length" for name, _ in headers):
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *_):      # noqa: V103,V105
                pass

        class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
            daemon_threads = True       # noqa: V107

        server = Server(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        servers.append((server, thread))
        return "http://127.0.0.1:%d/webapp/" % server.server_port

    yield make
    for server, thread in servers:
        server.shutdown()
        thread.join(10)
        server.server_close()


def page(url, match="", seconds=20, **words):
    deadline = time.monotonic() + seconds
    seen = webapp.page(url, match, deadline, **words)
    assert time.monotonic() < deadline + 0.5
    assert seen.words and "\n" not in seen.words
    return seen


def always(status, body="", *headers):
    return lambda handler: (status, headers, body)


# ---------------------------------------------------------------- the page

@pytest.mark.parametrize("body", [
    FORM % "", "<INPUT TYPE=text NAME=username><br>\n<input\nname='password'\ntype=password>",
    '<input id="u" name="username"/>' + "x" * 100000 + '<input name="password">'])
@pytest.mark.parametrize("match", ["", None, webapp.LOGIN_FORM])
def test_a_login_form_is_fine(serve, body, match):
    seen = page(serve(always(200, body)), match)
    assert (seen.how, seen.words) == (talk.FINE, "HTTP status 200 OK, with the login form")


@pytest.mark.parametrize("status, body, how, words", [
    (200, BROKEN, talk.NONSENSE, "'Invalid configuration': php-mapi extension not found."),
    (200, "<html><title>Index of /</title></html>", talk.NONSENSE, "200 OK 'Index of /', but no login form"),
    (200, "", talk.NONSENSE, "no login form"),
    (200, '<input name="password"><input name="username">', talk.NONSENSE, "no login form"),
    (400, "", talk.NONSENSE, "set url to its https address"),
    (404, FORM % "", talk.NONSENSE, "404 Not Found"),
    (401, FORM % "", talk.NONSENSE, "401 Unauthorized"),
    (500, FORM % "", talk.NONSENSE, "500 Internal Server Error"),
    (503, "", talk.UNAVAILABLE, "503 Service Unavailable"),
])
def test_bad_pages(serve, status, body, how, words):
    seen = page(serve(always(status, body)))
    assert seen.how == how and words in seen.words


@pytest.mark.parametrize("match, status, headers, body, how", [
    ("Welcome", 200, (), "Welcome to the portal", talk.FINE),
    ("^HTTP/1.1 401 ", 401, (("WWW-Authenticate", "Negotiate"),), "", talk.FINE),
    ("^WWW-Authenticate: Negotiate$", 401, (("WWW-Authenticate", "Negotiate"),), "", talk.FINE),
    ("^X-Kopano-OIDCAuth: true$", 200, (("X-Kopano-OIDCAuth", "true"),), "", talk.FINE),
    ("^Location: https://idp[.]example/", 302, (("Location", "https://idp.example/signin"),), "", talk.FINE),
    ("Gr\u00fc\u00dfe", 200, (), "Gr\u00fc\u00dfe".encode("utf-8"), talk.FINE),
    ("Welcome", 200, (), "Go away", talk.NONSENSE),
    ("Welcome", 500, (), "Welcome", talk.NONSENSE),
    ("Welcome", 503, (), "Welcome", talk.UNAVAILABLE),
    ("Invalid", 200, (), BROKEN, talk.NONSENSE),
    ("(", 200, (), "(", talk.NONSENSE),
    ("x{99999999999}", 200, (), "", talk.NONSENSE),
])
def test_a_match_of_ones_own(serve, match, status, headers, body, how):
    assert page(serve(always(status, body, *headers)), match).how == how


def test_an_expression_that_goes_astray_is_cut_off(serve):
    url = serve(always(200, "a" * 5000 + "!"))
    seen = page(url, "(a+)+$", seconds=2)
    assert seen.how == talk.SILENT and "regular expression in match" in seen.words


def test_redirections_are_followed_to_this_host_alone(serve):
    """A front end's name would lead to whichever node has its address now."""
    def answer(handler):
        hosts.append(handler.headers["Host"])
        if handler.path == "/webapp/":
            port = handler.headers["Host"].partition(":")[2]
            return 302, (("Location", "http://mail.example.com:%s/mail/" % port),), ""
        return 200, (), FORM % ""

    hosts = []
    assert page(serve(answer)).how == talk.FINE
    assert hosts[0].startswith("127.0.0.1:") and hosts[1].startswith("mail.example.com:")


@pytest.mark.parametrize("where, words", [
    ("/webapp/", "more than 5 redirections"), ("ftp://127.0.0.1/", "InvalidSchema"), ("http://[", ""),
    ("//:99999/", ""), ("\u00e9\x7f", ""), ("http:///", ""),
])
def test_redirections_that_lead_nowhere(serve, where, words):
    seen = page(serve(always(302, "", ("Location", where))))
    assert seen.how in (talk.NONSENSE, talk.UNREACHABLE, talk.REFUSED) and words in seen.words


def test_proxies_of_the_environment_are_ignored(serve, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    assert page(serve(always(200, FORM % ""))).how == talk.FINE


def test_a_compressed_page_is_not_asked_for(serve):
    def answer(handler):
        asked.append(handler.headers["Accept-Encoding"])
        return 200, (("Content-Encoding", "gzip"),), gzip.compress(b"\0" * (64 << 20))

    asked = []
    assert page(serve(answer)).how == talk.NONSENSE
    assert asked == ["identity"]


def raw(data, then=None):
    """A script: hear a request, send bytes, then what is asked for."""
    def script(connection, peer):
        peer.hear(connection, b"\r\n\r\n")
        connection.sendall(data)
        if then == "hold":
            peer.over.wait(20)
        while then == "forever" and not peer.over.is_set():
            connection.sendall(data)
        while then == "drip" and not peer.over.wait(0.05):
            connection.sendall(b"x")
    return script


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize("script, how, words", [
    (raw(b"", "hold"), talk.SILENT, "waited for the page"),
    (raw(b"", "drip"), talk.SILENT, "waited for the page"),
    (raw(OK + b"X: ", "drip"), talk.SILENT, "waited for the page"),
    (raw(OK + b"\r\n", "drip"), talk.SILENT, "waited for the page"),
    (raw(OK + b"Content-Length: 99\r\n\r\n", "hold"), talk.SILENT, "waited for the page"),
    (raw(b""), talk.CLOSED, "closed before the answer"),
    (raw(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab"), talk.CLOSED, "before the page was complete"),
    (raw(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nab"), talk.CLOSED, ""),
    (raw(b"* OK IMAP gateway ready\r\n"), talk.NONSENSE, "not HTTP"),
    (raw(b"\0" * 70000), talk.NONSENSE, "not HTTP"),
    (raw(OK + b"X: y\r\n" * 5000 + b"\r\n"), talk.NONSENSE, "not HTTP"),
    (raw(OK + b"\r\n" + b"x" * 65536, "forever"), talk.NONSENSE, "longer than 2 MiB"),
    (raw(OK + b"Content-Length: -5\r\n\r\n"), talk.NONSENSE, ""),
])
def test_web_servers_gone_wrong(script, how, words):
    with Peer(script) as peer:
        seen = page("http://127.0.0.1:%d/webapp/" % peer.port, seconds=2 if how == talk.SILENT else 20)
    assert seen.how == how and words in seen.words


def test_an_endless_redirection_ends():
    with Peer(raw(b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n" + b"x" * 65536, "forever")) as peer:
        seen = page("http://127.0.0.1:%d/" % peer.port, seconds=3)
    assert seen.how in (talk.NONSENSE, talk.SILENT)


@pytest.mark.parametrize("url, how", [
    ("http://127.0.0.1:%d/", talk.REFUSED), ("http://192.0.2.1:%d/", None), ("", talk.UNREACHABLE),
    ("webapp", talk.UNREACHABLE), ("ftp://127.0.0.1/", talk.NONSENSE), ("http://[::1", talk.UNREACHABLE),
    ("http://127.0.0.1:99999/", None), ("http://127.0.0.1:x/", None), ("http://x\0y/", None),
    ("file:///etc/passwd", talk.UNREACHABLE), ("http://\u00fc\ud800/", None), ("http://a..b/", None),
])
def test_urls_that_lead_nowhere(url, how):
    seen = page(url.replace("%d", "1"), seconds=1)
    assert seen.how == how if how else seen.how not in (talk.FINE, talk.DENIED)


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", OK, OK + b"\r\n", b"HTTP/1.1 302 Found\r\nLocation: "]),
       st.sampled_from([b"", b"\r\n\r\n"]))
def test_whatever_comes_there_is_a_verdict(data, before, after):
    with Peer(raw(before + data + after)) as peer:
        page("http://127.0.0.1:%d/" % peer.port, seconds=2)


def test_the_child_ends_when_the_parent_is_killed():
    """Pacemaker kills an agent that takes too long; nothing of it may stay."""
    code = ("import sys, time; sys.path.insert(0, sys.argv[1])\n"
            "from kopano_ocf.probe import webapp\n"
            "webapp.page(sys.argv[2], '', time.monotonic() + 2)\n")
    with Peer(raw(b"", "drip")) as peer:
        parent = subprocess.Popen([sys.executable, "-c", code, LIB, "http://127.0.0.1:%d/" % peer.port])
        limit = time.monotonic() + 10
        while not peer.heard and time.monotonic() < limit:
            time.sleep(0.01)
        with open("/proc/%d/task/%d/children" % (parent.pid, parent.pid)) as children:
            child = int(children.read().split()[0])
        parent.send_signal(signal.SIGKILL)
        parent.wait(10)
        while alive(child) and time.monotonic() < limit:
            time.sleep(0.01)
        assert not alive(child)


def alive(pid):
    try:
        with open("/proc/%d/stat" % pid) as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# ---------------------------------------------------------------- TLS

@pytest.fixture(scope="module")
def certs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("web")
    made = {"ca": certificates.make(folder / "ca", "Test CA", ca=True)}
    made["good"] = certificates.make(folder / "good", authority=made["ca"])
    made["other"] = certificates.make(
        folder / "other", "other.example", "DNS:other.example", authority=made["ca"])
    made["expired"] = certificates.make(folder / "expired", end=certificates.LONG_AGO, authority=made["ca"])
    return made


@pytest.mark.parametrize("certificate, verify, how, words", [
    ("good", True, talk.FINE, "login form"),
    ("good", False, talk.FINE, "login form"),
    ("other", True, talk.CERTIFICATE, "certificate not trusted"),
    ("other", False, talk.FINE, "login form"),
    ("expired", True, talk.CERTIFICATE, "certificate not trusted: "),
    ("expired", False, talk.CERTIFICATE, "certificate expired on 2021-01-01"),
])
def test_certificates_are_judged(certs, certificate, verify, how, words):
    body = (FORM % "").encode()
    script = raw(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))
    with Peer(script, tls=server_side(certs[certificate])) as peer:
        seen = page("https://localhost:%d/webapp/" % peer.port, ca_file=certs["ca"].pem, tls_verify=verify)
    assert seen.how == how and words in seen.words


def test_a_ca_file_that_is_none(certs, tmp_path):
    with Peer(raw(b""), tls=server_side(certs["good"])) as peer:
        url = "https://localhost:%d/" % peer.port
        assert page(url, ca_file=str(tmp_path / "none")).how == talk.CERTIFICATE
        (tmp_path / "bad").write_text("nothing")
        assert page(url, ca_file=str(tmp_path / "bad")).how == talk.CERTIFICATE


def test_plain_text_where_tls_is_due():
    with Peer(raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as peer:
        peer.script = lambda connection, _: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        seen = page("https://127.0.0.1:%d/" % peer.port)
    assert seen.how in (talk.NONSENSE, talk.CLOSED)


# ---------------------------------------------------------------- Apache's status

def status_report(busy=1, idle=49, scoreboard="_W...."):
    return "localhost\nServerVersion: Apache/2.4.71\nBusyWorkers: %s\nIdleWorkers: %s\nScoreboard: %s\n" % (
        busy, idle, scoreboard)


@pytest.mark.parametrize("code, body, how, words", [
    (200, status_report(), talk.FINE, "1 workers busy, 49 idle"),
    (200, status_report(150, 0, "WWWW...."), talk.FINE, "150 workers busy, 0 idle"),
    (200, status_report(150, 0, "WWWW"), talk.UNAVAILABLE, "150 workers busy, 0 idle"),
    (200, "<html><title>Apache Status</title>", talk.NONSENSE, "'Apache Status', but no mod_status report"),
    (200, status_report("x"), talk.NONSENSE, "no mod_status report"),
    (200, status_report("\u0663"), talk.NONSENSE, "no mod_status report"),
    (200, "", talk.NONSENSE, "no mod_status report"),
    (403, status_report(), talk.NONSENSE, "403 Forbidden"),
    (404, "", talk.NONSENSE, "404 Not Found"),
])
def test_status(serve, code, body, how, words):
    seen = webapp.status(serve(always(code, body)), time.monotonic() + 20)
    assert seen.how == how and words in seen.words
    if how in (talk.FINE, talk.UNAVAILABLE):
        assert seen.data == {"busy": int(seen.words.split()[0]), "idle": int(seen.words.split()[3])}


def test_status_of_a_silent_server():
    with Peer(raw(b"", "hold")) as peer:
        seen = webapp.status("http://127.0.0.1:%d/server-status?auto" % peer.port, time.monotonic() + 2)
    assert seen.how == talk.SILENT and "Apache's status" in seen.words


# ---------------------------------------------------------------- logging in

class WebApp:
    """Answers as WebApp's index.php does."""

    error, text, password = None, "Wrong", "s3cret & \u00e4"

    def __init__(self):
        self.requests = []

    def __call__(self, handler):
        url = urlsplit(handler.path)
        self.requests.append("%s ?%s" % (handler.command, url.query))
        cookie = "KOPANO_WEBAPP=in" in handler.headers.get("Cookie", "")
        if url.query == "logout":
            return 303, (("Location", url.path), ("Set-Cookie", "KOPANO_WEBAPP=out; path=/")), ""
        if handler.command == "POST":
            form = parse_qs(handler.rfile.read(int(handler.headers["Content-Length"])).decode(),
                            keep_blank_values=True)
            if form == {"username": ["user1"], "password": [self.password]} and not self.error:
                return 303, (("Location", url.path), ("Set-Cookie", "KOPANO_WEBAPP=in; path=/")), ""
            # an answer that gives the secret away
            headers = (("X-Zarafa-Hresult", self.error),) if self.error else ()
            return 200, headers, FORM % (self.text + " %s" % form["password"][0])
        if cookie:
            return 200, (("X-Zarafa", "6.0.0"),), "<html><body class='zarafa-webclient'>mail</body></html>"
        return 200, (), FORM % ""


def log_in(url, password="s3cret & \u00e4", seconds=20, **words):
    seen = webapp.login(url, "user1", password, time.monotonic() + seconds, **words)
    assert "s3cret" not in seen.words
    return seen


@pytest.mark.parametrize("password", ["s3cret & \u00e4", "s3cret & \u00e4".encode("utf-8")])
def test_login_and_logout(serve, password):
    site = WebApp()
    assert log_in(serve(site), password).how == talk.FINE
    assert site.requests == ["GET ?", "POST ?logon", "GET ?", "GET ?logout"]


@pytest.mark.parametrize("error, text, how, words", [
    ("MAPI_E_LOGON_FAILED", "", talk.DENIED, "login refused"),
    ("MAPI_E_UNCONFIGURED", "", talk.DENIED, "login refused"),
    (None, "Falsches Kennwort", talk.DENIED, "login refused"),
    ("MAPI_E_NETWORK_ERROR", "Keine Verbindung", talk.UNAVAILABLE, "does not reach its server"),
    (None, "Cannot connect to Kopano Core.", talk.UNAVAILABLE, "error of its server"),
    ("MAPI_E_CALL_FAILED", "", talk.UNAVAILABLE, "error of its server"),
    ("s3cret", "", talk.UNAVAILABLE, "error of its server"),
])
def test_login_refused(serve, error, text, how, words):
    site = WebApp()
    site.error, site.text = error, text
    seen = log_in(serve(site), "s3cret but wrong")
    assert seen.how == how and words in seen.words
    assert "GET ?logout" not in site.requests


def test_no_form_to_log_in_with(serve):
    seen = log_in(serve(always(401, "")))
    assert seen.how == talk.NONSENSE and "no login form" in seen.words
    assert log_in(serve(always(200, BROKEN))).how == talk.NONSENSE


@pytest.mark.parametrize("code", [400, 404, 500, 502, 503])
def test_an_error_after_the_login(serve, code):
    def answer(handler):
        return (code, (), "s3cret") if handler.command == "POST" else (200, (), FORM % "")
    seen = log_in(serve(answer))
    assert seen.how == (talk.UNAVAILABLE if code >= 500 else talk.NONSENSE) and str(code) in seen.words


@pytest.mark.parametrize("reply", [
    b"", b"s3cret\r\n", b"HTTP/1.1 s3cret\r\n\r\n", b"HTTP/1.1 200 s3cret\r\n\r\ns3cret",
    b"HTTP/1.1 302 s3cret\r\nLocation: http://s3cret/\r\n\r\n",
    b"HTTP/1.1 302 x\r\nLocation: s3cret://s3cret/\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ns3cret\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: s3cret\r\n\r\n"])
def test_a_password_that_is_echoed_is_not_repeated(reply):
    form = b"HTTP/1.0 200 OK\r\n\r\n" + (FORM % "").encode()

    def script(connection, peer):
        first = peer.hear(connection, b"\r\n\r\n").startswith(b"GET")
        connection.sendall(form if first else reply)

    with Peer(script) as peer:
        log_in("http://127.0.0.1:%d/webapp/" % peer.port, "s3cret", seconds=3)


def test_a_login_that_hangs(serve):
    let_go = threading.Event()

    def answer(handler):
        if handler.command == "POST":
            let_go.wait(10)
        return 200, (), FORM % ""

    seen = log_in(serve(answer), seconds=5)
    let_go.set()
    assert seen.how == talk.SILENT and "the answer to the login" in seen.words
