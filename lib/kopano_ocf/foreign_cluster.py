# SPDX-License-Identifier: GPL-2.0-or-later
"""Configuration of the cluster around Kopano: corosync.conf, DRBD's resource files, the CIB, /etc/hosts.

They are read to see whether they fit together, and never changed. Every reader passes over what it does not
know, takes time and memory in proportion to the text, and raises ValueError with one clear line or nothing.
"""
MYPY = False
if MYPY:
    from typing import Dict, Iterator, List, Optional, Set, Tuple  # noqa: F401

_DEPTH = 16         # sections within each other
_TRUE = ("yes", "1", "true", "on")


class Section:
    """A part of a file in braces: `KIND WORDS { SETTINGS and SECTIONS }`; the file itself has the kind "".

    settings  (name, words) in their order
    """

    __slots__ = ("kind", "words", "settings", "sections")

    def __init__(self, kind, words):
        # type: (str, List[str]) -> None
        self.kind, self.words = kind, words
        self.settings = []      # type: List[Tuple[str, List[str]]]
        self.sections = []      # type: List[Section]

    def get(self, name):
        # type: (str) -> Optional[str]
        """A setting's words joined by blanks, the last one's if it is there more than once; None without."""
        for key, words in reversed(self.settings):
            if key == name:
                return " ".join(words)
        return None

    def all(self, *kinds):
        # type: (*str) -> List[Section]
        """The sections of these kinds directly within this one."""
        return [section for section in self.sections if section.kind in kinds]

    def first(self, kind):
        # type: (str) -> Section
        """All sections of a kind as if they were one; an empty one when there is none."""
        found = Section(kind, [])
        for section in self.all(kind):
            found.settings += section.settings
            found.sections += section.sections
        return found


class _Nest:
    """Sections while they are read."""

    def __init__(self):
        # type: () -> None
        self.stack = [Section("", [])]

    def open(self, words, line):
        # type: (List[str], int) -> None
        if len(self.stack) > _DEPTH:
            raise ValueError("line %d: more than %d sections within each other" % (line, _DEPTH))
        section = Section(words[0] if words else "", words[1:])
        self.stack[-1].sections.append(section)
        self.stack.append(section)

    def close(self, line):
        # type: (int) -> None
        if len(self.stack) == 1:
            raise ValueError("line %d: '}' without '{'" % line)
        self.stack.pop()

    def done(self):
        # type: () -> Section
        if len(self.stack) > 1:
            from kopano_ocf.kopano_cfg import shown
            raise ValueError("'}' is missing: the section '%s' does not end" % shown(self.stack[-1].kind))
        return self.stack[0]


# ---------------------------------------------------------------- Corosync

class Node:
    """A node of corosync.conf's nodelist; links: {number: (key, address as written)}."""

    __slots__ = ("name", "id", "links")

    def __init__(self, section):
        # type: (Section) -> None
        self.name = section.get("name") or ""
        self.id = section.get("nodeid") or ""
        self.links = {}     # type: Dict[int, Tuple[str, str]]
        for key, words in section.settings:
            number = key[4:-5]
            if key.startswith("ring") and key.endswith("_addr") and len(number) == 1 and number in "01234567":
                self.links[int(number)] = (key, " ".join(words))

    @property
    def called(self):
        # type: () -> str
        """What people call it."""
        return self.name or (self.links[min(self.links)][1] if self.links else "?")


def corosync(text):
    # type: (str) -> Section
    """corosync.conf as sections. Raises ValueError."""
    nest = _Nest()
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if line.endswith("{"):
            nest.open(line[:-1].split(), number)
        elif line == "}":
            nest.close(number)
        else:
            key, colon, value = line.partition(":")
            if colon:
                nest.stack[-1].settings.append((key.strip(), value.split()))
    return nest.done()


def corosync_nodes(tree):
    # type: (Section) -> List[Node]
    """The nodes of a nodelist that have an address."""
    found = [Node(section) for section in tree.first("nodelist").all("node")]
    return [node for node in found if node.links]


def true(text):
    # type: (Optional[str]) -> bool
    """Whether a switch is on."""
    return (text or "").lower() in _TRUE


# ---------------------------------------------------------------- DRBD

def drbd(text):
    # type: (str) -> Section
    """DRBD's configuration as sections; an include is a setting of that name. Raises ValueError."""
    nest, words = _Nest(), []       # type: _Nest, List[str]
    line = 1
    for line, kind, token in _drbd_tokens(text):
        if kind == "word":
            words.append(token)
        elif token == "{":
            nest.open(words, line)
            words = []
        elif words and token in ";}":
            nest.stack[-1].settings.append((words[0], words[1:]))
            words = []
        if token == "}" and kind == "sign":
            nest.close(line)
    return nest.done()


