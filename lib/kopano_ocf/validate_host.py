# SPDX-License-Identifier: GPL-2.0-or-later
"""validate-all at level 10: what is wrong with this host for one agent.

A check is a generator of findings about one matter. It may fail on what it can't read: then it has nothing
to say. An ERROR is what stops this daemon itself from starting here, everything else is a WARNING.
"""
import os
import stat
import time

from kopano_ocf import kopano_cfg
from kopano_ocf.endpoint import ANY
from kopano_ocf.kopano_cfg import ConfigError, shown
from kopano_ocf.validate import ERROR, INSTALLED, WARNING, Finding

MYPY = False
if MYPY:
    from typing import Any, Dict, Iterator, List, Optional, Tuple  # noqa: F401
    from kopano_ocf.endpoint import Endpoint  # noqa: F401

LOCK_FILE = "/tmp/kopano-upgrade-lock"
WEBAPP = "/etc/kopano/webapp/config.php"
MAIN_CF = "/etc/postfix/main.cf"
COROSYNC = "/etc/corosync/corosync.conf"
_DUMP_SECONDS = 10.0
_UNIT_FOLDERS = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system",
                 "/lib/systemd/system")
# Units that Pacemaker itself wants running are no part of the boot's.
_CLUSTERS = ("pacemaker.", "corosync.", "resource-agents-deps.")


def findings(agent, call, root=""):
    # type: (Any, Any, str) -> List[Finding]
    """What all checks for this kind of agent find."""
    host = Host(agent, call, root)
    found = []      # type: List[Finding]
    for check, agents in CHECKS:
        if agent.name not in agents:
            continue
        for finding in _held(check, host):
            if finding.text not in [other.text for other in found]:
                found.append(finding)
    return found


def _held(check, host):
    # type: (Any, Host) -> Iterator[Finding]
    """A check's findings; what it stumbles over is one, or nothing."""
    try:
        for finding in check(host):
            yield finding
    except ConfigError as err:
        yield warning(err.file, err.key, err.value, err.wrong, err.remedy)
    except (OSError, ValueError, LookupError):
        pass


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
        self._nodes = -1

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

    def nodes(self):
        # type: () -> int
        """Number of the cluster's nodes by corosync.conf; 0 when it does not tell."""
        if self._nodes < 0:
            from kopano_ocf import foreign
            self._nodes = foreign.corosync_nodes(self.file(COROSYNC) or "")
        return self._nodes

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


# ---------------------------------------------------------------- the daemon itself

def modules(host):
    # type: (Host) -> Iterator[Finding]
    """What the agent itself needs from the distribution."""
    from kopano_ocf import process
    process.site_packages()
    name = "psutil" if host.agent.kind == "daemon" else "requests"
    try:
        __import__(name)
    except ImportError:
        yield Finding(ERROR, INSTALLED, "the Python module %s is missing; install the package python3-%s"
                      % (name, name))


def binary(host):
    # type: (Host) -> Iterator[Finding]
    """The executable."""
    if host.executable() is None:
        named = host.call.value("binary")
        where = "no such executable" if "/" in named else "not found in PATH, /usr/sbin, /usr/local/sbin"
        yield Finding(ERROR, INSTALLED, "parameter binary = %s: %s; install Kopano on this node or correct it"
                      % (shown(named, 200), where))


def config(host):
    # type: (Host) -> Iterator[Finding]
    """The configuration file, as the daemon itself sees it."""
    settings = host.settings()
    why = host.why
    if isinstance(why, kopano_cfg.Missing):
        yield error(host.config, "", "", why.wrong, "copy it to this node, or correct the parameter config")
    elif isinstance(why, kopano_cfg.Unasked):
        if "does not know" not in why.wrong:
            yield warning(host.config, "", "", why.wrong, "see whether the daemon runs at all on this host")
    elif isinstance(why, ConfigError):
        yield error(host.plain(why.file), why.key, why.value or "(empty)", why.wrong, why.remedy)
    for note in settings.values.notes if settings and isinstance(settings.values, kopano_cfg.Values) else ():
        yield Finding(WARNING, 0, "%s; remove the line" % host.plain(note))


def listeners(host):
    # type: (Host) -> Iterator[Finding]
    """Listen settings that the daemon would not take."""
    settings = host.settings()
    try:
        if settings:
            settings.endpoints()
    except ConfigError as err:
        yield error(err.file, err.key, err.value, err.wrong, err.remedy)


