# SPDX-License-Identifier: GPL-2.0-or-later
"""What is wrong on this host with a Kopano daemon itself: program, configuration, user, files, addresses, TLS, data."""
import os
import stat
import time

from kopano_ocf import foreign_services, kopano_cfg
from kopano_ocf.endpoint import ANY
from kopano_ocf.host import (beside_the_cluster, error, is_loopback, may, names, on_link, user_or_root, warning, within)
from kopano_ocf.kopano_cfg import ConfigError, shown
from kopano_ocf.validate import ERROR, INSTALLED, WARNING, Finding

MYPY = False
if MYPY:
    from typing import Any, Dict, Iterator, List, Tuple  # noqa: F401
    from kopano_ocf.endpoint import Endpoint  # noqa: F401
    from kopano_ocf.host import Host  # noqa: F401

LOCK_FILE = "/tmp/kopano-upgrade-lock"


def modules(host):
    # type: (Host) -> Iterator[Finding]
    """What the agent itself needs from the distribution."""
    from kopano_ocf import report
    lacking = report.lacking("psutil" if host.agent.kind == "daemon" else "requests")
    if lacking:
        yield Finding(ERROR, INSTALLED, lacking)


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
        elif key == "pid_file" and not may(seen, user_or_root(host), 3):
            names = shown(settings.run_as_user), shown(folder, 200)
            yield warning(host.config, key, text, "%s can't write to %s" % names, "chown %s %s" % names)


def _can_be_made(folder):
    # type: (str) -> bool
    try:
        above = os.stat(os.path.dirname(os.path.realpath(folder)))
    except OSError:
        return False
    return stat.S_ISDIR(above.st_mode) and above.st_uid == 0 and not above.st_mode & 0o022


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
    """Started at boot, or by another resource, it would run beside this one."""
    for finding in beside_the_cluster(host, "kopano-" + host.name):
        yield finding
    ours = "ocf:kopano:" + host.name
    cib = host.cib()
    if any(entry.kind == ours for entry in cib.primitives):
        for entry in cib.of_type("kopano-" + host.name):
            yield warning("CIB, " + entry.id, "type", entry.kind, "a second resource for what %s runs" % ours,
                          "remove one of them")


# ---------------------------------------------------------------- addresses

def addresses(host):
    # type: (Host) -> Iterator[Finding]
    """Addresses that neither are here nor can be brought here by the cluster."""
    from kopano_ocf import address
    settings = host.settings()
    for key, text, endpoint in settings.bindspecs() if settings else ():
        if endpoint.path or endpoint.host in ANY or not address.family(endpoint.host):
            continue
        if not address.is_local(endpoint.host) and not on_link(host, endpoint.host):
            yield warning(host.config, key, text,
                          "%s is not an address of this host, nor of a network that it is in" % endpoint.host,
                          "use the cluster IP or *")
    for key, text, endpoint in settings.bindspecs() if settings else ():
        if endpoint.device and not os.path.lexists(host.path("/sys/class/net/" + endpoint.device)):
            yield warning(host.config, key, text, "there is no network device '%s'" % shown(endpoint.device),
                          "correct or remove it")


def loopback(host):
    # type: (Host) -> Iterator[Finding]
    """Protocols that only this host itself can reach."""
    settings = host.settings()
    by_protocol = {}        # type: Dict[str, List[Tuple[str, str, Endpoint]]]
    for key, text, endpoint in settings.bindspecs() if settings else ():
        if not endpoint.path:
            by_protocol.setdefault(endpoint.protocol, []).append((key, text, endpoint))
    for entries in by_protocol.values():
        if all(endpoint.device == "lo" or is_loopback(endpoint.host) for _, _, endpoint in entries):
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
        if not may(os.stat(host.path(path)), user_or_root(host), 4):
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
    """Attachments that stay behind when the server moves, or that can't be kept where they shall go."""
    settings = host.settings()
    if not settings or not settings.get("attachment_storage").startswith(("files", "auto")):
        return
    key, path = "attachment_path", kopano_cfg.absolute(settings.get("attachment_path"))
    cib = host.cib()
    moving = [entry.params.get("directory", "") for entry in cib.beside(*cib.servers()) if entry.type == "Filesystem"]
    mounted = [folder for folder in moving if within(path, folder) and os.path.ismount(host.path(folder))]
    running, there = _servers(), _existing(host, path)
    if any(within(path, folder) for folder in moving):
        if not mounted:
            return                  # what is seen there now is not what the server will see
    elif host.nodes() > 1:
        if not running and not moving:
            return                  # the storage may be elsewhere now
        if os.stat(there).st_dev == os.stat(host.path("/")).st_dev:
            yield warning(host.config, key, path, "%s, lost after a move" % (
                "not on a file system that moves with the server (%s)" % shown(" ".join(moving), 200) if moving
                else "on this node's own root file system"), "put it on the storage that moves with the server")
        if not running:
            return
    plain = host.plain(there) or "/"
    if not stat.S_ISDIR(os.stat(there).st_mode):
        yield error(host.config, key, path, "%s is not a directory" % shown(plain, 200), "correct it")
    elif os.statvfs(there).f_flag & os.ST_RDONLY:
        yield error(host.config, key, path, "%s is on a file system that is read-only" % shown(plain, 200),
                    "mount it with rw")
    elif plain == path and not may(os.stat(there), user_or_root(host), 3):
        words = shown(settings.run_as_user), shown(plain, 200)
        yield warning(host.config, key, path, "%s can't write to %s" % words, "chown %s %s" % words)


def _existing(host, path):
    # type: (Host, str) -> str
    """A path of this host, or what there is of it."""
    while path.strip("/") and not os.path.exists(host.path(path)):
        path = os.path.dirname(path.rstrip("/"))
    return host.path(path)


def boot_directories(host):
    # type: (Host) -> Iterator[Finding]
    """Directories below /run: made at boot for a user who is not the daemon's, or not at all.

    What is directly below /run is also made by the agent.
    """
    settings = host.settings()
    if not settings or not settings.run_as_user:
        return
    paths = [(key, endpoint.path) for key, _, endpoint in settings.bindspecs()]
    paths += [("pid_file", settings.pid_file or "")]
    folders = dict((os.path.realpath(os.path.dirname(path)), (key, path)) for key, path in paths if path)
    made = {}       # type: Dict[str, str]
    files = {}      # type: Dict[str, str]
    for place in ("/etc/tmpfiles.d", "/run/tmpfiles.d", "/usr/lib/tmpfiles.d"):
        for name in names(host.path(place))[:200]:
            if name.endswith(".conf"):
                files.setdefault(name, "%s/%s" % (place, name))
    for _, path in sorted(files.items()):
        for folder, owner in foreign_services.tmpfiles(host.file(path) or "").items():
            made.setdefault(os.path.realpath(folder), owner)
            if folders.pop(os.path.realpath(folder), None):     # the first line counts
                if owner != settings.run_as_user and (owner != "root" or settings.pid_file):
                    yield warning(path, folder, owner, "kopano-%s runs as %s" % (host.name, settings.run_as_user),
                                  "let it belong to that user")
    for folder, (key, path) in sorted(folders.items()):
        above = os.path.dirname(folder)
        if within(above, "/run") and above != "/run" and made.get(above) != "root":
            yield warning(host.config, key, path, "nobody makes %s after a boot" % shown(folder, 200),
                          "d %s 0775 %s - in a file of /etc/tmpfiles.d" % (shown(folder, 200),
                                                                           shown(settings.run_as_user)))
