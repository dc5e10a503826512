# SPDX-License-Identifier: GPL-2.0-or-later
"""Web servers that are no Kopano, by nginx: other answers, TLS, unix socket, IPv6, frozen."""

import time

import pytest

from kopano_ocf import talk
from kopano_ocf.endpoint import Endpoint, parse
from kopano_ocf.probe import caldav, imap, soap, webapp
from peers.services import write

PORT, TLS_PORT, BROKEN_PORT = 5080, 5443, 5236

CONFIGURATION = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  default_type text/html;
  server {{
    listen 127.0.0.1:{port}; listen unix:{folder}/socket;
    location / {{ return 200 'hello'; }}
    location /none/ {{ return 444; }}
    location /dead/ {{ proxy_pass http://127.0.0.1:1; }}
    location /form/ {{ return 200 '<input name="username"><input name="password">'; }}
  }}
  server {{
    listen 127.0.0.1:{tls_port} ssl; listen [::1]:{tls_port} ssl;
    ssl_certificate {cert.pem}; ssl_certificate_key {cert.key};
    location / {{ return 200 '<input name="username"><input name="password">'; }}
  }}
  server {{
    # a front end whose server is away
    listen 127.0.0.1:{broken};
    location / {{ proxy_pass http://127.0.0.1:1; proxy_intercept_errors on; error_page 502 = @away; }}
    location @away {{ return 503; }}
  }}
}}
"""


@pytest.fixture(scope="module")
def nginx(services, certs):
    folder = services.folder()
    write(folder, "conf", CONFIGURATION.format(
        folder=folder, cert=certs["good"], port=PORT, tls_port=TLS_PORT, broken=BROKEN_PORT))
    return services.start(folder, ["nginx", "-p", folder, "-c", folder + "/conf"],
                          [PORT, TLS_PORT, BROKEN_PORT])


def ask(url, probe, seconds=10, **words):
    endpoint = parse(url, "soap") if isinstance(url, str) else url
    seen, = talk.run([(endpoint, probe)], time.monotonic() + seconds, **words)
    return seen


@pytest.mark.parametrize("url, probe, words", [
    ("http://127.0.0.1:%d" % PORT, soap.head, "some other HTTP server answers (HTTP status 200 OK, Server"),
    ("https://127.0.0.1:%d" % TLS_PORT, soap.head, "some other HTTP server answers (HTTP status 200 OK"),
    ("https://[::1]:%d" % TLS_PORT, soap.head, "some other HTTP server answers (HTTP status 200 OK"),
    ("http://127.0.0.1:%d" % BROKEN_PORT, soap.head, "HTTP status 503 Service"),
    ("http://127.0.0.1:%d" % PORT, soap.deep, "the answer to logon is HTTP status"),
    ("http://127.0.0.1:%d" % TLS_PORT, soap.head, "HTTP status 400 Bad Request"),
    ("http://127.0.0.1:%d" % PORT, imap.noop, ""),
])
def test_another_server_is_recognised(nginx, url, probe, words):
    seen = ask(url, probe, seconds=10 if words else 0.5)
    # one that waits for a request and one that waits for a greeting
    assert seen.how == (talk.NONSENSE if words else talk.SILENT) and words in seen.words, nginx.state()


@pytest.mark.usefixtures("nginx")
def test_options():
    """nginx has an answer to OPTIONS, as to any method, but no Allow header."""
    seen = ask("http://127.0.0.1:%d" % PORT, caldav.options)
    assert seen.how == talk.NONSENSE and "without an Allow header" in seen.words


def test_a_unix_socket(nginx):
    assert "nginx" in ask(Endpoint("soap", path=nginx.folder + "/socket"), soap.head).words


def test_frozen(nginx):
    """The kernel accepts for a frozen process; nothing comes."""
    nginx.freeze()
    try:
        seen = talk.run([(entry, soap.head) for entry in (
            parse("http://127.0.0.1:%d" % PORT, "soap"), Endpoint("soap", path=nginx.folder + "/socket"),
            parse("https://127.0.0.1:%d" % TLS_PORT, "soap"))], time.monotonic() + 0.4)
        page = webapp.page("http://127.0.0.1:%d/form/" % PORT, "", time.monotonic() + 0.7)
    finally:
        nginx.thaw()
    assert [one.how for one in seen] == [talk.SILENT] * 3
    assert "waited for the TLS handshake" in seen[2].words
    assert page.how == talk.SILENT


@pytest.mark.usefixtures("nginx")
@pytest.mark.parametrize("path, how, words", [
    ("/form/", talk.FINE, "login form"), ("/", talk.NONSENSE, "no login form"),
    ("/dead/", talk.NONSENSE, "502 Bad Gateway"), ("/none/", talk.CLOSED, "closed before the answer")])
def test_pages(path, how, words):
    seen = webapp.page("http://127.0.0.1:%d%s" % (PORT, path), "", time.monotonic() + 10)
    assert seen.how == how and words in seen.words


@pytest.mark.usefixtures("nginx")
@pytest.mark.parametrize("host, verified, how", [
    ("localhost", True, talk.FINE), ("127.0.0.1", True, talk.FINE), ("[::1]", True, talk.CERTIFICATE),
    ("localhost", False, talk.CERTIFICATE)])
def test_pages_with_tls(certs, host, verified, how):
    seen = webapp.page("https://%s:%d/" % (host, TLS_PORT), "", time.monotonic() + 10,
                       certs["ca"].pem if verified else None, True)
    assert seen.how == how