def user(host):
    # type: (Host) -> Iterator[Finding]
    """run_as_user, run_as_group."""
    import grp
    import pwd
    settings = host.settings()
    if not settings:
        return
    for key, lookup in (("run_as_user", pwd.getpwnam), ("run_as_group", grp.getgrnam)):
        name = settings.get(key)
        try:
            if name:
                lookup(name)
        except (KeyError, ValueError):
            yield error(host.config, key, name, "unknown on this host", "create it or correct the name")


def directories(host):
    # type: (Host) -> Iterator[Finding]
    """Where sockets and pid file go.

    A missing directory is made at start, if it is below one that only root can write.
    """
    settings = host.settings()
    if not settings:
        return
    places = [(key, text, endpoint.path) for key, text, endpoint in settings.bindspecs() if endpoint.path]
    if settings.pid_file and (settings.given("pid_file") or not settings.dumped):
        places.append(("pid_file", settings.get("pid_file") or settings.pid_file, settings.pid_file))
    for key, text, path in places:
        tell = warning if key == "pid_file" else error
        folder = os.path.dirname(path)
        try:
            seen = os.stat(host.path(folder))
        except OSError:
            if not _can_be_made(host.path(folder)):
                yield tell(host.config, key, text, "there is no directory %s" % shown(folder, 200),
                           "create it, owned by %s, also after a reboot (tmpfiles.d)"
                           % (shown(settings.run_as_user) or "root"))
            continue
        if not stat.S_ISDIR(seen.st_mode):
            yield tell(host.config, key, text, "%s is not a directory" % shown(folder, 200), "correct it")
        elif key == "pid_file" and not _may(seen, _user_or_root(host), 3):
            names = shown(settings.run_as_user), shown(folder, 200)
            yield warning(host.config, key, text, "%s can't write to %s" % names, "chown %s %s" % names)


def _can_be_made(folder):
    # type: (str) -> bool
    try:
        above = os.stat(os.path.dirname(os.path.realpath(folder)))
    except OSError:
        return False
    return stat.S_ISDIR(above.st_mode) and above.st_uid == 0 and not above.st_mode & 0o022


def _user_or_root(host):
    # type: (Host) -> Tuple[int, List[int]]
    try:
        return host.user()
    except KeyError:
        return 0, [0]       # said elsewhere


def _may(seen, who, bits):
    # type: (os.stat_result, Tuple[int, List[int]], int) -> bool
    """Whether (uid, gids) has these of the rights rwx = 4 2 1, by owner, group and mode."""
    uid, gids = who
    if uid == 0:
        return True
    shift = 6 if seen.st_uid == uid else 3 if seen.st_gid in gids else 0
    return seen.st_mode >> shift & bits == bits


def writable(host):
    # type: (Host) -> Iterator[Finding]
    """Whoever can write the configuration decides what root starts."""
    seen = os.stat(host.path(host.config))
    mode = "chown root %s; chmod go-w %s" % (shown(host.config, 200), shown(host.config, 200))
    if seen.st_mode & 0o002:
        yield warning(host.config, "", "", "everybody can write it", mode)
    elif seen.st_mode & 0o020 and seen.st_gid != 0:
        yield warning(host.config, "", "", "group %d can write it" % seen.st_gid, mode)
    if seen.st_uid != 0:
        yield warning(host.config, "", "",
                      "it belongs to user %d, who can change what root starts" % seen.st_uid, mode)


def boot(host):
    # type: (Host) -> Iterator[Finding]
    """Started at boot, it would run beside the cluster."""
    unit = "kopano-%s.service" % host.name
    masked = os.path.islink(host.path("/etc/systemd/system/" + unit)) and \
        os.readlink(host.path("/etc/systemd/system/" + unit)) == "/dev/null"
    for folder in _UNIT_FOLDERS if not masked else ():
        for wants in _names(host.path(folder)):
            if wants.endswith((".wants", ".requires")) and not wants.startswith(_CLUSTERS) \
                    and os.path.lexists(host.path("%s/%s/%s" % (folder, wants, unit))):
                yield warning("%s/%s/%s" % (folder, wants, unit), "", "",
                              "systemd starts it at boot, beside the cluster", "systemctl disable %s" % unit)
                return
    if any(os.path.lexists(host.path("%s/%s" % (folder, unit))) for folder in _UNIT_FOLDERS):
        return                      # with a unit of that name systemd ignores an init script
    for level in "2345":
        for name in _names(host.path("/etc/rc%s.d" % level)):
            if name.startswith("S") and name[1:3].isdigit() and name[3:] == "kopano-" + host.name:
                yield warning("/etc/rc%s.d/%s" % (level, name), "", "",
                              "init starts it at boot, beside the cluster",
                              "update-rc.d {0} disable, or chkconfig {0} off".format("kopano-" + host.name))
                return


