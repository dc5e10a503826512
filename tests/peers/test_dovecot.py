# SPDX-License-Identifier: GPL-2.0-or-later
"""LMTP, IMAP and POP3, plain and with TLS, against Dovecot."""

import os
import time

import pytest

from kopano_ocf import talk
from kopano_ocf.endpoint import parse
from kopano_ocf.probe import imap, lmtp, pop3
from peers.services import write

IMAP, IMAPS, POP3, POP3S, LMTP = 10143, 10993, 10110, 10995, 10024
PASSWORDS = {"user1": "s3cret", "odd": 'a"b\\c d{5}', "foreign": "p\u00e4\u00df w\u00f6rd", "long": "x" * 900}

CONFIGURATION = """
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
protocols = {protocols}
listen = 127.0.0.1
ssl = yes
ssl_cert = <{cert.pem}
ssl_key = <{cert.key}
disable_plaintext_auth = no
auth_failure_delay = 0
mail_location = maildir:{folder}/mail/%u
first_valid_uid = 1
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {folder}/passwd
}}
userdb {{
  driver = static
  args = uid=www-data gid=www-data home={folder}/mail/%u allow_all_users=yes
}}
"""
LISTENERS = """
# no longer and longer delays after failed logins
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service imap-login {{
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
    ssl = yes
  }}
}}
service pop3-login {{
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = {pop3s}
    ssl = yes
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    port = {lmtp}
  }}
}}
"""


def start(services, certificate, shift=0):
    folder = services.folder()
    os.mkdir(folder + "/mail")
    os.chmod(folder + "/mail", 0o777)
    write(folder, "passwd", "".join("%s:%s\n" % pair for pair in PASSWORDS.items()))
    ports = {"imap": IMAP + shift, "imaps": IMAPS + shift, "pop3": POP3 + shift, "pop3s": POP3S + shift,
             "lmtp": LMTP + shift}
    text = CONFIGURATION.format(folder=folder, cert=certificate, protocols="imap pop3 lmtp")
    write(folder, "conf", text + LISTENERS.format(**ports))
    return services.start(folder, ["dovecot", "-F", "-c", folder + "/conf"], ports.values())


@pytest.fixture(scope="module")
def dovecot(services, certs):
    return start(services, certs["good"])


def ask(url, probe, seconds=10, **words):
    seen, = talk.run([(parse(url, "imap"), probe)], time.monotonic() + seconds, **words)
    return seen


