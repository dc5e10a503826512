# SPDX-License-Identifier: GPL-2.0-or-later
"""CalDAV, plain and with TLS, against Radicale."""

import time

import pytest

from kopano_ocf import talk
from kopano_ocf.endpoint import parse
from kopano_ocf.probe import caldav, soap
from peers.services import write

PORT, TLS_PORT = 15232, 15233
PASSWORDS = {"user1": "s3cret", "j\u00fcrgen": "p\u00e4\u00df:w\u00f6rd"}

CONFIGURATION = """
[server]
hosts = 127.0.0.1:{port}
ssl = {tls}
certificate = {cert.pem}
key = {cert.key}
[auth]
type = htpasswd
htpasswd_filename = {folder}/users
htpasswd_encryption = plain
delay = 0
[rights]
type = authenticated
[storage]
filesystem_folder = {folder}/data
"""


def start(services, certificate, port, tls):
    folder = services.folder()
    write(folder, "users", "".join("%s:%s\n" % pair for pair in PASSWORDS.items()))
    write(folder, "conf", CONFIGURATION.format(folder=folder, cert=certificate, port=port, tls=tls))
    return services.start(folder, ["radicale", "--config", folder + "/conf"], [port])


@pytest.fixture(scope="module")
def radicale(services, certs):
    return start(services, certs["good"], PORT, False)


def ask(probe, url="http://127.0.0.1:%d" % PORT, seconds=10, **words):
    seen, = talk.run([(parse(url, "caldav"), probe)], time.monotonic() + seconds, **words)
    return seen


@pytest.mark.usefixtures("radicale")
class TestHealthy:
    def test_it_answers(self):
        assert ask(caldav.options).how == talk.FINE

    @pytest.mark.parametrize("user", sorted(PASSWORDS))
    @pytest.mark.parametrize("path", ["/%s/", "/caldav/%s/"])
    def test_login(self, user, path):
        seen = ask(lambda wire: caldav.login(wire, user, PASSWORDS[user], path=path))
        assert seen.how == talk.FINE
        assert seen.words == "CalDAV login, HTTP status %d" % (207 if path == "/%s/" else 404)

    @pytest.mark.parametrize("user, password", [("user1", "s3cretno"), ("nobody", "s3cretno"), ("", "")])
    def test_login_refused(self, user, password):
        seen = ask(lambda wire: caldav.login(wire, user, password))
        assert seen.how == talk.DENIED and "s3cret" not in seen.words

    def test_it_is_not_kopano_server(self):
        assert ask(soap.head).how == talk.NONSENSE


def test_frozen(radicale):
    radicale.freeze()
    try:
        seen = ask(caldav.options, seconds=0.5)
        assert seen.how == talk.SILENT and "the answer to OPTIONS, 0 bytes had come" in seen.words
    finally:
        radicale.thaw()
    assert ask(caldav.options).how == talk.FINE


def test_tls(services, certs):
    start(services, certs["good"], TLS_PORT, True)
    url = "https://localhost:%d" % TLS_PORT
    assert ask(caldav.options, url).how == talk.FINE
    assert ask(caldav.options, url, tls_verify=True, ca_file=certs["ca"].pem).how == talk.FINE
    assert ask(caldav.options, url, tls_verify=True).how == talk.CERTIFICATE
    login = ask(lambda wire: caldav.login(wire, "user1", "s3cret"), url)
    assert login.how == talk.FINE