def _drbd_tokens(text):
    # type: (str) -> Iterator[Tuple[int, str, str]]
    """(line, "word" or "sign", text); a quoted word is one word, and its blanks are kept."""
    at, line = 0, 1
    while at < len(text):
        char = text[at]
        if char in "{};":
            yield line, "sign", char
            at += 1
        elif char == "#":
            end = text.find("\n", at)
            at = end if end >= 0 else len(text)
        elif char == '"':
            end = text.find('"', at + 1)
            if end < 0:
                raise ValueError("line %d: the quotes are not closed" % line)
            yield line, "word", text[at + 1:end]
            line += text.count("\n", at, end)
            at = end + 1
        elif char.isspace():
            line += char == "\n"
            at += 1
        else:
            end = at
            while end < len(text) and not text[end].isspace() and text[end] not in "{};#\"":
                end += 1
            yield line, "word", text[at:end]
            at = end


class Replica:
    """What one node has of a DRBD resource.

    hosts      names of the node: one, or more where the disk moves; [] for a floating one
    addresses  (family, ADDRESS:PORT) as written
    volumes    (device, disk) as written, "" where it is not said
    """

    __slots__ = ("hosts", "addresses", "volumes")

    def __init__(self, hosts):
        # type: (List[str]) -> None
        self.hosts = hosts
        self.addresses = []     # type: List[Tuple[str, str]]
        self.volumes = []       # type: List[Tuple[str, str]]


class Resource:
    """A DRBD resource: its name, the file it is in, and what it says and inherits."""

    __slots__ = ("name", "file", "section", "common")

    def __init__(self, section, common, file):
        # type: (Section, List[Section], str) -> None
        self.name = section.words[0] if section.words else "?"
        self.section, self.common, self.file = section, common, file

    def option(self, name, *kinds):
        # type: (str, *str) -> Optional[str]
        """A setting of the sections of these kinds, of the resource itself before the common ones.

        In DRBD 8.3 some stood in the resource itself: "" as a kind.
        """
        for section in [self.section] + self.common:
            for kind in kinds:
                value = (section.first(kind) if kind else section).get(name)
                if value is not None:
                    return value
        return None

    def replicas(self):
        # type: () -> List[Replica]
        """What each node has of it."""
        found = []
        for section in self.section.all("on", "floating"):
            replica = Replica(section.words if section.kind == "on" else [])
            if section.kind == "floating" and section.words:
                replica.addresses.append(_drbd_address(" ".join(section.words)))
            if section.get("address"):
                replica.addresses.append(_drbd_address(section.get("address") or ""))
            shared = self.section.all("volume") if not section.all("volume") else []
            for part in section.all("volume") + shared or [section]:
                below = [part] + [other for other in self.section.all("volume") if other.words == part.words]
                replica.volumes.append((_first("device", below + [section, self.section]),
                                        _first("disk", below + [section, self.section])))
            found.append(replica)
        for connection in self.section.all("connection"):
            for part in connection.all("path") or [connection]:
                for key, words in part.settings:
                    if key == "host" and "address" in words[1:-1]:
                        for replica in found:
                            if words[0] in replica.hosts:
                                replica.addresses.append(_drbd_address(" ".join(words[words.index("address") + 1:])))
        return found


def _first(name, sections):
    # type: (str, List[Section]) -> str
    for section in sections:
        value = section.get(name)
        if value:
            return value
    return ""


def _drbd_address(text):
    # type: (str) -> Tuple[str, str]
    words = text.split()
    if len(words) > 1 and words[0] in ("ipv4", "ipv6", "sdp", "ssocks"):
        return words[0], words[1]
    return "ipv4", words[0] if words else ""


def drbd_host_port(family, text):
    # type: (str, str) -> Tuple[str, int]
    """(address, port) of ADDRESS:PORT. Raises ValueError with what is wrong."""
    from kopano_ocf import address, kopano_cfg
    import _socket
    host, _, port = text.rpartition(":")
    if family == "ipv6" and not (host.startswith("[") and host.endswith("]")) or host.count(":") and host[0] != "[":
        raise ValueError("an IPv6 address is written as ipv6 [ADDRESS]:PORT")
    host = host.strip("[]")
    if not kopano_cfg.number(port):
        raise ValueError("no port 1..65535 after the address")
    if address.family(host) != (_socket.AF_INET6 if family == "ipv6" else _socket.AF_INET):
        raise ValueError("not an %s address" % ("IPv6" if family == "ipv6" else "IPv4"))
    return host, kopano_cfg.number(port)


def drbd_resources(files):
    # type: (List[Tuple[str, Section]]) -> List[Resource]
    """The resources of (name, sections) of all files that are read as one."""
    common = [section for _, tree in files for section in tree.all("common")]
    return [Resource(section, common, name) for name, tree in files
            for section in tree.all("resource") if section.words]


# ---------------------------------------------------------------- the CIB

