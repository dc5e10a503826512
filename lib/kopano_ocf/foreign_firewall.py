# SPDX-License-Identifier: GPL-2.0-or-later
"""What a firewall on this host lets in: nftables' rules, firewalld's zones.

They are read to see whether a port is shut for sure, and never changed. Who may come through an open one is not
looked at. A reader takes more for open rather than less; where it can't tell at all it raises Unclear.
"""
import re

MYPY = False
if MYPY:
    from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple  # noqa: F401

_ALL = (0, 65535)
_MOST_WORDS, _MOST_FILES, _DEPTH = 100000, 100, 16
_TOKEN = re.compile(r'"[^"\n]*"|#[^\n]*|\\\n|[!<>=]=|[{};,=<>\n]|[^\s{};,=<>!"#\\]+|[\\!"]')
_IN_A_TABLE = ("chain", "set", "map", "flowtable", "counter", "quota", "limit", "secmark", "synproxy", "ct")
_OTHER_PROTOCOLS = ("icmp", "icmpv6", "igmp", "esp", "ah", "sctp", "dccp", "udplite", "comp")
_NOTHING_NEW = set(("established", "related", "invalid"))
# Words by which a rule goes on, or ends.
_VERDICTS = ("accept", "drop", "reject", "return", "continue", "jump", "goto")
_UNJUDGED = ("queue", "vmap", "map", "numgen", "jhash", "symhash", "tproxy", "xt", ".")
_SAYS_NOTHING = ("counter", "packets", "bytes", "log", "prefix", "group", "level", "emerg", "alert", "crit", "err",
                 "warn", "notice", "info", "debug", "flags", "all")


class Unclear(ValueError):
    """It can't be told what is let in."""


class Ports:
    """Ports that are let in."""

    def __init__(self):
        # type: () -> None
        self.ranges = {"tcp": [], "udp": []}        # type: Dict[str, List[Tuple[int, int]]]

    def add(self, protocol, *ranges):
        # type: (str, *Tuple[int, int]) -> None
        """Let them in too; other protocols than TCP and UDP count for nothing."""
        if protocol in self.ranges:
            self.ranges[protocol] += ranges

    def update(self, other):
        # type: (Ports) -> None
        """Let those of another one in too."""
        for protocol, ranges in other.ranges.items():
            self.ranges[protocol] += ranges

    def has(self, protocol, port):
        # type: (str, int) -> bool
        """Whether this one is let in."""
        return any(first <= port <= last for first, last in self.ranges[protocol])


def services(text):
    # type: (str) -> Dict[str, int]
    """/etc/services as {name: port}."""
    found = {}      # type: Dict[str, int]
    for line in text.split("\n"):
        words = line.partition("#")[0].split()
        port = words[1].partition("/")[0] if len(words) > 1 else ""
        for name in (words[:1] + words[2:]) if port.isdigit() else ():
            found.setdefault(name.lower(), int(port))
    return found


# ---------------------------------------------------------------- nftables

class Chain:
    """A chain at the hook input that drops what none of its rules accepts.

    family  of its table: inet, ip, ip6
    name    "inet filter input"
    drops   how: "policy drop", or a last rule
    """

    __slots__ = ("family", "name", "drops", "ports")

    def __init__(self, family, name, drops, ports):
        # type: (str, str, str, Ports) -> None
        self.family, self.name, self.drops, self.ports = family, name, drops, ports


def nft_inputs(text, included, names):
    # type: (str, Callable[[str], List[str]], Dict[str, int]) -> List[Chain]
    """The chains that everything which comes in must pass; those that can't be understood are left out.

    included  the texts of the files that a pattern stands for
    names     ports by name, of services()
    """
    ruleset = _Ruleset(names)
    try:
        ruleset.read(text, included, 0)
    except Unclear:
        return []
    found = []      # type: List[Chain]
    for (family, table, name), statements in sorted(ruleset.chains.items()):
        if family not in ("inet", "ip", "ip6") or not any(
                words[:4] == ["type", "filter", "hook", "input"] for words in statements):
            continue
        try:
            ports, last = ruleset.accepted(family, table, name, ())
        except Unclear:
            continue
        drops = "policy drop" if ["policy", "drop"] in statements else last
        if drops:
            found.append(Chain(family, "%s %s %s" % (family, table, name), drops, ports))
    return found


