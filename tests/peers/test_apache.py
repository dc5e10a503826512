# SPDX-License-Identifier: GPL-2.0-or-later
"""WebApp's page, its login, and mod_status, by Apache with PHP; mod_status's own words, and HTTPS."""

import os
import shutil
import socket
import time

import pytest

from kopano_ocf import talk
from kopano_ocf.endpoint import parse
from kopano_ocf.probe import caldav, soap, webapp
from peers.services import write

PORT, TLS_PORT = 18081, 18444
URL, STATUS = "http://127.0.0.1:%d/webapp/" % PORT, "http://127.0.0.1:%d/server-status?auto" % PORT
MODULES = "/usr/lib/apache2/modules"

CONFIGURATION = """
ServerRoot {folder}
ServerName localhost
PidFile {folder}/pid
ErrorLog {folder}/log
Listen 127.0.0.1:{port}
Listen 127.0.0.1:{tls_port}
User www-data
Group www-data
LoadModule mpm_prefork_module {modules}/mod_mpm_prefork.so
LoadModule php_module {php}
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule authz_host_module {modules}/mod_authz_host.so
LoadModule alias_module {modules}/mod_alias.so
LoadModule dir_module {modules}/mod_dir.so
LoadModule headers_module {modules}/mod_headers.so
LoadModule env_module {modules}/mod_env.so
LoadModule status_module {modules}/mod_status.so
LoadModule ssl_module {modules}/mod_ssl.so
# nothing that grows: two workers are all there is
ServerLimit 2
MaxRequestWorkers 2
StartServers 2
MinSpareServers 1
MaxSpareServers 2
KeepAliveTimeout 1
DirectoryIndex index.php
SetEnv WEBAPP_STATE {folder}/state
DocumentRoot {folder}/htdocs
Alias /webapp {folder}/webapp
<Directory {folder}>
  Require all granted
</Directory>
<FilesMatch "[.]php$">
  SetHandler application/x-httpd-php
</FilesMatch>
<Location /server-status>
  SetHandler server-status
  Require local
</Location>
<Location /sso/>
  Header always set WWW-Authenticate Negotiate
  Redirect 401
</Location>
Redirect /old/ https://mail.example.com:{tls_port}/webapp/
Redirect /loop/ http://127.0.0.1:{port}/loop/
<VirtualHost 127.0.0.1:{tls_port}>
  SSLEngine on
  SSLCertificateFile {cert.pem}
  SSLCertificateKeyFile {cert.key}
</VirtualHost>
"""


@pytest.fixture(scope="module")
def apache(services, certs):
    php = [name for name in sorted(os.listdir(MODULES)) if name.startswith("libphp")] \
        if os.path.isdir(MODULES) else []
    if not php:
        pytest.skip("no Apache with PHP here")
    folder = services.folder()
    shutil.copytree(os.path.join(os.path.dirname(os.path.abspath(__file__)), "webapp"), folder + "/webapp")
    os.mkdir(folder + "/htdocs")
    write(folder, "state", "fine")
    write(folder, "conf", CONFIGURATION.format(
        folder=folder, cert=certs["good"], port=PORT, tls_port=TLS_PORT, modules=MODULES,
        php=os.path.join(MODULES, php[-1])))
    return services.start(folder, ["apache2", "-D", "FOREGROUND", "-d", folder, "-f", folder + "/conf"],
                          [PORT, TLS_PORT])


@pytest.fixture
def webapp_is(apache):
    """Says what is wrong with WebApp."""
    def be(state):
        write(apache.folder, "state.new", state)
        os.rename(apache.folder + "/state.new", apache.folder + "/state")
    yield be
    be("fine")


def soon(seconds=10):
    return time.monotonic() + seconds


@pytest.mark.usefixtures("apache")
def test_a_healthy_page():
    seen = webapp.page(URL, "", soon())
    assert (seen.how, seen.words) == (talk.FINE, "HTTP status 200 OK, with the login form")
    assert webapp.page("http://localhost:%d/webapp" % PORT, "", soon()).how == talk.FINE