class Primitive:
    """A resource of the cluster.

    kind   as in "ocf:heartbeat:IPaddr2", "systemd:mariadb"
    type   the last part of that
    above  ids of its group and clone
    """

    __slots__ = ("id", "kind", "type", "params", "above")

    def __init__(self, id, kind, params, above):
        # type: (str, str, Dict[str, str], List[str]) -> None
        self.id, self.kind, self.params, self.above = id, kind, params, above
        self.type = kind.rpartition(":")[2]

    def __repr__(self):
        # type: () -> str
        return "Primitive(%s %s)" % (self.id, self.kind)


class Cib:
    """The cluster's configuration, as far as the host has to fit to it."""

    def __init__(self):
        # type: () -> None
        self.primitives = []        # type: List[Primitive]
        self.properties = {}        # type: Dict[str, str]
        self.together = []          # type: List[Set[str]]

    def of_type(self, *types):
        # type: (*str) -> List[Primitive]
        """Resources of these types, whoever provides them."""
        return [entry for entry in self.primitives if entry.type in types]

    def servers(self):
        # type: () -> List[Primitive]
        """kopano-server, whatever kind of resource it is."""
        return [entry for entry in self.primitives
                if entry.kind == "ocf:kopano:server" or entry.type == "kopano-server"]

    def databases(self):
        # type: () -> List[Primitive]
        """MariaDB or MySQL."""
        return self.of_type("mysql", "mariadb", "mysqld")

    def beside(self, *seeds):
        # type: (*Primitive) -> List[Primitive]
        """The resources that are always on one node with these: in one group, or colocated."""
        names = set()       # type: Set[str]
        for entry in seeds:
            names.update([entry.id] + entry.above)
        links = self.together + [set([entry.id] + entry.above) for entry in self.primitives if entry.above]
        grown = True
        while grown:
            joined = [link for link in links if link & names]
            grown = not all(link <= names for link in joined)
            names.update(*joined)
            links = [link for link in links if link not in joined]
        return [entry for entry in self.primitives if entry.id in names]


def cib(text):
    # type: (str) -> Cib
    """The CIB's configuration. Raises ValueError."""
    from xml.etree import ElementTree
    if "<!" in text.replace("<!--", ""):        # no entities: they could grow without end
        raise ValueError("not a CIB")
    try:
        root = ElementTree.fromstring(text.encode("utf-8", "replace"))
    except ElementTree.ParseError as err:
        raise ValueError("not XML: %s" % err)
    found, templates = Cib(), {}        # type: Cib, Dict[str, Tuple[str, Dict[str, str]]]
    configuration = root.find("configuration")
    if root.tag != "cib" or configuration is None:
        raise ValueError("not a CIB")
    for element in configuration.iter("template"):
        templates[element.get("id") or ""] = (_kind(element), _params(element))
    for pair in configuration.findall("crm_config/cluster_property_set/nvpair"):
        found.properties.setdefault(pair.get("name") or "", pair.get("value") or "")
    pending = [(element, []) for element in configuration.findall("resources/*")]       # type: List
    while pending:
        element, above = pending.pop(0)
        if element.tag == "primitive":
            kind, params = templates.get(element.get("template") or "", (_kind(element), {}))
            found.primitives.append(Primitive(element.get("id") or "", kind, dict(params, **_params(element)), above))
        elif element.tag in ("group", "clone", "master"):
            pending = [(child, above + [element.get("id") or ""]) for child in element] + pending
    for element in configuration.iter("rsc_colocation"):
        names = set(child.get("id") or "" for child in element.iter("resource_ref"))
        names.update(element.get(key) or "" for key in ("rsc", "with-rsc"))
        if _always(element):
            found.together.append(names - set([""]))
    return found


def _kind(element):
    return ":".join(element.get(key) for key in ("class", "provider", "type") if element.get(key))


def _params(element):
    found = {}      # type: Dict[str, str]
    for pair in element.findall("instance_attributes/nvpair"):
        found.setdefault(pair.get("name") or "", pair.get("value") or "")
    return found


def _always(element):
    """Whether a colocation keeps its resources on one node, whatever happens."""
    scores = [element.get("score")] + [child.get("score") for child in element.findall("resource_set")]
    given = [score for score in scores if score]
    if not given:
        return element.find("resource_set") is not None
    return all(score.lower() in ("infinity", "+infinity", "inf", "+inf") for score in given)


# ---------------------------------------------------------------- hosts, fstab

def hosts(text):
    # type: (str) -> Dict[str, List[str]]
    """/etc/hosts as {name in lower case: addresses, in their order}."""
    found = {}      # type: Dict[str, List[str]]
    for line in text.split("\n"):
        words = line.partition("#")[0].split()
        for name in words[1:]:
            known = found.setdefault(name.lower(), [])
            if words[0] not in known:
                known.append(words[0])
    return found


def fstab(text):
    # type: (str) -> List[Tuple[str, str, List[str]]]
    """/etc/fstab as (device, directory, options)."""
    found = []
    for line in text.split("\n"):
        words = line.split()
        if len(words) >= 3 and not line.lstrip().startswith("#"):
            found.append((words[0], words[1], words[3].split(",") if len(words) > 3 else []))
    return found
