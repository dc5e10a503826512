# SPDX-License-Identifier: GPL-2.0-or-later
"""This host as validate-all sees it: its files, networks and units, and how a finding is worded.

Nothing here asks a name server or another host, and nothing waits. All paths are taken below a root, so that a
directory can stand for a host.
"""
import os
import time

from kopano_ocf import foreign_cluster, kopano_cfg
from kopano_ocf.kopano_cfg import ConfigError, shown
from kopano_ocf.validate import ERROR, INSTALLED, WARNING, Finding

MYPY = False
if MYPY:
    from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple, TypeVar  # noqa: F401
    from kopano_ocf.endpoint import Endpoint  # noqa: F401
    T = TypeVar("T")

COROSYNC = "/etc/corosync/corosync.conf"
DRBD = "/etc/drbd.conf"
CIB = "/var/lib/pacemaker/cib/cib.xml"
HOSTS = "/etc/hosts"
_DUMP_SECONDS = 10.0
_CIB_BYTES = 8 << 20
_MANY = 200             # files of a directory that are looked at
UNIT_FOLDERS = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system",
                "/lib/systemd/system")
# Units that Pacemaker itself wants running are no part of the boot's.
_CLUSTERS = ("pacemaker.", "corosync.", "resource-agents-deps.")


def _text(file, key, value, wrong, remedy):
    # type: (str, str, str, str, str) -> str
    line = shown(file, 200)
    if key:
        line += ": %s = %s" % (shown(key), shown(value, 200))
    return "%s: %s" % (line, wrong) + ("; " + remedy if remedy else "")


def error(file, key, value, wrong, remedy):
    # type: (str, str, str, str, str) -> Finding
    """ERROR: FILE: KEY = VALUE: WRONG; REMEDY"""
    return Finding(ERROR, INSTALLED, _text(file, key, value, wrong, remedy))


def warning(file, key, value, wrong, remedy):
    # type: (str, str, str, str, str) -> Finding
    """WARNING: FILE: KEY = VALUE: WRONG; REMEDY"""
    return Finding(WARNING, 0, _text(file, key, value, wrong, remedy))