class _Ruleset:
    """What a file of nftables says."""

    def __init__(self, names):
        # type: (Dict[str, int]) -> None
        self.names = names
        self.defined = {}       # type: Dict[str, List[str]]
        self.chains = {}        # type: Dict[Tuple[str, str, str], List[List[str]]]
        self.sets = {}          # type: Dict[Tuple[str, str, str], List[str]]
        self._known = {}        # type: Dict[Tuple[str, str, str], Tuple[Ports, str]]
        self._files = self._words = 0

    def read(self, text, included, depth):
        # type: (str, Callable[[str], List[str]], int) -> None
        """Take a file in, and those that it includes."""
        self._files += 1
        if depth > _DEPTH or self._files > _MOST_FILES:
            raise Unclear()
        tokens = _nft_tokens(text)
        for words in _statements(tokens, ""):
            kind = words[0]
            if kind == "define" and words[2:3] == ["="]:
                self.defined[words[1]] = self._expanded(words[3:])
            elif kind == "include" and len(words) == 2:
                for more in included(words[1].strip('"')):
                    self.read(more, included, depth + 1)
            elif kind == "table" and isinstance(words[-1], list) and len(words) in (3, 4):
                self._table(words)
            elif kind not in ("flush", "delete", "destroy", "table") or isinstance(words[-1], list):
                raise Unclear()         # rules that are added one by one
        if next(tokens, None) is not None:
            raise Unclear()

    def _table(self, words):
        # type: (List[Any]) -> None
        family, name = ("ip", words[1]) if len(words) == 3 else (words[1], words[2])
        for inner in words[-1]:
            if inner[0] == "chain" and len(inner) == 3:
                kept = self.chains.setdefault((family, name, inner[1]), [])
                kept += [self._expanded(rule) for rule in inner[2]]
            elif inner[0] == "set" and len(inner) == 3:
                for rule in inner[2]:
                    if rule[:2] == ["elements", "="]:
                        self.sets[family, name, inner[1]] = self._expanded(rule[2:])
            elif inner[0] not in _IN_A_TABLE + ("comment",):
                raise Unclear()

    def _expanded(self, words):
        # type: (List[str]) -> List[str]
        """With what $names stand for."""
        found = []      # type: List[str]
        for word in words:
            found += self.defined.get(word[1:], [word]) if word.startswith("$") else [word]
            if len(found) > _MOST_WORDS:
                raise Unclear()
        self._words += len(found)
        if self._words > 10 * _MOST_WORDS:
            raise Unclear()
        return found

    def accepted(self, family, table, name, above):
        # type: (str, str, str, Tuple[str, ...]) -> Tuple[Ports, str]
        """(ports that a chain's rules accept, the rule that drops all else or "").

        A rule that drops some is passed over: it may be for somebody else.
        """
        key = (family, table, name)
        if key not in self.chains or name in above or len(above) > _DEPTH:
            raise Unclear()
        if key in self._known:
            return self._known[key]
        found, last = Ports(), ""
        for words in self.chains[key]:
            if words[0] in ("type", "policy", "comment"):
                continue
            if words[0] in ("include", "define", "redefine"):
                raise Unclear()
            match, verdict, target = _verdict(words)
            if verdict in ("drop", "reject") and not match:
                last = " ".join(words)
                break
            if verdict == "accept":
                found.update(self._ports(match, family, table))
            elif verdict in ("jump", "goto"):
                inner, outer = self.accepted(family, table, target, above + (name,))[0], None
                if any(word.endswith("port") for word in match):
                    outer = self._ports(match, family, table)
                if outer is None or any(inner.ranges.values()):
                    found.update(outer or inner)
        self._known[key] = found, last
        return found, last

    def _ports(self, match, family, table):
        # type: (List[str], str, str) -> Ports
        """What gets through a rule that accepts."""
        found = Ports()
        protocols = None        # type: Optional[List[str]]
        by_port = False
        for number, word in enumerate(match):
            rest = match[number + 1:]
            before = match[number - 1] if number else ""
            if word in ("iif", "iifname") and [text.strip('"') for text in rest[:2] if text != "=="][:1] == ["lo"]:
                return Ports()
            if (before, word) == ("ct", "state") and set(_values(rest)) <= _NOTHING_NEW and _values(rest) \
                    or word == "pkttype" and "host" not in _values(rest):
                return Ports()
            if word in ("l4proto", "protocol", "nexthdr") and before in ("meta", "ip", "ip6"):
                values = _values(rest)
                if values:
                    numbers = {"6": "tcp", "17": "udp"}
                    protocols = [numbers.get(value, value) for value in values]
            elif word in ("tcp", "udp") and rest[:1] == ["dport"] or word == "th" and rest[:1] == ["dport"]:
                by_port = True
                ranges = self._ranges(rest[1:], family, table)
                for protocol in (protocols or ["tcp", "udp"]) if word == "th" else [word]:
                    found.add(protocol, *ranges)
            elif word in ("tcp", "udp") and rest[:1] in (["sport"], ["flags"]):
                protocols = [word]
            elif word in _OTHER_PROTOCOLS and protocols is None:
                protocols = []
        if not by_port:
            for protocol in ("tcp", "udp") if protocols is None else protocols:
                found.add(protocol, _ALL)
        return found

    def _ranges(self, words, family, table):
        # type: (List[str], str, str) -> List[Tuple[int, int]]
        if words and words[0].startswith("@"):
            key = (family, table, words[0][1:])
            if key not in self.sets:
                raise Unclear()
            words = self.sets[key]
        values = _values(words)
        if not values:
            return [_ALL]
        return [port_range(value, self.names) for value in values]