def _names(folder):
    # type: (str) -> List[str]
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


# ---------------------------------------------------------------- addresses

def addresses(host):
    # type: (Host) -> Iterator[Finding]
    """Addresses that neither are here nor can be brought here by the cluster."""
    from kopano_ocf import address
    settings = host.settings()
    for key, text, endpoint in settings.bindspecs() if settings else ():
        if endpoint.path or endpoint.host in ANY or not address.family(endpoint.host):
            continue
        if not address.is_local(endpoint.host) and not _on_link(host, endpoint.host):
            yield warning(host.config, key, text,
                          "%s is not an address of this host, nor of a network that it is in" % endpoint.host,
                          "use the cluster IP or *")
    for key, text, endpoint in settings.bindspecs() if settings else ():
        if endpoint.device and not os.path.lexists(host.path("/sys/class/net/" + endpoint.device)):
            yield warning(host.config, key, text, "there is no network device '%s'" % shown(endpoint.device),
                          "correct or remove it")


def _on_link(host, place):
    # type: (Host, str) -> bool
    """Whether an address is in a network of one of this host's interfaces: a cluster IP could come."""
    import _socket
    from kopano_ocf import address
    family = address.family(place)
    raw = int.from_bytes(_socket.inet_pton(family, place), "big")
    if family == _socket.AF_INET6:
        if raw >> 118 == 0x3fa:                     # fe80::/10 is on every link
            return True
        for fields in _table(host, "/proc/net/ipv6_route"):
            bits = int(fields[1], 16)
            if len(fields) > 9 and fields[9] != "lo" and bits and not int(fields[4], 16) \
                    and raw >> (128 - bits) == int(fields[0], 16) >> (128 - bits):
                return True
        return False
    for fields in _table(host, "/proc/net/route"):
        if len(fields) > 7 and fields[0] != "lo" and fields[2] == "00000000" and fields[7] != "00000000":
            network, mask = (int.from_bytes(bytes.fromhex(fields[i]), "little") for i in (1, 7))
            if raw & mask == network & mask:
                return True
    return False


def _table(host, path):
    # type: (Host, str) -> Iterator[List[str]]
    with open(host.path(path)) as lines:
        for line in lines:
            fields = line.split()
            if fields and fields[0] != "Iface":
                yield fields


def loopback(host):
    # type: (Host) -> Iterator[Finding]
    """Protocols that only this host itself can reach."""
    settings = host.settings()
    by_protocol = {}        # type: Dict[str, List[Tuple[str, str, Endpoint]]]
    for key, text, endpoint in settings.bindspecs() if settings else ():
        if not endpoint.path:
            by_protocol.setdefault(endpoint.protocol, []).append((key, text, endpoint))
    for entries in by_protocol.values():
        if all(endpoint.device == "lo" or _is_loopback(endpoint.host) for _, _, endpoint in entries):
            key, text, endpoint = entries[0]
            by_device = [entry for entry in entries if entry[2].device == "lo"]
            why = "'%lo' makes it" if by_device else "it is"
            if by_device:
                key, text, endpoint = by_device[0]
            given = "" if settings and settings.given(key) else " (default)"
            yield warning(host.config, key, text + given,
                          "%s reachable from this host only, not through a cluster IP" % why,
                          "use the cluster IP" if key == "server_bind" else
                          "use the cluster IP or *, as *:%d" % endpoint.port)


def _is_loopback(place):
    # type: (str) -> bool
    return place == "localhost" or place == "::1" or place.startswith("127.")


# ---------------------------------------------------------------- TLS

