# SPDX-License-Identifier: GPL-2.0-or-later
"""kopano-server: its HTTP, and the deep check of its database."""

import ast
import os

import pytest

from kopano_ocf import talk
from kopano_ocf.probe import soap
from kopano_ocf.talk import feed

TRANSCRIPTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "transcripts")
SERVER = b"Server: gSOAP/2.8\r\n"


def recorded(name):
    """(what the client said, what the server said) in a conversation with a real kopano-server 11.0.2."""
    said = {">>": [], "<<": []}
    with open(os.path.join(TRANSCRIPTS, name)) as lines:
        for line in lines:
            if line[:2] in said:
                said[line[:2]].append(ast.literal_eval(line[3:]))
    return said[">>"], said["<<"]


def answer(body, status=b"200 OK"):
    return b"HTTP/1.1 %s\r\n%sContent-Length: %d\r\nConnection: keep-alive\r\n\r\n%s" % (
        status, SERVER, len(body), body)


def logon(er=0, session=7, version="0,11,0,2"):
    return answer(("<e><ns:logonResponse><er>%d</er><ulSessionId>%s</ulSessionId>"
                   "<lpszVersion>%s</lpszVersion></ns:logonResponse></e>" % (er, session, version)).encode())


def get_store(er=0):
    return answer(b"<e><ns:getStoreResponse><er>%d</er><sStoreId></sStoreId></ns:getStoreResponse></e>" % er)


LOGOFF = answer(b"<e><ns:logoffResponse><result>0</result></ns:logoffResponse></e>")
FAULT = answer(b"<SOAP-ENV:Fault><faultcode>SOAP-ENV:Client</faultcode>"
               b"<faultstring>no such method</faultstring>", b"500 Internal Server Error")


# ---------------------------------------------------------------- HEAD

@pytest.mark.parametrize("status", [b"200 OK", b"405 Method Not Allowed", b"500 Internal Server Error"])
def test_head_is_fine_whatever_gsoap_says(status):
    seen, sent = feed(soap.head, [b"HTTP/1.1 " + status + b"\r\n" + SERVER + b"Content-Length: 579\r\n\r\n"])
    assert seen.how == talk.FINE and status.decode() in seen.words
    assert sent == b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("header, words", [
    (b"Server: nginx/1.22\r\n", "some other HTTP server answers (HTTP status 200 OK, Server: nginx/1.22)"),
    (b"", "some other HTTP server answers (HTTP status 200 OK, Server: not named)"),
    (b"Server: Kopano\r\n", "some other HTTP server answers (HTTP status 200 OK, Server: Kopano)"),
])
def test_head_of_another_server(header, words):
    seen, _ = feed(soap.head, [b"HTTP/1.1 200 OK\r\n" + header + b"\r\n"])
    assert (seen.how, seen.words) == (talk.NONSENSE, words)


@pytest.mark.parametrize("chunks, how", [
    ([None], talk.SILENT), ([], talk.CLOSED), ([b"* OK IMAP gateway ready\r\n"], talk.NONSENSE)])
def test_head_without_an_answer(chunks, how):
    assert feed(soap.head, chunks)[0].how == how


# ---------------------------------------------------------------- logon, getStore, logoff

@pytest.mark.parametrize("name, how, er", [
    ("soap-fine.txt", talk.FINE, 0), ("soap-database-dead.txt", talk.UNAVAILABLE, 0x80000007)])
def test_deep_check_as_recorded(name, how, er):
    requests, answers = recorded(name)
    seen, sent = feed(soap.deep, answers)
    assert seen.how == how
    assert seen.data == {"call": "getStore", "er": er, "version": "11.0.2"}
    assert sent == b"".join(requests)
    # one byte at a time it is the same conversation
    dripped, again = feed(soap.deep, [bytes([byte]) for byte in b"".join(answers)])
    assert (dripped.how, dripped.data, again) == (seen.how, seen.data, sent)


