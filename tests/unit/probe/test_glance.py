# SPDX-License-Identifier: GPL-2.0-or-later
"""The cheap look at WebApp's page: what it may call good, and what it leaves to webapp."""
import re
import time

import pytest

from kopano_ocf import talk
from kopano_ocf.probe import glance
from kopano_ocf.probe.webapp import BROKEN, LOGIN_FORM
from kopano_ocf.talk import feed

FORM = '<form><input type="text" name="username"><input type=password name=password></form>'


def answer(body, status="200 OK"):
    data = body.encode()
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(data), data)


def looked(data, probe=glance.page):
    return feed(probe("localhost:80", "/webapp/?auto"), [data])[0]


@pytest.mark.parametrize("url, host, port, name, target", [
    ("http://localhost/webapp/", "localhost", 80, "localhost", "/webapp/"),
    ("http://127.0.0.1:8000/server-status?auto", "127.0.0.1", 8000, "127.0.0.1:8000", "/server-status?auto"),
    ("http://localhost", "localhost", 80, "localhost", "/"),
    ("http://localhost/webapp/#top", "localhost", 80, "localhost", "/webapp/"),
])
def test_a_page_on_this_host(url, host, port, name, target):
    endpoint, *rest = glance.place(url)
    assert (endpoint.host, endpoint.port, rest) == (host, port, [name, target])


@pytest.mark.parametrize("url", [
    "https://localhost/webapp/", "http://mail.example.com/webapp/", "http://user:word@localhost/", "http://[::1]/",
    "http://localhost:/", "http://localhost:0/", "http://localhost:65536/", "http://localhost:\u00b2/",
    "http://localhost:80:80/", "http://localhost/a b", "http://localhost/\u00e4", "http://localhost?x", "localhost",
    "http://localhost/\r\nX: y", ""])
def test_all_other_urls_are_webapps(url):
    assert glance.place(url) is None


@pytest.mark.parametrize("body", [FORM, FORM.replace('"', "'"), FORM.upper(), "<p>" * 9000 + FORM,
                                  '<input data-name="x"\nname=username id=u><input name="password">'])
def test_a_login_form_is_fine_as_webapp_would_say(body):
    seen = looked(answer(body))
    assert seen.how == talk.FINE and seen.words == "HTTP status 200 OK, with the login form"
    assert re.search(LOGIN_FORM, body)


@pytest.mark.parametrize("data", [
    answer(FORM, "503 Service Unavailable"), answer(FORM, "302 Found"), answer(BROKEN + FORM), answer("It works!"),
    answer(FORM.replace("username", "user")), answer(FORM.replace("password", "pass")),
    answer(FORM.replace("input", "inputs")), answer('<input name="password"><input name="username">'),
    b"220 mail ESMTP\r\n", answer(FORM)[:-9], b""])
def test_what_is_not_a_good_page_is_not_fine(data):
    assert looked(data).how != talk.FINE


def test_a_page_made_to_be_slow_is_not():
    began = time.process_time()
    assert looked(answer("<input name=username " * 20000)).how != talk.FINE
    assert time.process_time() - began < 2


@pytest.mark.parametrize("body, fine", [
    ("Total Accesses: 1\nBusyWorkers: 1\nIdleWorkers: 49\nScoreboard: ._W\n", True),
    ("BusyWorkers: 50\nIdleWorkers: 0\nScoreboard: WWW\n", False),
    ("BusyWorkers: 1\n", False), ("BusyWorkers: many\nIdleWorkers: 1\n", False), (FORM, False)])
def test_a_status_with_an_idle_worker_is_fine(body, fine):
    assert (looked(answer(body), glance.status).how == talk.FINE) is fine