def certificates(host):
    # type: (Host) -> Iterator[Finding]
    """Key and certificate of TLS listeners: there, readable, belonging together, not expired."""
    settings = host.settings()
    if not settings or not any(endpoint.tls for endpoint in settings.endpoints()):
        return
    # kopano-server does not start without them, the others leave their TLS listeners out.
    if host.name == "server":
        tell, keys = error, ("server_ssl_key_file", "server_ssl_key_file")
    else:
        tell, keys = warning, ("ssl_certificate_file", "ssl_private_key_file")
    authorities = settings.get("server_ssl_ca_file") if host.name == "server" else ""
    if authorities:
        try:
            kopano_cfg.contents(host.path(kopano_cfg.absolute(authorities)))
        except ConfigError as err:
            yield error(host.config, "server_ssl_ca_file", authorities, err.wrong,
                        "put the CA's certificates there or set it to nothing")
    paths = [kopano_cfg.absolute(settings.get(key)) for key in keys]
    for key, path in sorted(set(zip(keys, paths))):
        try:
            kopano_cfg.contents(host.path(path))
        except ConfigError as err:
            yield tell(host.config, key, path, err.wrong,
                       "put key and certificate there or empty the TLS listen setting")
            return
        if not _may(os.stat(host.path(path)), _user_or_root(host), 4):
            yield warning(host.config, key, path, "%s can't read it" % shown(settings.run_as_user),
                          "chgrp %s and chmod g+r" % (shown(settings.run_as_group) or "root"))
    wrong = _mismatch(host.path(paths[0]), host.path(paths[1]), settings.get("server_ssl_key_pass"))
    if wrong:
        yield tell(host.config, keys[1], paths[1], wrong, "put a key and its certificate there")
    for finding in _expiry(host, keys[0], paths[0]):
        yield finding


def _mismatch(certificate, key, password):
    # type: (str, str, str) -> str
    """Why OpenSSL does not take key and certificate, "" when it does."""
    import ssl
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # always with a password, or OpenSSL asks for one at the terminal
        context.load_cert_chain(certificate, key, lambda: password.encode("utf-8", "surrogateescape"))
    except ssl.SSLError as err:
        return "OpenSSL does not take it: %s" % shown(err.reason or str(err), 200)
    except (OSError, ValueError) as err:
        return shown(str(err), 200)
    return ""


def _expiry(host, key, path):
    # type: (Host, str, str) -> Iterator[Finding]
    from kopano_ocf import tls
    text = host.file(path) or ""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    if begin not in text:
        return
    import binascii
    inner = text.partition(begin)[2].partition(end)[0]
    wrong = tls.judge(binascii.a2b_base64(inner.encode("ascii", "replace")), time.time())
    if wrong:
        yield warning(host.config, key, path, wrong, "renew it")


def authorities(host):
    # type: (Host) -> Iterator[Finding]
    """The parameter ca_file."""
    path = host.call.value("ca_file")
    if not path:
        return
    import ssl
    try:
        kopano_cfg.contents(host.path(path))
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(host.path(path))
    except ConfigError as err:
        yield Finding(WARNING, 0, "parameter ca_file = %s: %s; correct it" % (shown(path, 200), err.wrong))
    except (OSError, ValueError):
        yield Finding(WARNING, 0, "parameter ca_file = %s: no certificates in PEM form; correct it"
                      % shown(path, 200))


# ---------------------------------------------------------------- logging in

def admins(host):
    # type: (Host) -> Iterator[Finding]
    """The deep check logs on as root without a password."""
    settings = host.settings()
    if not settings or settings.run_as_user in ("", "root"):
        return
    names = settings.get("local_admin_users")
    if "root" not in names.split():
        yield warning(host.config, "local_admin_users", names,
                      "without root the agents' deep checks can't log on", "add root")


def password(host):
    # type: (Host) -> Iterator[Finding]
    """The file with test_user's password."""
    path = host.call.value("test_password_file")
    if not path:
        return
    try:
        host.call.secret("test_password_file")
    except ValueError as err:
        yield Finding(WARNING, 0, "parameter %s; correct it, or no test login is possible"
                      % shown(str(err), 300))
        return
    if os.stat(host.path(path)).st_mode & 0o077:
        yield Finding(WARNING, 0, "parameter test_password_file = %s: others than its owner can read it; "
                      "chmod 600 %s" % (shown(path, 200), shown(path, 200)))


# ---------------------------------------------------------------- kopano-server's data

