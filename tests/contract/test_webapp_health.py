# SPDX-License-Identifier: GPL-2.0-or-later
"""webapp-health: what users would see of WebApp, told in a node attribute; never a reason to restart anything."""
import http.server
import os
import socket
import ssl
import threading
import time
import urllib.parse

import pytest

from .looks import lines, run, says, serve

LOGIN = """<html><head><title>Kopano WebApp</title></head><body class="login theme">
<form action="index.php?logon" method="post"><input type="text" name="username" id="username">
<input type="password" name="password" id="password"></form></body></html>"""
STATUS = "Total Accesses: 1\nBusyWorkers: 1\nIdleWorkers: 9\nScoreboard: W_________\n"
NAME = "kopano-webapp-health"
PASSWORD = "pass word&<>\""


class Web:
    """Port 80 (and 443) of this host, answering what it is told to.

    page  (status, headers, body) of /webapp/, or a function of the connected socket
    """

    def __init__(self, certificate=""):
        self.page = (200, {}, LOGIN)
        self.status = (200, {}, STATUS)
        self.requests = []
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            """Whatever the test wants."""

            protocol_version = "HTTP/1.1"

            def do_GET(self):
                """A page."""
                web.requests.append("%s %s" % (self.command, self.path))
                path = self.path
                if path == "/webapp/?logout":
                    answer = (200, {}, "bye")
                elif path.startswith("/webapp/inside"):
                    answer = (200, {}, "<html>your mails</html>")
                else:
                    answer = {"/webapp/": web.page, "/server-status?auto": web.status}.get(path, (404, {}, "none"))
                self.answer(answer)

            def do_POST(self):
                """The login form."""
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                form = dict(urllib.parse.parse_qsl(body))
                web.requests.append("POST %s" % self.path)
                good = form == {"username": "alice", "password": PASSWORD}
                self.answer((302, {"Location": "/webapp/inside"}, "") if good else (200, {}, LOGIN))

            def answer(self, answer):
                """Send it, or let the test do something else with the connection."""
                if callable(answer):
                    answer(self.connection)
                    self.close_connection = True
                    return
                status, headers, body = answer
                data = body.encode()
                self.send_response(status)
                for key, value in dict({"Content-Type": "text/html", "Content-Length": len(data)}, **headers).items():
                    self.send_header(key, str(value))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_words):
                """Nothing."""

        self.servers = [http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
                        for port in ((80, 443) if certificate else (80,))]
        if certificate:
            self.use(certificate)
        for server in self.servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

    def use(self, certificate):
        """Speak TLS with this certificate on port 443."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server = self.servers[1]
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)

    def close(self):
        """Nobody listens any more."""
        for server in self.servers:
            server.shutdown()
            server.server_close()
        self.servers = []


class Health:
    """The agent, on a host whose attrd_updater writes down what it is asked to do."""

    def __init__(self, world, folder, web):
        self.world, self.web = world, web
        self.record = str(folder / "attributes")
        updater = folder / "attrd_updater"
        updater.write_text("#!/bin/sh\nprintf '%%s\\n' \"$*\" >> %s\n" % self.record)
        updater.chmod(0o755)
        self.env = {"PATH": "%s:/usr/bin:/bin" % folder}

    def __call__(self, action="monitor", rc=0, *words, **how):
        how.setdefault("env", {})
        how["env"] = dict(self.env, **how["env"])
        how.setdefault("timeout", 20)
        return says(self.world.agent("webapp-health", action, **how), rc, *words, probe=how.get("interval") == 0)

    @property
    def told(self):
        """Words of each call of attrd_updater so far."""
        return lines(self.record)

    @property
    def attribute(self):
        """What the attribute would be: "1", "0", None once it was deleted or when it was never set."""
        values = {}
        for line in self.told:
            words = line.split()
            values[words[words.index("-n") + 1]] = words[words.index("-U") + 1] if "-U" in words else None
        return values.get(NAME)


@pytest.fixture
def web(world11):
    """Port 80 of the host."""
    made = Web(world11.certificate)
    yield made
    made.close()


@pytest.fixture
def health(world11, web, tmp_path):
    """The agent beside a healthy WebApp; not started yet."""
    return Health(world11, tmp_path, web)


@pytest.fixture
def started(health):
    """The same, started."""
    health("start")
    assert health.attribute == "1"
    return health


def test_before_start_and_after_stop_it_is_7(health):
    for level in (0, 10, 20):
        health("monitor", 7, level=level)
    health("monitor", 7, interval=0)
    health("stop")
    health("start")
    health("monitor", 0, level=0)
    health("monitor", 0)
    health("start")
    assert health.attribute == "1"
    health("stop")
    assert health.attribute is None and health.told[-1] == "-n %s -D" % NAME
    health("monitor", 7)
    health("monitor", 7, interval=0)
    health("stop")


def test_a_good_page_is_0_and_the_attribute_is_set_once(started):
    for _ in range(3):
        assert started("monitor").err == ""
    assert started.told == ["-n %s -U 1" % NAME]


def hang(_connection):
    """Say nothing."""
    time.sleep(30)


def drip(connection):
    """A byte now and then, for ever."""
    with_head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
    for byte in with_head + b"x" * 1000:
        connection.sendall(bytes((byte,)))
        time.sleep(0.05)


def endless(connection):
    """More than anybody wants to read."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    for _ in range(10000):
        connection.sendall(b"x" * 65536)