class Host:
    """This host as one agent sees it; what is costly is looked up once, and only when it is asked for."""

    def __init__(self, agent, call, root):
        # type: (Any, Any, str) -> None
        self.agent, self.call, self.root = agent, call, root
        self.name = agent.name                      # type: str
        self.config = call.value("config")          # type: str
        self._settings = None                       # type: Any
        self.why = None                             # type: Optional[Exception]
        self._kept = {}                             # type: Dict[str, Any]

    def path(self, path):
        # type: (str) -> str
        """Where a path of this host is to be found."""
        return self.root + path

    def plain(self, text):
        # type: (str) -> str
        """A text that begins with a path, without the root in front of it."""
        return text[len(self.root):] if text.startswith(self.root) else text

    def executable(self):
        # type: () -> Optional[str]
        """The daemon's executable, None when there is none."""
        binary = self.call.value("binary")
        from kopano_ocf import process
        folders = os.environ.get("PATH", "").split(":") + list(process.USUAL_DIRECTORIES)
        places = [binary] if "/" in binary else [f + "/" + binary for f in folders if f.startswith("/")]
        for place in places:
            if os.path.isfile(self.path(place)) and os.access(self.path(place), os.X_OK):
                return self.path(place)
        return None

    def settings(self):
        # type: () -> Optional[kopano_cfg.Settings]
        """The daemon's settings, in its own words where it can be asked; None, and why, when it has none."""
        if self._settings is None:
            self._settings = False
            try:
                path = self.path(self.config)
                values = kopano_cfg.read(path)
                notes = values.notes
                binary = self.executable()
                if binary:
                    values = self._dumped(binary, path) or values
                values.notes = notes
                self._settings = kopano_cfg.Settings(self.name, values, self.config)
            except ConfigError as err:
                self.why = err
        return self._settings or None

    def _dumped(self, binary, path):
        # type: (str, str) -> Optional[kopano_cfg.Values]
        import shlex
        words = [word for word in self.agent.foreground if word == "-l"]
        words += shlex.split(self.call.value("options") or "")
        until = min(self.call.deadline, time.monotonic() + _DUMP_SECONDS)
        try:
            return kopano_cfg.dump(binary, path, words, until)
        except kopano_cfg.Unasked as err:
            self.why = err
            return None

    def server(self):
        # type: () -> Optional[kopano_cfg.Settings]
        """kopano-server's settings, when its configuration is on this host too and it serves alone."""
        folder = os.path.dirname(self.config) if self.agent.kind == "daemon" else "/etc/kopano"
        for path in (folder + "/server.cfg", "/etc/kopano/server.cfg"):
            try:
                values = kopano_cfg.read(self.path(path))
            except ConfigError:
                continue
            found = kopano_cfg.Settings("server", values, path)
            distributed = found.get("enable_distributed_kopano").lower() in ("yes", "true", "1")
            return None if distributed else found
        return None

    def _once(self, name, look):
        # type: (str, Callable[[], T]) -> T
        """What look() returns or the ConfigError it raises, the same each time."""
        if name not in self._kept:
            try:
                self._kept[name] = look()
            except ConfigError as err:
                self._kept[name] = err
        found = self._kept[name]        # type: Any
        if isinstance(found, ConfigError):
            raise found
        result = found  # type: T
        return result

    def nodes(self):
        # type: () -> int
        """Number of the cluster's nodes by corosync.conf; 0 when it does not tell."""
        return len(self.nodelist())

    def nodelist(self):
        # type: () -> List[foreign_cluster.Node]
        """The cluster's nodes by corosync.conf; none when it does not tell."""
        try:
            return foreign_cluster.corosync_nodes(self.corosync())
        except ConfigError:
            return []

    def in_a_cluster(self):
        # type: () -> bool
        """Whether this is a node of a cluster that is set up, or of more than one node."""
        return self.nodes() > 1 or bool(self.cib().primitives)

    def corosync(self):
        # type: () -> foreign_cluster.Section
        """corosync.conf; empty when there is none. Raises ConfigError."""
        return self._once("corosync", lambda: self.parsed(COROSYNC, foreign_cluster.corosync))

    def cib(self):
        # type: () -> foreign_cluster.Cib
        """The cluster's configuration as this node has it on disk; an empty one when there is none."""
        def look():
            # type: () -> foreign_cluster.Cib
            try:
                text = kopano_cfg.contents(self.path(CIB), _CIB_BYTES).decode("utf-8", "replace")
                return foreign_cluster.cib(text)
            except (ConfigError, ValueError):
                return foreign_cluster.Cib()        # Pacemaker itself looks after this file
        return self._once("cib", look)

    def drbd(self):
        # type: () -> List[foreign_cluster.Resource]
        """DRBD's resources, drbd.conf and what it includes read as one. Raises ConfigError."""
        return self._once("drbd", lambda: foreign_cluster.drbd_resources(self._drbd_files()))

    def _drbd_files(self):
        # type: () -> List[Tuple[str, foreign_cluster.Section]]
        pending, done = [DRBD], []      # type: List[str], List[Tuple[str, foreign_cluster.Section]]
        if not os.path.lexists(self.path(DRBD)):
            pending = self.matching("/etc/drbd.d/global_common.conf") + self.matching("/etc/drbd.d/*.res")
        while pending and len(done) < _MANY:
            path = pending.pop(0)
            if path in [name for name, _ in done]:
                continue
            tree = self.parsed(path, foreign_cluster.drbd)
            done.append((path, tree))
            for key, words in tree.settings:
                if key == "include" and words:
                    pending += self.matching(os.path.join(os.path.dirname(path), words[0]))
        return done

    def matching(self, pattern):
        # type: (str) -> List[str]
        """Paths that match a pattern whose last part may have * and ? in it."""
        import fnmatch
        folder, name = os.path.split(pattern)
        if not any(c in name for c in "*?["):
            return [pattern]
        return [folder + "/" + entry for entry in fnmatch.filter(names(self.path(folder)), name)[:_MANY]]

    def hosts(self):
        # type: () -> Dict[str, List[str]]
        """/etc/hosts: {name: addresses}."""
        return self._once("hosts", lambda: foreign_cluster.hosts(self.file(HOSTS) or ""))

    def resolved(self, place):
        # type: (str) -> List[str]
        """Addresses of a literal or of a name in /etc/hosts; [] when only a name server could tell."""
        from kopano_ocf import address
        return [place] if address.family(place) else self.hosts().get(place.lower(), [])

    def asks_name_servers(self):
        # type: () -> bool
        """Whether a name that is not in /etc/hosts may be known nevertheless; True when that is not sure."""
        sources = ["dns"]       # without a line, and much else
        for line in (self.file("/etc/nsswitch.conf") or "").split("\n"):
            key, _, value = line.partition("#")[0].partition(":")
            if key.strip() == "hosts":
                sources = [word for word in value.replace("[", " [").split() if "=" not in word and word[0] != "["]
        if set(sources) <= set(("files", "myhostname")):
            return False
        servers = [line for line in (self.file("/etc/resolv.conf") or "").split("\n") if line.startswith("nameserver")]
        return bool(servers) or not set(sources) <= set(("files", "myhostname", "dns"))

    def hostname(self):
        # type: () -> str
        """What `uname -n` says."""
        return (self.file("/proc/sys/kernel/hostname") or "").strip()

    def text(self, path):
        # type: (str) -> Optional[str]
        """A configuration file's text, None when there is no such file. Raises ConfigError."""
        try:
            data = kopano_cfg.contents(self.path(path))
        except kopano_cfg.Missing:
            return None
        if b"\0" in data:
            line = data[:data.index(b"\0")].count(b"\n") + 1
            raise ConfigError(path, "", "", "binary data in line %d" % line, "restore the file")
        return data.decode("utf-8", "surrogateescape").replace("\r\n", "\n")

    def parsed(self, path, reader):
        # type: (str, Callable[[str], T]) -> T
        """What a reader makes of a file, of "" when there is none. Raises ConfigError."""
        try:
            return reader(self.text(path) or "")
        except ValueError as err:
            raise ConfigError(path, "", "", str(err), "correct it")

    def table(self, path):
        # type: (str) -> Iterator[List[str]]
        """The lines of a table of the kernel, its headline aside."""
        with open(self.path(path)) as lines:
            for line in lines:
                fields = line.split()
                if fields and fields[0] != "Iface":
                    yield fields

    def routes(self):
        # type: () -> Iterator[Tuple[str, int, int]]
        """(device, network, mask) of the IPv4 networks that this host is in."""
        for fields in self.table("/proc/net/route"):
            if len(fields) > 7 and fields[2] == "00000000" and fields[7] != "00000000":
                network, mask = (int.from_bytes(bytes.fromhex(fields[i]), "little") for i in (1, 7))
                yield fields[0], network & mask, mask

    def file(self, path):
        # type: (str) -> Optional[str]
        """A file's text, None when it can't be read."""
        try:
            return kopano_cfg.contents(self.path(path)).decode("utf-8", "surrogateescape")
        except ConfigError:
            return None

    def user(self):
        # type: () -> Tuple[int, List[int]]
        """(uid, gids) that the daemon runs with. Raises KeyError for an unknown user or group."""
        import grp
        import pwd
        settings = self.settings()
        name = settings.run_as_user if settings else ""
        uid, gids = 0, [0]
        if name:
            entry = pwd.getpwnam(name)
            uid = entry.pw_uid
            gids = os.getgrouplist(name, entry.pw_gid)
        if settings and settings.run_as_group:
            gids = gids + [grp.getgrnam(settings.run_as_group).gr_gid]
        return uid, gids