def upgrade_lock(host):
    # type: (Host) -> Iterator[Finding]
    """A left-over lock file: the server can't take it, so its schema upgrade can't be recognised."""
    if os.path.lexists(host.path(LOCK_FILE)) and not _servers(holding=LOCK_FILE):
        yield warning(LOCK_FILE, "", "",
                      "left over, no kopano-server holds it: a schema upgrade can't be recognised",
                      "remove it")


def _servers(holding=""):
    # type: (str) -> List[Any]
    """Processes called kopano-server of this pid namespace, or those that hold a file open."""
    from kopano_ocf import process
    found = []
    for pid in process.pids():
        seen = process.look(pid)
        if seen and seen.comm == "kopano-server" and not seen.dead and seen.same_namespace \
                and (not holding or process.holds(seen, holding)):
            found.append(seen)
    return found


def attachments(host):
    # type: (Host) -> Iterator[Finding]
    """Attachments on this node's own disk; to be told only in a cluster, and where the server runs now."""
    settings = host.settings()
    if not settings or host.nodes() < 2:
        return
    if not settings.get("attachment_storage").startswith(("files", "auto")):
        return
    path = kopano_cfg.absolute(settings.get("attachment_path"))
    if _servers() and os.stat(host.path(path)).st_dev == os.stat(host.path("/")).st_dev:
        yield warning(host.config, "attachment_path", path,
                      "on this node's own root file system, lost after a move",
                      "put it on the storage that moves with the server")


def database(host):
    # type: (Host) -> Iterator[Finding]
    """mysql_port."""
    settings = host.settings()
    if settings:
        settings.database()
    return iter(())


# ---------------------------------------------------------------- who talks to whom

def _same_place(one, other):
    # type: (str, str) -> bool
    # /var/run is a link to /run
    return os.path.realpath(one) == os.path.realpath(other)


def _reaches(target, listener):
    # type: (Endpoint, Endpoint) -> bool
    """Whether a client that connects to target gets to listener, once both are on the same host."""
    if target.path or listener.path:
        return bool(target.path and listener.path) and _same_place(target.path, listener.path)
    if target.port != listener.port or target.tls != listener.tls:
        return False
    local = _is_loopback(target.host)
    if listener.device == "lo" or _is_loopback(listener.host):
        return local
    if listener.host in ANY:
        return not (local and listener.device)
    from kopano_ocf import address
    family = address.family(target.host)
    if not family:
        return not local            # a name: not looked up
    import _socket
    return family == address.family(listener.host) and \
        _socket.inet_pton(family, target.host) == _socket.inet_pton(family, listener.host)


def _elsewhere(host, target):
    # type: (Host, Endpoint) -> bool
    """Whether target is an address beyond this host's networks: not the server that is configured here."""
    from kopano_ocf import address
    return bool(address.family(target.host)) and not address.is_local(target.host) \
        and not _on_link(host, target.host)


def _listening(entries):
    # type: (List[Tuple[str, str, Endpoint]]) -> str
    """The settings that say where a daemon listens, for a message."""
    texts = {}      # type: Dict[str, List[str]]
    for key, text, _ in entries:
        texts.setdefault(key, []).append(text)
    return ", ".join("%s = %s" % (key, shown(" ".join(texts[key]))) for key in sorted(texts))


def _misses(host, target, server):
    # type: (Host, Endpoint, kopano_cfg.Settings) -> str
    """What is wrong with a client's idea of where kopano-server is, "" when it gets there."""
    entries = server.bindspecs()
    if _elsewhere(host, target) or any(_reaches(target, endpoint) for _, _, endpoint in entries):
        return ""
    return "kopano-server does not listen there (%s: %s)" % (shown(server.path, 200), _listening(entries))


def _place(host):
    # type: (str) -> str
    """A listener's address as clients write it."""
    return "ADDRESS" if host in ANY else "[%s]" % host if ":" in host else host


def _url(entries):
    # type: (List[Tuple[str, str, Endpoint]]) -> str
    """What a client should name to get to a server: its address, else its socket."""
    for _, _, endpoint in entries:
        if not endpoint.path and endpoint.device != "lo" and not _is_loopback(endpoint.host):
            return "http%s://%s:%d/" % ("s" if endpoint.tls else "", _place(endpoint.host), endpoint.port)
    paths = [endpoint.path for _, _, endpoint in entries if endpoint.path]
    return "file://" + paths[0] if paths else "where it listens"


