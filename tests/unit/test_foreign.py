# SPDX-License-Identifier: GPL-2.0-or-later
"""config.php and main.cf, as far as Kopano's cluster depends on them."""
import pytest
from hypothesis import given, strategies as st

from kopano_ocf import foreign, kopano_cfg
from kopano_ocf.kopano_cfg import ConfigError, Missing


@pytest.mark.parametrize("text, wanted", [
    ('<?php define("A", "x");', {"A": "x"}),
    ("<?PHP\n\tDEFINE ( 'A'\n,\t'x' )\n;", {"A": "x"}),
    ('<? define("A", "x"); ?>', {"A": "x"}), ('<?define("A", "x");', {"A": "x"}),
    ('<?php $A = "x"; static $B = "y"; C == "z"; const D, E = 1;', {}),
    ('define("A", "x");', {}),
    ('<?php ?> define("A", "x"); <?php define("B", "y");', {"B": "y"}),
    ('<?php\n// define("A", "1");\n# define("A", "2");\n/* define("A", "3");\n */define("A", "4");',
     {"A": "4"}),
    ('<?php // ?> <?php define("A", "x");', {"A": "x"}),
    ('<?php # a comment ends with its line, not with its "quote\ndefine("A", "x");', {"A": "x"}),
    ('<?php // old Mac\rdefine("A", "x");', {"A": "x"}),
    ('<?php define("A", "// no comment"); define("B", "/* nor here");',
     {"A": "// no comment", "B": "/* nor here"}),
    ('<?php define("A", "x"); define("A", "y");', {"A": "x"}),
    ('<?php define(/* name */ "A" /* and */ , // value\n "x" /**/ );', {"A": "x"}),
    ('<?php define("A", "x", true);', {"A": "x"}),
    ('<?php const A = "x";', {"A": "x"}),
    ('<?php \\define("A", "x");', {"A": "x"}),
    ('<?php if (!defined("A")) { define("A", "x"); }', {"A": "x"}),
    ('<?php define("A", "http://" . $host);', {"A": None}),
    ('<?php define("A", "http://$host/");', {"A": None}),
    ('<?php define("A", "{$host}");', {"A": None}),
    ('<?php define("A", \'http://$host/\');', {"A": "http://$host/"}),
    ('<?php define("A", getenv("B"));', {"A": None}),
    ('<?php define("A", 5);', {"A": None}),
    ('<?php define("A", "a\\"b\\\\c\\$d\\te");', {"A": 'a"b\\c$d\te'}),
    ("<?php define('A', 'a\\'b\\\\c\\n');", {"A": "a'b\\c\\n"}),
    ("<?php define('A', \"it's\");", {"A": "it's"}),
    ('<?php $define = "A"; undefine("A", "x"); define($name, "x"); define("A");', {}),
    ('<?php define("A", "never closed', {"A": None}),
    ("<?php /* never closed define('A', 'x');", {}),
    ("<?php define(", {}), ("<?php", {}), ("", {}), ("<", {}),
])
def test_php_constants(text, wanted):
    assert foreign.php_constants(text) == wanted


@given(st.text())
def test_any_php(text):
    foreign.php_constants("<?php " + text)


@given(st.lists(st.sampled_from(["<?php", "?>", "define", "(", ")", '"', "'", "A", ",", "\\", "$", "/*", "*/",
                                 "//", "#", "\n", ";", "const", "=", " "]), max_size=40).map("".join))
def test_any_arrangement_of_php(text):
    for name, value in foreign.php_constants(text).items():
        assert isinstance(name, str) and (value is None or isinstance(value, str))


@pytest.mark.parametrize("php, wanted", [
    ('define("DEFAULT_SERVER","http://192.168.122.100:236/");', "http://192.168.122.100:236"),
    ('define("DEFAULT_SERVER", "https://mail.example.org:237/kopano");', "https://mail.example.org:237"),
    ('define("DEFAULT_SERVER", "default:");', "soap+unix:/var/run/kopano/server.sock"),
    ('define("DEFAULT_SERVER", "file:///run/kopano/server.sock");', "soap+unix:/run/kopano/server.sock"),
])
def test_default_server(tmp_path, php, wanted):
    (tmp_path / "config.php").write_text("<?php\n" + php)
    assert str(kopano_cfg.default_server(str(tmp_path / "config.php"))) == wanted