def user_or_root(host):
    # type: (Host) -> Tuple[int, List[int]]
    """(uid, gids) that the daemon runs with, root's when they are unknown."""
    try:
        return host.user()
    except KeyError:
        return 0, [0]       # said elsewhere


def may(seen, who, bits):
    # type: (os.stat_result, Tuple[int, List[int]], int) -> bool
    """Whether (uid, gids) has these of the rights rwx = 4 2 1, by owner, group and mode."""
    uid, gids = who
    if uid == 0:
        return True
    shift = 6 if seen.st_uid == uid else 3 if seen.st_gid in gids else 0
    return seen.st_mode >> shift & bits == bits


def names(folder):
    # type: (str) -> List[str]
    """Sorted names in a directory, none when it can't be read."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def on_link(host, place):
    # type: (Host, str) -> bool
    """Whether an address is in a network of one of this host's interfaces: a cluster IP could come."""
    import _socket
    from kopano_ocf import address
    family = address.family(place)
    if not family:
        return False
    raw = int.from_bytes(_socket.inet_pton(family, place), "big")
    if family == _socket.AF_INET:
        return any(raw & mask == network for device, network, mask in host.routes() if device != "lo")
    if raw >> 118 == 0x3fa:                     # fe80::/10 is on every link
        return True
    for fields in host.table("/proc/net/ipv6_route"):
        bits = int(fields[1], 16)
        if len(fields) > 9 and fields[9] != "lo" and bits and not int(fields[4], 16) \
                and raw >> (128 - bits) == int(fields[0], 16) >> (128 - bits):
            return True
    return False