def server_socket(host):
    # type: (Host) -> Iterator[Finding]
    """A client daemon's way to kopano-server, when both are configured here."""
    settings, server = host.settings(), host.server()
    if not settings:
        return
    target = settings.server()      # a wrong one is told by way of its ConfigError
    text = settings.get("server_socket") or "(empty)"
    # kopano-server believes a peer of its own user on the unix socket; IMAP and POP3 opt out of that, CalDAV doesn't
    if host.name == "ical" and target.path:
        yield warning(host.config, "server_socket", text, "over a unix socket kopano-ical accepts any password",
                      "use http://localhost:236/")
    wrong = _misses(host, target, server) if server else ""
    if wrong and server:
        entries = [entry for entry in server.bindspecs() if host.name != "ical" or not entry[2].path]
        yield warning(host.config, "server_socket", text, wrong, "use %s" % _url(entries))


def webapp(host):
    # type: (Host) -> Iterator[Finding]
    """WebApp's way to kopano-server."""
    path = host.config if host.agent.kind == "page" else WEBAPP
    try:
        target = kopano_cfg.default_server(host.path(path))
    except kopano_cfg.Missing as err:
        if host.agent.kind == "page":
            yield warning(path, "", "", err.wrong, "correct the parameter config")
        return
    except ConfigError as err:
        yield warning(path, err.key, err.value, err.wrong, err.remedy)
        return
    server = host.server()
    entries = server.bindspecs() if server else []
    wrong = _misses(host, target, server) if server else ""
    text = "file://" + target.path if target.path else str(target)
    if not wrong and host.nodes() > 1 and (target.path or _is_loopback(target.host)):
        wrong = "WebApp on a node where kopano-server does not run can't reach it"
    if wrong:
        yield warning(path, "DEFAULT_SERVER", text, wrong,
                      "use the server's cluster IP, as %s"
                      % (_url(entries) if entries else "http://ADDRESS:236/"))


def postfix(host):
    # type: (Host) -> Iterator[Finding]
    """Postfix's way to dagent."""
    text = host.file(MAIN_CF)
    settings = host.settings()
    if text is None or not settings:
        return
    from kopano_ocf import foreign
    values = foreign.postfix_settings(text)
    for key in ("virtual_transport", "mailbox_transport"):
        value = foreign.postfix_value(values, key)
        target = foreign.lmtp_target(value)
        if target is None or _elsewhere(host, target):
            continue
        entries = settings.bindspecs()
        wrong = ""
        if not any(_reaches(target, endpoint) for _, _, endpoint in entries):
            wrong = "kopano-dagent does not listen there (%s: %s)" % (
                shown(host.config, 200), _listening(entries))
        elif host.nodes() > 1 and (target.path or _is_loopback(target.host)):
            wrong = "Postfix on a node where kopano-dagent does not run can't deliver"
        if wrong:
            yield warning(MAIN_CF, key, value, wrong, "use its cluster IP, as %s" % _lmtp(entries))


def _lmtp(entries):
    # type: (List[Tuple[str, str, Endpoint]]) -> str
    for _, _, endpoint in entries:
        if not endpoint.path and endpoint.device != "lo" and not _is_loopback(endpoint.host):
            return "lmtp:%s:%d" % (_place(endpoint.host), endpoint.port)
    return "lmtp:ADDRESS:2003"


# ---------------------------------------------------------------- the table

_CLIENTS = ("dagent", "spooler", "gateway", "ical", "monitor")
_DAEMONS = ("server",) + _CLIENTS
_LISTENING = ("server", "dagent", "gateway", "ical")
_TLS = ("server", "gateway", "ical")
_PAGE = ("webapp-health",)

# (check, agents it is for), in the order in which they are told
CHECKS = (
    (modules, _DAEMONS + _PAGE),
    (binary, _DAEMONS),
    (config, _DAEMONS),
    (listeners, _LISTENING),
    (user, _DAEMONS),
    (directories, _DAEMONS),
    (certificates, _TLS),
    (writable, _DAEMONS),
    (boot, _DAEMONS),
    (addresses, _LISTENING),
    (loopback, _LISTENING),
    (admins, ("server",)),
    (upgrade_lock, ("server",)),
    (database, ("server",)),
    (attachments, ("server",)),
    (server_socket, _CLIENTS),
    (webapp, ("server",) + _PAGE),
    (postfix, ("dagent",)),
    (password, ("gateway", "ical") + _PAGE),
    (authorities, _TLS + _PAGE),
)