def port_range(text, names):
    # type: (str, Dict[str, int]) -> Tuple[int, int]
    """Numbers or names as 80, http, 5404-5412. Raises Unclear."""
    first, last = (text, text) if text in names else (text.partition("-")[0], text.rpartition("-")[2])
    ports = [names.get(word, int(word) if word.isdigit() and len(word) < 6 else -1) for word in (first, last)]
    if min(ports) < 0:
        raise Unclear()
    return ports[0], ports[1]


def _values(words):
    # type: (List[str]) -> List[str]
    """What a match is compared with: a word, words with commas, or a set; [] for != and the like."""
    words = words[1:] if words[:1] in (["=="], ["eq"]) else words
    found, depth = [], 0        # type: List[str], int
    for number, word in enumerate(words):
        if word in ("{", "}"):
            depth += 1 if word == "{" else -1
        elif word == ",":
            continue
        elif not depth and number and words[number - 1] != ",":
            break
        elif word in ("!=", "<", ">", "<=", ">=", "!"):
            return []
        else:
            found.append(word.strip('"'))
        if word == "}" and depth == 0 and words[number + 1:number + 2] != [","]:
            break
    return found


def _verdict(words):
    # type: (List[str]) -> Tuple[List[str], str, str]
    """(what a rule matches, its verdict or "", the chain that it goes to)."""
    match, depth = [], 0        # type: List[str], int
    if words[:3] == ["ct", "state", "vmap"]:
        inner = set(part for word in words for part in word.split(":"))
        if inner & set(("new", "untracked", "jump", "goto")):
            raise Unclear()
        return [], "", ""
    for number, word in enumerate(words):
        depth += (word == "{") - (word == "}")
        if not depth and word in _UNJUDGED:
            raise Unclear()
        if not depth and word in _VERDICTS:
            plain = [part for part in match if part not in _SAYS_NOTHING and not part.isdigit() and part[0] != '"']
            return match if plain else [], word, "".join(words[number + 1:number + 2])
        match.append(word)
    return match, "", ""