@pytest.mark.usefixtures("dovecot")
class TestHealthy:
    @pytest.mark.parametrize("url, probe, words", [
        ("imap://127.0.0.1:%d" % IMAP, imap.noop, "IMAP answers"),
        ("imaps://127.0.0.1:%d" % IMAPS, imap.noop, "IMAP answers"),
        ("imaps://localhost:%d" % IMAPS, imap.noop, "IMAP answers"),
        ("pop3://127.0.0.1:%d" % POP3, pop3.capa, "POP3 answers"),
        ("pop3s://*:%d" % POP3S, pop3.capa, "POP3 answers"),
        ("lmtp://127.0.0.1:%d" % LMTP, lmtp.greeting, "greeting '220 "),
    ])
    def test_it_answers(self, url, probe, words):
        seen = ask(url, probe)
        assert seen.how == talk.FINE and words in seen.words

    def test_all_at_once(self):
        probes = {"imap": imap.noop, "pop3": pop3.capa, "lmtp": lmtp.greeting}
        endpoints = [parse(url, "imap") for url in (
            "imap://127.0.0.1:%d" % IMAP, "imaps://127.0.0.1:%d" % IMAPS, "pop3://127.0.0.1:%d" % POP3,
            "pop3s://127.0.0.1:%d" % POP3S, "lmtp://127.0.0.1:%d" % LMTP, "imap://127.0.0.1:1")]
        seen = talk.run([(entry, probes[entry.protocol]) for entry in endpoints], time.monotonic() + 10)
        assert [one.how for one in seen] == [talk.FINE] * 5 + [talk.REFUSED]

    @pytest.mark.parametrize("user", sorted(PASSWORDS))
    @pytest.mark.parametrize("url", ["imap://127.0.0.1:%d" % IMAP, "imaps://127.0.0.1:%d" % IMAPS])
    def test_imap_login(self, url, user):
        assert ask(url, lambda wire: imap.login(wire, user, PASSWORDS[user])).how == talk.FINE

    # POP3 has no long passwords: RFC 1939 3 allows 40 characters, and Dovecot not many more
    @pytest.mark.parametrize("user", sorted(set(PASSWORDS) - {"long"}))
    @pytest.mark.parametrize("url", ["pop3://127.0.0.1:%d" % POP3, "pop3s://127.0.0.1:%d" % POP3S])
    def test_pop3_login(self, url, user):
        assert ask(url, lambda wire: pop3.login(wire, user, PASSWORDS[user])).how == talk.FINE

    @pytest.mark.parametrize("url, login", [
        ("imap://127.0.0.1:%d" % IMAP, imap.login), ("pop3://127.0.0.1:%d" % POP3, pop3.login)])
    @pytest.mark.parametrize("user", ["user1", "nobody", "odd"])
    def test_login_refused(self, url, login, user):
        seen = ask(url, lambda wire: login(wire, user, "s3cretno"))
        assert seen.how == talk.DENIED and "wrong user" in seen.words and "s3cret" not in seen.words

    def test_goodbye_was_said(self, dovecot):
        """Dovecot logs how each session ended."""
        ask("imap://127.0.0.1:%d" % IMAP, lambda wire: imap.login(wire, "user1", "s3cret"))
        ask("pop3://127.0.0.1:%d" % POP3, lambda wire: pop3.login(wire, "user1", "s3cret"))
        limit = time.monotonic() + 10
        ends = ("imap(user1)", "Logged out"), ("pop3(user1)", "Logged out")
        while not all(any(who in line and what in line for line in dovecot.log().splitlines())
                      for who, what in ends) and time.monotonic() < limit:
            time.sleep(0.01)
        for who, what in ends:
            said = [line for line in dovecot.log().splitlines() if who in line and "onnection closed" in line]
            assert not said, said

    @pytest.mark.parametrize("url, probe", [
        ("pop3://127.0.0.1:%d" % IMAP, pop3.capa), ("imap://127.0.0.1:%d" % POP3, imap.noop),
        ("lmtp://127.0.0.1:%d" % IMAP, lmtp.greeting), ("imaps://127.0.0.1:%d" % IMAP, imap.noop)])
    def test_another_protocol_is_nonsense(self, url, probe):
        assert ask(url, probe).how == talk.NONSENSE

    def test_plain_text_to_a_tls_port(self):
        assert ask("imap://127.0.0.1:%d" % IMAPS, imap.noop, seconds=0.5).how == talk.SILENT

    @pytest.mark.parametrize("url, verified, how", [
        ("imaps://localhost:%d" % IMAPS, True, talk.FINE), ("imaps://127.0.0.1:%d" % IMAPS, True, talk.FINE),
        ("pop3s://127.0.0.1:%d" % POP3S, True, talk.FINE),
        ("imaps://127.0.0.1:%d" % IMAPS, False, talk.CERTIFICATE)])
    def test_certificate(self, certs, url, verified, how):
        seen = ask(url, imap.noop if url.startswith("imap") else pop3.capa, tls_verify=True,
                   ca_file=certs["ca"].pem if verified else None)
        assert seen.how == how


def test_an_expired_certificate(services, certs):
    start(services, certs["expired"], shift=1000)
    seen = ask("imaps://127.0.0.1:%d" % (IMAPS + 1000), imap.noop)
    assert (seen.how, seen.words) == (talk.CERTIFICATE, "certificate expired on 2021-01-01 00:00 UTC")
    assert ask("imap://127.0.0.1:%d" % (IMAP + 1000), imap.noop).how == talk.FINE