@pytest.mark.parametrize("state, match, how, words", [
    ("invalid", "", talk.NONSENSE, "'Invalid configuration': php-mapi extension was not found."),
    ("invalid", "mapi", talk.NONSENSE, "'Invalid configuration'"),
    ("fatal", "", talk.NONSENSE, "500 Internal Server Error"),
    ("oidc", "", talk.NONSENSE, "no login form"),
    ("oidc", "^X-Kopano-OIDCAuth: true", talk.FINE, "as match demands"),
    ("away", "", talk.FINE, "with the login form"),
])
def test_what_may_be_wrong_with_the_page(webapp_is, state, match, how, words):
    webapp_is(state)
    seen = webapp.page(URL, match, soon())
    assert seen.how == how and words in seen.words


def test_a_page_that_hangs(webapp_is):
    webapp_is("hang")
    seen = webapp.page(URL, "", soon(2))
    assert seen.how == talk.SILENT and URL in seen.words


@pytest.mark.usefixtures("apache")
@pytest.mark.parametrize("path, match, how", [
    ("/nosuch/", "", talk.NONSENSE), ("/sso/", "", talk.NONSENSE),
    ("/loop/", "", talk.NONSENSE),
    ("/sso/", "^HTTP/1.1 401 .*\n(.*\n)*WWW-Authenticate: Negotiate$", talk.FINE)])
def test_other_paths(path, match, how):
    assert webapp.page("http://127.0.0.1:%d%s" % (PORT, path), match, soon()).how == how


@pytest.mark.usefixtures("apache")
@pytest.mark.parametrize("verify, ca, how", [
    (True, True, talk.FINE), (False, False, talk.FINE), (True, False, talk.CERTIFICATE)])
def test_a_redirection_to_https_under_the_front_ends_name(certs, verify, ca, how):
    seen = webapp.page("http://127.0.0.1:%d/old/" % PORT, "", soon(), certs["ca"].pem if ca else None, verify)
    assert seen.how == how


@pytest.mark.usefixtures("apache")
def test_login_and_logout():
    assert webapp.login(URL, "user1", "s3cret & more", soon()).how == talk.FINE


@pytest.mark.parametrize("state, password, how, words", [
    ("fine", "s3cret but wrong", talk.DENIED, "MAPI_E_LOGON_FAILED"),
    ("away", "s3cret & more", talk.UNAVAILABLE, "MAPI_E_NETWORK_ERROR"),
    ("oidc", "s3cret & more", talk.NONSENSE, "no login form"),
    ("invalid", "s3cret & more", talk.NONSENSE, "no login form"),
])
def test_a_login_that_fails(webapp_is, state, password, how, words):
    webapp_is(state)
    seen = webapp.login(URL, "user1", password, soon())
    assert seen.how == how and words in seen.words and "s3cret" not in seen.words


def test_status(webapp_is):
    webapp_is("fine")
    limit = soon()
    seen = webapp.status(STATUS, limit)
    while seen.how != talk.FINE and time.monotonic() < limit:
        # a worker of a test before may still keep its connection alive
        time.sleep(0.05)
        seen = webapp.status(STATUS, limit)
    assert seen.how == talk.FINE and seen.data["busy"] >= 1


def test_no_worker_to_spare(webapp_is):
    webapp_is("hang")
    with socket.create_connection(("127.0.0.1", PORT)) as hung:
        hung.sendall(b"GET /webapp/ HTTP/1.1\r\nHost: x\r\n\r\n")
        limit = soon()
        seen = webapp.status(STATUS, limit)
        while seen.how != talk.UNAVAILABLE and time.monotonic() < limit:
            time.sleep(0.02)
            seen = webapp.status(STATUS, limit)
        assert (seen.how, seen.words) == (talk.UNAVAILABLE, "2 workers busy, 0 idle")
        webapp_is("fine")


@pytest.mark.usefixtures("apache")
@pytest.mark.parametrize("url, words", [
    ("http://127.0.0.1:%d/server-status" % PORT, "'Apache Status', but no mod_status report"),
    ("http://127.0.0.1:%d/nosuch?auto" % PORT, "404 Not Found"),
    (URL, "'Webmail', but no mod_status report")])
def test_what_is_no_status(url, words):
    seen = webapp.status(url, soon())
    assert seen.how == talk.NONSENSE and words in seen.words


@pytest.mark.usefixtures("apache")
def test_apache_is_not_kopano():
    seen, options = talk.run([(parse("http://127.0.0.1:%d" % PORT, "soap"), soap.head),
                              (parse("http://127.0.0.1:%d" % PORT, "soap"), caldav.options)], soon())
    assert seen.how == talk.NONSENSE and "Server: Apache" in seen.words
    # it has no index there, and says so
    assert options.how in (talk.NONSENSE, talk.FINE)