def _nft_tokens(text):
    # type: (str) -> Iterator[str]
    for found in _TOKEN.finditer(text):
        token = found.group()
        if token[0] != "#" and token != "\\\n":
            yield token


def _statements(tokens, kind):
    # type: (Iterator[str], str) -> List[Any]
    """The statements of a block of that kind, each a list of words; a block within is a list at the end of it."""
    blocks = {"": ("table",), "table": _IN_A_TABLE}.get(kind, ())       # type: Tuple[str, ...]
    found, words, depth = [], [], 0     # type: List[Any], List[Any], int
    for token in tokens:
        if token == "}" and not depth:
            break
        if token in ("\n", ";") and not depth:
            if words:
                found.append(words)
                words = []
        elif token == "{" and not depth and words and words[0] in blocks:
            words.append(_statements(tokens, words[0]))
            found.append(words)
            words = []
        elif token != "\n":
            depth += (token == "{") - (token == "}")
            words.append(token)
    return found + [words] if words else found


# ---------------------------------------------------------------- firewalld

class Zone:
    """A zone of firewalld.

    bound     whether it is for certain interfaces or sources
    ports     what it lets in by itself
    services  names of what it lets in too
    """

    __slots__ = ("bound", "ports", "services")

    def __init__(self):
        # type: () -> None
        self.bound = False
        self.ports = Ports()
        self.services = []      # type: List[str]


def firewalld_zone(text):
    # type: (str) -> Zone
    """A zone's file. Raises ValueError."""
    root = _xml(text, "zone")
    found = Zone()
    found.bound = root.find("interface") is not None or root.find("source") is not None
    if root.get("target") == "ACCEPT":
        _everything(found.ports)
    _elements(root, found)
    for rule in root.iter("rule"):
        if rule.find("accept") is None:
            continue
        if not any(rule.find(name) is not None for name in ("service", "port", "protocol", "source-port")):
            _everything(found.ports)
        _elements(rule, found)
    return found


def firewalld_service(text):
    # type: (str) -> Zone
    """A service's file, as a zone that has it alone. Raises ValueError."""
    found = Zone()
    root = _xml(text, "service")
    _elements(root, found)
    found.services = [element.get("service") or "" for element in root.iter("include")]
    return found


def _xml(text, tag):
    # type: (str, str) -> Any
    from xml.etree import ElementTree
    if "<!" in text.replace("<!--", ""):        # no entities: they could grow without end
        raise ValueError("not a %s of firewalld" % tag)
    try:
        root = ElementTree.fromstring(text.encode("utf-8", "replace"))
    except ElementTree.ParseError as err:
        raise ValueError("not XML: %s" % err)
    if root.tag != tag:
        raise ValueError("not a %s of firewalld" % tag)
    return root


def _elements(parent, found):
    # type: (Any, Zone) -> None
    for element in parent:
        protocol = element.get("protocol") or ""
        if element.tag == "port":
            try:
                found.ports.add(protocol, port_range(element.get("port") or "0-65535", {}))
            except Unclear:
                raise ValueError("port = %s: not a number" % element.get("port"))
        elif element.tag == "source-port":
            found.ports.add(protocol, _ALL)
        elif element.tag == "protocol":
            found.ports.add(element.get("value") or "", _ALL)
        elif element.tag == "service":
            found.services.append(element.get("name") or "")


def _everything(ports):
    # type: (Ports) -> None
    for protocol in ("tcp", "udp"):
        ports.add(protocol, _ALL)