def test_a_dead_database_is_named():
    seen, _ = feed(soap.deep, [logon(), get_store(0x80000007), LOGOFF])
    assert seen.words == "getStore: error 0x80000007 DATABASE_ERROR"


def test_a_refused_logon_says_what_may_be_wrong():
    seen, sent = feed(soap.deep, [logon(0x80000009)])
    assert seen.how == talk.DENIED and "local_admin_users" in seen.words
    assert seen.data == {"call": "logon", "er": 0x80000009}
    assert b"getStore" not in sent


@pytest.mark.parametrize("er", [0x80000007, 0x80000031, 0x80000010, 1])
def test_a_logon_that_fails_otherwise(er):
    seen, _ = feed(soap.deep, [logon(er)])
    assert seen.how == talk.UNAVAILABLE and "0x%08x" % er in seen.words


@pytest.mark.parametrize("answers, how", [
    ([logon(), get_store(), LOGOFF], talk.FINE),
    ([logon(), get_store(), FAULT], talk.FINE),
    ([logon(), get_store(), b"garbage\r\n"], talk.FINE),
    ([logon(), get_store()], talk.FINE),
    ([logon(), get_store(), None], talk.FINE),
    ([logon(), get_store(0x80000010), LOGOFF], talk.UNAVAILABLE),
    ([logon(), get_store(0x80000010), None], talk.UNAVAILABLE),
    ([logon(), FAULT, LOGOFF], talk.NONSENSE),
    ([logon(), answer(b"<ns:getStoreResponse></ns:getStoreResponse>"), LOGOFF], talk.NONSENSE),
])
def test_the_session_is_always_logged_off(answers, how):
    seen, sent = feed(soap.deep, answers)
    assert seen.how == how
    assert sent.count(b"<ns:logoff><ulSessionId>7</ulSessionId></ns:logoff>") == 1


@pytest.mark.parametrize("answers, call, how", [
    ([None], "logon", talk.SILENT), ([], "logon", talk.CLOSED),
    ([logon(), None], "getStore", talk.SILENT), ([logon()], "getStore", talk.CLOSED),
])
def test_where_it_stopped_is_told(answers, call, how):
    """A call that hangs holds one of the server's workers: the caller has to know which it was."""
    seen, _ = feed(soap.deep, answers)
    assert seen.how == how and seen.data["call"] == call and call in seen.words


def test_a_fault_is_quoted():
    seen, _ = feed(soap.deep, [FAULT])
    assert seen.how == talk.NONSENSE
    assert seen.words == "the answer to logon is HTTP status 500 Internal Server Error: no such method"


@pytest.mark.parametrize("body", [
    b"", b"<ns:logonResponse>", b"<ns:logonResponse><er></er>", b"<ns:logonResponse><er>x</er>",
    b"<ns:logonResponse><er>-1</er>", b"<ns:logonResponse><er>0</er>",
    b"<ns:logonResponse><er>0</er><ulSessionId></ulSessionId>",
    b"<ns:logonResponse><er>0</er><ulSessionId>7</ns:x><ns:y>", b"<ns:logonResponse><er>" + b"9" * 5000,
    "<ns:logonResponse><er>\u0660</er><ulSessionId>\u0661</ulSessionId>".encode(),
    b"<ns:logonResponse><er>0</er><ulSessionId>\xb2</ulSessionId>",
])
def test_an_answer_without_sense(body):
    seen, _ = feed(soap.deep, [answer(body), None])
    assert seen.how in (talk.NONSENSE, talk.SILENT)
    assert (seen.how == talk.SILENT) == (b"<ulSessionId>7<" in body)


@pytest.mark.parametrize("text, wanted", [
    ("0,11,0,2", "11.0.2"), ("0,8,7,25", "8.7.25"), ("8,7,25", "8.7.25"), ("", ""), ("11.0.2", "11.0.2")])
def test_the_version_as_people_write_it(text, wanted):
    assert feed(soap.deep, [logon(version=text), get_store(), LOGOFF])[0].data["version"] == wanted
