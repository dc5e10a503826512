# SPDX-License-Identifier: GPL-2.0-or-later
"""Configuration of the services around Kopano: MariaDB's option files, Apache, HAProxy, tmpfiles.d.

They are read to see whether they fit to Kopano's cluster, and never run or changed. A reader passes over what it
does not know and takes time and memory in proportion to the text.
"""
MYPY = False
if MYPY:
    from typing import Dict, Iterator, List, Optional, Tuple  # noqa: F401

# The groups that every version of the server reads; those for one version only are not judged.
_SERVER_GROUPS = ("mysqld", "server", "mariadb", "mariadbd")


# ---------------------------------------------------------------- MariaDB, MySQL

def mysql_lines(text):
    # type: (str) -> Iterator[Tuple[str, str]]
    """What an option file tells the server: (name, value), and ("!include", path) or ("!includedir", path).

    Names have _ for -. One without a value, as skip-networking, has the value "1".
    """
    group = ""
    for line in text.split("\n"):
        line = line.strip()
        if line.startswith("!"):
            word, _, place = line.partition(" ")
            if word in ("!include", "!includedir") and place.strip():
                yield word, place.strip()
        elif line.startswith("["):
            group = line[1:].partition("]")[0].strip()
        elif line and line[0] not in "#;" and group in _SERVER_GROUPS:
            name, equals, value = line.partition("=")
            name = name.strip().replace("-", "_").lower()
            value = _bare(value) if equals else "1"
            if name.startswith("loose_"):
                name = name[6:]
            if name:
                yield name, value


def _bare(value):
    # type: (str) -> str
    value = value.strip()
    if value[:1] in ("'", '"'):
        return value[1:].partition(value[0])[0]
    return value.partition(" #")[0].partition("\t#")[0].strip()


# ---------------------------------------------------------------- Apache

def apache_status(text):
    # type: (str) -> List[List[List[str]]]
    """The access rules of each place where the handler server-status is set, as lists of words in lower case."""
    stack = [[]]        # type: List[List[List[str]]]
    handlers = []       # type: List[List[List[str]]]
    for words in _apache_lines(text):
        name = words[0].lower()
        if name.startswith("</"):
            if len(stack) > 1:
                stack.pop()
        elif name.startswith("<"):
            # <IfModule> and <RequireAny> change nothing about whose rules they are
            scope = name.startswith(("<location", "<directory", "<files", "<virtualhost"))
            stack.append([] if scope else stack[-1])
        elif name == "sethandler" and words[1:2] == ["server-status"]:
            handlers.append(stack[-1])
        elif name in ("require", "allow", "deny"):
            stack[-1].append([word.lower() for word in words])
    return handlers


def apache_includes(text):
    # type: (str) -> Tuple[str, List[str]]
    """(ServerRoot, "" when it isn't set; patterns of the files that are read too)."""
    root, found = "", []        # type: str, List[str]
    for words in _apache_lines(text):
        name = words[0].lower()
        if name == "serverroot" and len(words) > 1:
            root = words[1]
        elif name in ("include", "includeoptional") and len(words) > 1:
            found.append(words[1])
    return root, found


def _apache_lines(text):
    # type: (str) -> Iterator[List[str]]
    for line in text.replace("\\\r\n", " ").replace("\\\n", " ").split("\n"):
        line = line.strip()
        if line and not line.startswith("#"):
            yield [word.strip('"') or '""' for word in line.rstrip(">").split()] or ["<"]


def lets_this_host_in(rules):
    # type: (List[List[str]]) -> bool
    """Whether Apache's access rules let a request from 127.0.0.1 or ::1 pass; True when that is not clear."""
    require = [words[1:] for words in rules if words[0] == "require" and len(words) > 1]
    if require:
        return not all(words == ["all", "denied"] or words[0] in ("ip", "host") and not any(map(_local, words[1:]))
                       for words in require)
    allow = [words[2:] for words in rules if words[0] == "allow"]
    denied = any(words[:3] == ["deny", "from", "all"] for words in rules)
    return not denied or any(_local(word) for words in allow for word in words)


def _local(place):
    # type: (str) -> bool
    return place in ("all", "localhost", "ip6-localhost", "::", "0.0.0.0/0") or place.startswith(("127", "::1", "::/"))