def is_loopback(place):
    # type: (str) -> bool
    """Whether an address is this host's to itself, whatever host it is."""
    return place == "localhost" or place == "::1" or place.startswith("127.")


def elsewhere(host, target):
    # type: (Host, Endpoint) -> bool
    """Whether target is an address beyond this host's networks: not the server that is configured here."""
    from kopano_ocf import address
    return bool(address.family(target.host)) and not address.is_local(target.host) \
        and not on_link(host, target.host)


def is_here(host, place):
    # type: (Host, str) -> bool
    """Whether a literal address or a name of /etc/hosts is an address of this host now."""
    from kopano_ocf import address
    return any(address.is_local(found) for found in host.resolved(place))


def same(one, other):
    # type: (str, str) -> bool
    """Whether two literal addresses are the same."""
    import _socket
    from kopano_ocf import address
    family = address.family(one)
    return bool(family) and family == address.family(other) and \
        _socket.inet_pton(family, one) == _socket.inet_pton(family, other)


def within(path, folder):
    # type: (str, str) -> bool
    """Whether a path is a directory, or below it."""
    return bool(folder) and (path.rstrip("/") + "/").startswith(folder.rstrip("/") + "/")


# ---------------------------------------------------------------- units

def started_at_boot(host, unit):
    # type: (Host, str) -> str
    """The link by which systemd or init starts UNIT.service at boot; "" when nothing does."""
    service = unit + ".service"
    own = host.path("/etc/systemd/system/" + service)
    if not (os.path.islink(own) and os.readlink(own) == "/dev/null"):
        for folder in UNIT_FOLDERS:
            for wants in names(host.path(folder)):
                path = "%s/%s/%s" % (folder, wants, service)
                if wants.endswith((".wants", ".requires")) and not wants.startswith(_CLUSTERS) \
                        and os.path.lexists(host.path(path)):
                    return path
    if has_unit(host, unit):
        return ""                   # with a unit of that name systemd ignores an init script
    for level in "2345":
        for name in names(host.path("/etc/rc%s.d" % level)):
            if name.startswith("S") and name[1:3].isdigit() and name[3:] == unit:
                return "/etc/rc%s.d/%s" % (level, name)
    return ""


def has_unit(host, unit):
    # type: (Host, str) -> bool
    """Whether systemd knows UNIT.service."""
    return any(os.path.lexists(host.path("%s/%s.service" % (folder, unit))) for folder in UNIT_FOLDERS)


def beside_the_cluster(host, unit):
    # type: (Host, str) -> Iterator[Finding]
    """Started at boot, it would run where the cluster does not know of it."""
    path = started_at_boot(host, unit)
    if path.endswith(".service"):
        yield warning(path, "", "", "systemd starts it at boot, beside the cluster",
                      "systemctl disable %s.service" % unit)
    elif path:
        yield warning(path, "", "", "init starts it at boot, beside the cluster",
                      "update-rc.d {0} disable, or chkconfig {0} off".format(unit))
