# SPDX-License-Identifier: GPL-2.0-or-later
"""Configuration of what hands over to Kopano: WebApp's config.php and Postfix's main.cf.

They are read to see whether they point at where Kopano listens, and never run or changed.
"""
from kopano_ocf import kopano_cfg
from kopano_ocf.endpoint import Endpoint

MYPY = False
if MYPY:
    from typing import Dict, List, Optional, Tuple  # noqa: F401

_DEPTH, _LONGEST = 20, 4096     # of $names within $names in main.cf
_LMTP_PORT = 24                 # Postfix's own default


# ---------------------------------------------------------------- PHP

def php_constants(text):
    # type: (str) -> Dict[str, Optional[str]]
    """String constants of a PHP file, by define() or const: {name: value}, None for what is no plain string.

    The first definition counts, as in PHP. Conditions are not judged.
    """
    tokens = list(_php_tokens(text)) + [("", "")] * 6
    found = {}      # type: Dict[str, Optional[str]]
    for i in range(len(tokens) - 6):
        kind, word = tokens[i]
        if kind != "word":
            continue
        after = tokens[i + 1:i + 6]
        if word.lower() == "define" and after[0] == ("sign", "(") and after[1][0] == "string" \
                and after[2] == ("sign", ","):
            name, value, end = after[1][1], after[3], after[4]
        elif word.lower() == "const" and after[0][0] == "word" and after[1] == ("sign", "="):
            name, value, end = after[0][1], after[2], after[3]
        else:
            continue
        plain = value[0] == "string" and end in (("sign", ")"), ("sign", ","), ("sign", ";"))
        found.setdefault(name, value[1] if plain else None)
    return found


def _php_tokens(text):
    """(kind, text) of the PHP code: "word", "string" (its value), "text" (with variables in it), "sign"."""
    at = _php_begin(text, 0)
    while at < len(text):
        char, pair = text[at], text[at:at + 2]
        if char.isspace():
            at += 1
        elif pair == "?>":
            at = _php_begin(text, at)
        elif char == "#" or pair == "//":
            ends = [i for i in (text.find("\n", at), text.find("\r", at), text.find("?>", at)) if i >= 0]
            at = min(ends) if ends else len(text)
        elif pair == "/*":
            end = text.find("*/", at + 2)
            at = end + 2 if end >= 0 else len(text)
        elif char in "'\"":
            value, at = _php_string(text, at + 1, char)
            yield ("text" if value is None else "string"), value or ""
        elif char.isalnum() or char in "_\\$":
            end = at + 1
            while end < len(text) and (text[end].isalnum() or text[end] in "_\\"):
                end += 1
            yield "word", text[at:end].lstrip("\\")
            at = end
        else:
            yield "sign", char
            at += 1


def _php_begin(text, at):
    # type: (str, int) -> int
    begin = text.find("<?", at)
    if begin < 0:
        return len(text)
    return begin + (5 if text[begin:begin + 5].lower() == "<?php" else 2)


def _php_string(text, at, quote):
    # type: (str, int, str) -> Tuple[Optional[str], int]
    """(value or None when variables are in it, position after the closing quote)."""
    escapes = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", "$": "$", '"': '"'}
    parts, plain = [], True     # type: List[str], bool
    while at < len(text) and text[at] != quote:
        char, follower = text[at], text[at + 1:at + 2]
        if char == "\\" and quote == "'" and follower in ("'", "\\"):
            parts.append(follower)
            at += 1
        elif char == "\\" and quote == '"' and follower:
            parts.append(escapes.get(follower, char + follower))
            at += 1
        else:
            if char == "$" and quote == '"' and (follower.isalpha() or follower in ("_", "{")):
                plain = False
            parts.append(char)
        at += 1
    return ("".join(parts) if plain else None), at + 1


# ---------------------------------------------------------------- Postfix

def postfix_settings(text):
    # type: (str) -> Dict[str, str]
    """main.cf as {name: value}: lines may be continued, the last assignment counts, $names are kept."""
    found = {}          # type: Dict[str, str]
    for line in _postfix_lines(text):
        name, equals, value = line.partition("=")
        if equals and name.strip():
            found[name.strip()] = value.strip()
    return found


def postfix_services(text):
    # type: (str) -> Dict[str, str]
    """master.cf as {service: program and its arguments}."""
    found = {}          # type: Dict[str, str]
    for line in _postfix_lines(text):
        words = line.split(None, 7)
        if len(words) == 8:
            found[words[0]] = words[7]
    return found


def _postfix_lines(text):
    # type: (str) -> List[str]
    """Logical lines: one that begins with white space goes on with the one before it."""
    logical = []        # type: List[List[str]]
    for line in text.replace("\r", "").split("\n"):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0].isspace() and logical:
            logical[-1].append(line.strip())
        else:
            logical.append([line.strip()])
    return [" ".join(parts) for parts in logical]


def postfix_value(values, name):
    # type: (Dict[str, str], str) -> str
    """A setting with $name, ${name} and $(name) replaced; "" when it is not set. Always ends."""
    return _expanded(values, values.get(name, ""), 0)


def _expanded(values, text, depth):
    # type: (Dict[str, str], str, int) -> str
    parts, at, size = [], 0, 0      # type: List[str], int, int
    while at < len(text) and size < _LONGEST:
        if text[at] != "$":
            end = text.find("$", at)
            end = len(text) if end < 0 else end
            parts.append(text[at:end])
        elif text[at + 1:at + 2] in ("{", "("):
            end = text.find({"{": "}", "(": ")"}[text[at + 1]], at)
            end = len(text) if end < 0 else end + 1
            parts.append(_replaced(values, text[at + 2:end - 1].strip(), depth))
        else:
            end = at + 1
            while end < len(text) and (text[end].isalnum() or text[end] == "_"):
                end += 1
            parts.append(_replaced(values, text[at + 1:end], depth))
        size += len(parts[-1])
        at = end
    return "".join(parts)[:_LONGEST]


def _replaced(values, name, depth):
    # type: (Dict[str, str], str, int) -> str
    return _expanded(values, values.get(name, ""), depth + 1) if depth < _DEPTH else ""


def lmtp_target(text):
    # type: (str) -> Optional[Endpoint]
    """Where a transport such as lmtp:HOST:PORT delivers to; None when it is another one or unclear."""
    transport, _, place = text.partition(":")
    if transport.strip() != "lmtp" or not place.strip():
        return None
    words = place.replace(",", " ").split()
    place = words[0] if words else ""
    if place.startswith("unix:"):
        return Endpoint("lmtp", path=place[5:]) if place[5:].startswith("/") else None
    if place.startswith("inet:"):
        place = place[5:]
    if place.startswith("["):
        host, _, rest = place[1:].partition("]")
        if host.lower().startswith("ipv6:"):
            host = host[5:]
        port = rest[1:] if rest.startswith(":") else ""
    elif place.count(":") > 1:
        return None
    else:
        host, _, port = place.partition(":")
    found = kopano_cfg.number(port) if port else _LMTP_PORT
    return Endpoint("lmtp", host=host, port=found) if host and found else None


def bare_ipv6(text):
    # type: (str) -> bool
    """Whether a transport names an IPv6 address without the brackets that Postfix wants."""
    from kopano_ocf import address
    transport, _, place = text.partition(":")
    if place.startswith("inet:"):
        place = place[5:]
    words = place.replace(",", " ").split()
    return transport.strip() in ("lmtp", "smtp") and bool(words) and words[0].count(":") > 1 \
        and bool(address.family(words[0]) or address.family(words[0].rpartition(":")[0]))
