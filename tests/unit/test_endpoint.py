# SPDX-License-Identifier: GPL-2.0-or-later
"""Endpoints as URLs: the `listen` parameter and our own state files."""
import pytest
from hypothesis import given, strategies as st

from kopano_ocf.endpoint import PROTOCOLS, Endpoint, host_port, parse, parse_list


@pytest.mark.parametrize("text, protocol, wanted", [
    ("http://192.168.122.100:236", "soap", Endpoint("soap", False, "192.168.122.100", 236)),
    ("http://192.168.122.100:236/kopano", "soap", Endpoint("soap", False, "192.168.122.100", 236)),
    ("https://mail.example.org", "soap", Endpoint("soap", True, "mail.example.org", 237)),
    ("https://*", "caldav", Endpoint("caldav", True, "*", 8443)),
    ("http://127.0.0.1", "caldav", Endpoint("caldav", False, "127.0.0.1", 8080)),
    ("lmtp://[::1]", "lmtp", Endpoint("lmtp", False, "::1", 2003)),
    ("imap://h", "imap", Endpoint("imap", False, "h", 143)),
    ("imaps://h", "imap", Endpoint("imap", True, "h", 993)),
    ("pop3://h", "imap", Endpoint("pop3", False, "h", 110)),
    ("pop3s://h", "imap", Endpoint("pop3", True, "h", 995)),
    ("http://*%lo:236", "soap", Endpoint("soap", False, "*", 236, device="lo")),
    ("http://[fd00::1]%eth0:236", "soap", Endpoint("soap", False, "fd00::1", 236, device="eth0")),
    ("http://[fe80::1%eth0]:236", "soap", Endpoint("soap", False, "fe80::1", 236, device="eth0")),
    ("unix:/run/kopano/server.sock", "soap", Endpoint("soap", path="/run/kopano/server.sock")),
    ("unix:///run/kopano/server.sock", "soap", Endpoint("soap", path="/run/kopano/server.sock")),
    ("imap+unix:/run/x", "soap", Endpoint("imap", path="/run/x")),
])
def test_parse(text, protocol, wanted):
    found = parse(text, protocol)
    assert found == wanted
    assert parse(str(found), "soap" if protocol == "soap" else protocol) == found


@pytest.mark.parametrize("text", [
    "", "x", "192.168.122.100:236", "ftp://x", "http:", "http:x", "http://", "http://:236", "http://x:",
    "http://x:0", "http://x:65536", "http://x:-1", "http://x:1x", "http://x:\u0661", "http://::1:236",
    "http://[::1", "http://[::1]236", "http://[1.2.3.4]:1", "http://x%:1", "http://[::1]%:1", "http://a b",
    "http://a\tb", "http://a\0b", "unix:",
    "unix:run/x", "unix:/run/\0x", "unix:/a b", "smtp+unix:/x", "+unix:/x", "http://x:" + "9" * 5000])
def test_bad(text):
    with pytest.raises(ValueError) as caught:
        parse(text, "soap")
    assert "\0" not in str(caught.value) and "\n" not in str(caught.value)


def test_list():
    assert [str(e) for e in parse_list(" http://a:1\tunix:/b  https://c ", "soap")] == \
        ["http://a:1", "soap+unix:/b", "https://c:237"]
    for text in ("", "  ", "http://a:1 nonsense"):
        with pytest.raises(ValueError):
            parse_list(text, "soap")


@pytest.mark.parametrize("host, wanted", [
    ("*", ("127.0.0.1", "::1")), ("", ("127.0.0.1", "::1")), ("0.0.0.0", ("127.0.0.1",)),
    ("::", ("::1", "127.0.0.1")),
    ("192.168.122.100", ("192.168.122.100",)), ("mail", ("mail",))])
def test_where_a_listener_is_reached(host, wanted):
    assert Endpoint("soap", host=host, port=236).addresses == wanted


def test_a_socket_has_no_addresses():
    assert Endpoint("soap", path="/x").addresses == ()


def test_endpoints_as_keys():
    one, two = Endpoint("imap", True, "h", 993), parse("imaps://h", "imap")
    assert one == two and len({one, two}) == 1
    assert one != Endpoint("imap", False, "h", 993) and one != "imaps://h:993"


@given(st.text(max_size=60), st.sampled_from(PROTOCOLS))
def test_any_text(text, protocol):
    for candidate in (text, "http://" + text, "unix:/" + text, text + "+unix:/x"):
        try:
            found = parse(candidate, protocol)
        except ValueError:
            continue
        assert parse(str(found), found.protocol if found.path else protocol) == found


@given(st.text(max_size=40))
def test_any_place(text):
    try:
        host, port, _ = host_port(text, text)
    except ValueError:
        return
    assert host and 0 <= port < 65536