def nonsense(connection):
    """No HTTP."""
    connection.sendall(b"\0\1\2\xff" * 100)


def half(connection):
    """The beginning of a page."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n<html>")


BAD = {
    "broken installation": (200, {}, "<html><h1>Invalid configuration</h1><p>php-mapi is missing</p>" + LOGIN),
    "another page": (200, {}, "<html>It works!</html>"), "empty": (200, {}, ""), "500": (500, {}, LOGIN),
    "503": (503, {}, "busy"), "404": (404, {}, "gone"), "403": (403, {}, "no"),
    "redirect for ever": (302, {"Location": "/webapp/"}, ""), "hang": hang, "drip": drip, "endless": endless,
    "nonsense": nonsense, "half": half}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_page_is_attribute_0_and_190(started, what):
    started.web.page = BAD[what]
    result = started("monitor", 190, "http://localhost/webapp/", timeout=3)
    assert result.took < 2.9
    assert started.attribute == "0"
    if what == "broken installation":
        assert "php-mapi is missing" in result.reason
    started.web.page = (200, {}, LOGIN)
    started("monitor")
    assert started.attribute == "1"


def test_nobody_answers_is_attribute_0_and_190(started):
    started.web.close()
    started("monitor", 190, "refused")
    assert started.attribute == "0"


def test_start_with_a_bad_page_is_0(health):
    health.web.page = (500, {}, "")
    health("start", 0)
    assert health.attribute == "0"
    health("monitor", 190)


def test_depth_0_asks_nobody(started):
    started.web.requests.clear()
    started("monitor", level=0)
    started("monitor", level=9)
    assert started.web.requests == []


# ---- the server behind it

def configuration(text, path="/etc/kopano/webapp/config.php"):
    """WebApp's config.php."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write("<?php\n// define('DEFAULT_SERVER', 'http://wrong:236');\n%s\n" % text)


@pytest.mark.parametrize("text", ('define("DEFAULT_SERVER", "default:");',
                                  "define ( 'DEFAULT_SERVER' , 'file:///var/run/kopano/server.sock' ) ;",
                                  'define("DEFAULT_SERVER","http://127.0.0.1:236/kopano");'))
def test_a_server_that_is_away_is_190_and_the_attribute_stays_1(started, text):
    configuration(text)
    started("monitor", 0, level=10)
    started("monitor", 190, "server", level=20)
    assert started.attribute == "1"
    started("monitor", 0, level=10)
    serve(started.world, "server")
    started("monitor", 0, level=20)
    started.world.freeze("server")
    started("monitor", 190, "server", level=20, timeout=2)
    started.world.thaw("server")
    assert started.told == ["-n %s -U 1" % NAME]


def test_a_database_that_is_dead_is_190_and_the_attribute_stays_1(started):
    configuration('define("DEFAULT_SERVER", "default:");')
    serve(started.world, "server")
    started.world.database.kill()
    started("monitor", 190, "DATABASE", level=20)
    assert started.attribute == "1"


def test_a_config_php_that_tells_nothing_is_190_at_depth_20(started):
    configuration("define('SOMETHING', 1);", "/etc/kopano/webapp/other.php")
    for path in ("/etc/kopano/webapp/other.php", "/etc/kopano/webapp/none.php"):
        params = {"config": path}
        started("monitor", 190, path, level=20, params=params)
        started("monitor", 0, level=10, params=params)
    assert started.attribute == "1"


def test_login_to_the_test_mailbox(started, tmp_path):
    configuration('define("DEFAULT_SERVER", "default:");')
    serve(started.world, "server")
    good, wrong = tmp_path / "good", tmp_path / "wrong"
    good.write_text(PASSWORD + "\n")
    wrong.write_text("guess\n")
    started("monitor", level=20)
    assert not [request for request in started.web.requests if request.startswith("POST")], "a login without test_user"
    started("monitor", level=20, params={"test_user": "alice", "test_password_file": good})
    assert "GET /webapp/?logout" in started.web.requests
    started("monitor", level=10, params={"test_user": "alice", "test_password_file": wrong})
    result = started("monitor", 190, "login", level=20, params={"test_user": "alice", "test_password_file": wrong})
    assert "guess" not in result.err
    started("monitor", 190, "none", level=20, params={"test_user": "alice", "test_password_file": tmp_path / "none"})
    assert started.attribute == "1"


# ---- Apache's own status