def test_default_server_that_is_not_there(tmp_path):
    path = tmp_path / "config.php"
    with pytest.raises(Missing):
        kopano_cfg.default_server(str(path))
    for text, words in (("", "not defined"), ("<?php define('DEFAULT_SERVER', $x);", "no plain string"),
                        ("<?php define('DEFAULT_SERVER', 'nowhere');", "DEFAULT_SERVER: 'nowhere'")):
        path.write_text(text)
        with pytest.raises(ConfigError) as caught:
            kopano_cfg.default_server(str(path))
        assert words in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("text, wanted", [
    ("a = b\n", {"a": "b"}), ("a=b", {"a": "b"}), ("a = b\r\n", {"a": "b"}),
    ("a = b\n   c\n\td\n", {"a": "b c d"}),
    ("a = b\n# comment\n\n   c\n", {"a": "b c"}),
    ("a = b\n   # comment too\nc = d\n", {"a": "b", "c": "d"}),
    ("a = 1\na = 2\n", {"a": "2"}), ("a =\n  b\n", {"a": "b"}),
    ("a = b # kept\n", {"a": "b # kept"}), ("a\n= b\n", {}), ("  a = b\n", {"a": "b"}), ("", {}),
])
def test_postfix_settings(text, wanted):
    assert foreign.postfix_settings(text) == wanted


@pytest.mark.parametrize("values, wanted", [
    ({"a": "x"}, "x"), ({}, ""), ({"a": "$b:${c}:$(b)", "b": "1", "c": "2"}, "1:2:1"),
    ({"a": "$b", "b": "$a"}, ""), ({"a": "$gone-x"}, "-x"), ({"a": "$"}, ""), ({"a": "${b"}, ""),
    ({"a": "$b$b", "b": "$c$c", "c": "x"}, "xxxx"),
])
def test_postfix_value(values, wanted):
    assert foreign.postfix_value(values, "a") == wanted


def test_postfix_value_that_would_grow_without_end():
    names = [chr(97 + i) for i in range(26)]
    values = dict((name, "$%s$%s x" % (after, after)) for name, after in zip(names, names[1:] + ["a"]))
    assert len(foreign.postfix_value(values, "a")) <= 4096


@given(st.binary(max_size=300))
def test_any_main_cf(data):
    values = foreign.postfix_settings(data.decode("utf-8", "surrogateescape"))
    for name in values:
        foreign.lmtp_target(foreign.postfix_value(values, name))


@pytest.mark.parametrize("text, wanted", [
    ("lmtp:192.168.122.100:2003", "lmtp://192.168.122.100:2003"),
    ("lmtp:[192.168.122.100]:2003", "lmtp://192.168.122.100:2003"),
    ("lmtp:inet:localhost:2003", "lmtp://localhost:2003"),
    ("lmtp:inet:[::1]:2003", "lmtp://[::1]:2003"), ("lmtp:[ipv6:fd00::1]:2003", "lmtp://[fd00::1]:2003"),
    ("lmtp:a:2003, b:2003", "lmtp://a:2003"), ("lmtp:host", "lmtp://host:24"),
    ("lmtp:unix:/run/dagent.sock", "lmtp+unix:/run/dagent.sock"),
])
def test_lmtp_target(text, wanted):
    assert str(foreign.lmtp_target(text)) == wanted


@pytest.mark.parametrize("text", [
    "", "lmtp:", "lmtp: ", "virtual", "smtp:host:25", "kopano:", "lmtp:unix:private/x", "lmtp:::1",
    "lmtp:x:y", "lmtp:x:0", "lmtp:x:\u0661", "lmtp:x:99999", "lmtp:x:" + "9" * 5000, "lmtp::24",
    "hash:/etc/postfix/transport"])
def test_transports_that_are_not_ours(text):
    assert foreign.lmtp_target(text) is None


@given(st.text(max_size=40))
def test_any_transport(text):
    foreign.lmtp_target("lmtp:" + text)