# ---------------------------------------------------------------- HAProxy

_HAPROXY_SECTIONS = ("global", "defaults", "frontend", "backend", "listen", "peers", "resolvers", "userlist",
                     "mailers", "program", "ring", "cache", "fcgi-app", "http-errors", "log-forward", "traces")


class Backend:
    """A backend of haproxy.cfg.

    servers  (name, address, port, checked)
    checks   lines that say how, as words: http-check, option httpchk and the like
    """

    __slots__ = ("name", "servers", "checks")

    def __init__(self, name, checks):
        # type: (str, List[List[str]]) -> None
        self.name = name
        self.servers = []       # type: List[Tuple[str, str, str, bool]]
        self.checks = list(checks)

    def http_check(self):
        # type: () -> Tuple[str, str]
        """(page that is asked for, what is expected of it), each "" without; other ways to check are "?"."""
        page = expected = ""
        for words in self.checks:
            if words[:2] == ["option", "httpchk"]:
                page = (words[3] if len(words) > 3 else words[2] if len(words) > 2 else "") or page or "/"
            elif words[0] == "option" or words[:2] == ["http-check", "connect"]:
                return "?", "?"
            elif words[1:2] == ["send"] and "uri" in words[:-1]:
                page = words[words.index("uri") + 1]
            elif words[1:2] == ["expect"]:
                expected = " ".join(words[2:])
        return page, expected


def haproxy_backends(text):
    # type: (str) -> List[Backend]
    """The backends and listen sections that have servers."""
    found, section = [], ""         # type: List[Backend], str
    inherited = checked = False
    checks = []         # type: List[List[str]]
    for line in text.split("\n"):
        words = _haproxy_words(line)
        if not words:
            continue
        if words[0] in _HAPROXY_SECTIONS:
            section, checked = words[0], inherited
            if section == "defaults":
                inherited, checked, checks = False, False, []
            elif section in ("backend", "listen"):
                found.append(Backend(words[1] if len(words) > 1 else "", checks))
        elif words[0] == "http-check" or words[0] == "option" and words[1:2] and words[1].endswith(("chk", "-check")):
            if section == "defaults":
                checks.append(words)
            elif section in ("backend", "listen"):
                found[-1].checks.append(words)
        elif words[0] == "default-server":
            if section == "defaults":
                inherited = "check" in words
            elif "check" in words:
                checked = True
        elif words[0] == "server" and len(words) > 2 and section in ("backend", "listen"):
            address, port = _haproxy_place(words[2])
            asked = "check" in words[3:] or checked and "no-check" not in words[3:]
            found[-1].servers.append((words[1], address, port, asked))
    return [backend for backend in found if backend.servers]


def _haproxy_words(line):
    # type: (str) -> List[str]
    """A line's words; quotes only matter for a '#' within them, which no line of interest has."""
    words = []
    for word in line.split():
        if word.startswith("#"):
            break
        words.append(word.replace('"', "").replace("'", ""))
    return [word for word in words if word]


def _haproxy_place(text):
    # type: (str) -> Tuple[str, str]
    """(address, port) of a server; "" for the address of a unix socket and the like."""
    prefix, at, rest = text.partition("@")
    if at:
        if prefix not in ("ipv4", "ipv6"):
            return "", ""
        text = rest
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        return host, port.lstrip(":")
    host, colon, port = text.rpartition(":")        # the last one, also in an IPv6 address
    if not colon:
        host, port = text, ""
    return ("" if "/" in host else host), port


# ---------------------------------------------------------------- tmpfiles.d

def tmpfiles(text):
    # type: (str) -> Dict[str, str]
    """Directories that are made at boot, and whose they are: {path: user}; the first line counts."""
    found = {}      # type: Dict[str, str]
    for line in text.split("\n"):
        words = line.split()
        if len(words) > 1 and words[0].rstrip("!+-=~^$") in ("d", "D", "v", "q", "Q") and words[1].startswith("/"):
            owner = words[3].lstrip(":") if len(words) > 3 else "-"
            found.setdefault(words[1].rstrip("/"), "root" if owner in ("-", "0") else owner)
    return found