def test_apaches_status_is_asked_and_an_empty_status_url_is_not(started):
    started.web.status = (404, {}, "")
    started("monitor", 190, "server-status")
    assert started.attribute == "1", "the page that users see is fine"
    started.web.requests.clear()
    started("monitor", 0, params={"status_url": ""})
    assert started.web.requests == ["GET /webapp/"]


def test_no_idle_worker_is_190(started):
    started.web.status = (200, {}, "BusyWorkers: 10\nIdleWorkers: 0\nScoreboard: WWWWWWWWWW\n")
    started("monitor", 190, "worker")


# ---- parameters

def test_single_sign_on_sites_set_their_own_match(started):
    oidc = {"params": {"match": "X-Kopano-OIDCAuth: *true"}}
    started.web.page = (302, {"Location": "https://idp.example.com/", "X-Kopano-OIDCAuth": "true"}, "")
    started("monitor", 0, **oidc)
    started("monitor", 190)
    started.web.page = (401, {"WWW-Authenticate": "Negotiate"}, "sign on")
    started("monitor", 0, params={"match": "WWW-Authenticate: Negotiate"})
    started("monitor", 190, params={"match": "something else"})


def test_url_names_the_page(started):
    started("monitor", 190, "http://127.0.0.1/elsewhere", params={"url": "http://127.0.0.1/elsewhere"})
    started("monitor", 0, params={"url": "http://127.0.0.1/webapp/"})


def test_certificates_are_verified_unless_told_otherwise(started):
    url = "https://localhost/webapp/"
    started("monitor", 190, "certificate", params={"url": url})
    assert started.attribute == "0"
    started("monitor", 0, params={"url": url, "ca_file": started.world.certificate})
    started("monitor", 0, params={"url": url, "tls_verify": "false"})
    started("monitor", 190, params={"url": "https://127.0.0.2/webapp/", "ca_file": started.world.certificate})


def test_another_attribute_or_none(health):
    for value, told in (("#health-webapp", ["-n #health-webapp -U 1", "-n #health-webapp -D"]), ("", [])):
        before = len(health.told)
        params = {"attribute": value}
        for action in ("start", "monitor", "stop"):
            health(action, params=params)
        assert health.told[before:] == told


def test_a_renamed_attribute_leaves_none_behind(started):
    params = {"attribute": "other"}
    started("reload-agent", params=params)
    started("monitor", params=params)
    assert started.told == ["-n %s -U 1" % NAME, "-n %s -D" % NAME, "-n other -U 1"]


@pytest.mark.parametrize("parameter, value", (
    ("url", "webapp"), ("url", "ftp://host/"), ("url", "http:///x"), ("status_url", "x y"), ("match", "(open"),
    ("config", "config.php"), ("attribute", "two words"), ("tls_verify", "perhaps"), ("ca_file", "ca.pem"),
    ("test_password_file", "x")))
def test_a_parameter_that_is_wrong_in_itself_is_6_and_named(health, parameter, value):
    health("start", 6, parameter, value, params={parameter: value})
    health("monitor", 7)


def test_clone_instances_are_told_apart(health):
    health("start", instance="webapp-health:0")
    health("monitor", instance="webapp-health:0")
    health("monitor", 7, instance="webapp-health:1")
    health("stop", instance="webapp-health:1")
    assert health.attribute == "1", "another instance took the attribute away"
    health("monitor", instance="webapp-health:0")
    health("stop", instance="webapp-health:0")
    assert health.attribute is None


def test_without_attrd_updater_the_page_is_watched_all_the_same(world11, web):
    def agent(action, **how):
        return world11.agent("webapp-health", action, env={"PATH": "/srv/nothing"}, **how)

    # the agent's interpreter is found without PATH
    says(agent("start"), 0)
    says(agent("monitor"), 0)
    web.page = (500, {}, "")
    says(agent("monitor"), 190)
    says(agent("stop"), 0)


def test_other_actions(started):
    assert run("webapp-health", "reload").rc == 3
    started("reload-agent")
    started("stop")
    started("reload-agent", 1)


def test_memory_lost_is_not_started(started):
    for name in os.listdir(started.world.rsctmp):
        os.unlink(os.path.join(started.world.rsctmp, name))
    started("monitor", 7)
    started("start")
    assert started.attribute == "1"


def test_one_log_line_per_change(started, tmp_path):
    log = str(tmp_path / "ha.log")
    for page, new in (((200, {}, LOGIN), 0), ((500, {}, ""), 1), ((200, {}, LOGIN), 1)):
        before = len(lines(log))
        started.web.page = page
        for _ in range(3):
            started("monitor", (0, 190), env={"HA_LOGFILE": log})
        assert len(lines(log)) - before == new


def test_a_proxy_of_the_environment_is_not_asked(started):
    with socket.create_server(("127.0.0.1", 3128)) as proxy:
        proxy.setblocking(False)
        started("monitor", env={"http_proxy": "http://127.0.0.1:3128", "HTTP_PROXY": "http://127.0.0.1:3128"})
        with pytest.raises(BlockingIOError):
            proxy.accept()
