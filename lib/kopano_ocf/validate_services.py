# SPDX-License-Identifier: GPL-2.0-or-later
"""What is wrong on this host with the services beside Kopano: its database, Apache, HAProxy.

Each is judged only where it is installed, and where the CIB or the addresses show that it is Kopano's own.
"""
import os
import time

from kopano_ocf import address, foreign_services
from kopano_ocf.endpoint import ANY
from kopano_ocf.host import HOSTS, beside_the_cluster, is_here, is_loopback, on_link, same, warning, within
from kopano_ocf.kopano_cfg import shown

MYPY = False
if MYPY:
    from typing import Dict, Iterator, List, Set, Tuple  # noqa: F401
    from kopano_ocf.foreign_cluster import Primitive  # noqa: F401
    from kopano_ocf.host import Host  # noqa: F401
    from kopano_ocf.kopano_cfg import Database  # noqa: F401
    from kopano_ocf.validate import Finding  # noqa: F401

HAPROXY = "/etc/haproxy/haproxy.cfg"
_MY_CNF = ("/etc/my.cnf", "/etc/mysql/my.cnf")
_MOST_FILES = 200
_LOGIN_SECONDS = 2.0        # for one login to the database
# Where Apache's configuration is, by distribution, the first that there is: (file, ServerRoot, where its status is
# set up, and how).
_APACHE = (
    ("/etc/apache2/apache2.conf", "/etc/apache2", "/etc/apache2/mods-enabled/status.conf",
     "a2enmod status, with Require local"),
    ("/etc/httpd/conf/httpd.conf", "/etc/httpd", "/etc/httpd/conf.d/status.conf",
     "<Location /server-status> SetHandler server-status, Require local </Location>"),
    ("/etc/apache2/httpd.conf", "/etc/apache2", "/etc/apache2/mod_status.conf", "a2enmod status; a2enflag STATUS"),
)


# ---------------------------------------------------------------- the database

def account(host):
    # type: (Host) -> Iterator[Finding]
    """The account that kopano-server uses."""
    settings = host.settings()
    if not settings:
        return
    database = settings.database()
    if database.user == "root":
        given = "" if settings.given("mysql_user") else " (default)"
        yield warning(host.config, "mysql_user", "root" + given, "this account may do everything in all databases",
                      "GRANT ALL ON %s.* to a user of its own" % shown(database.name or "kopano"))
    if not database.password and not _by_socket(database):
        yield warning(host.config, "mysql_password", "(empty)", "whoever reaches the database gets in", "set one")


def _by_socket(database):
    # type: (Database) -> bool
    return database.host in ("", "localhost")


def database_host(host):
    # type: (Host) -> Iterator[Finding]
    """Where kopano-server looks for its database, and whether that is where the cluster runs it."""
    settings = host.settings()
    if not settings:
        return
    database, cib = settings.database(), host.cib()
    text = database.host or "(empty)"
    if database.host.startswith("["):
        yield warning(host.config, "mysql_host", text, "not an address", "write it without brackets")
        return
    places = [] if _by_socket(database) else host.resolved(database.host)
    if host.nodes() > 1 and not is_loopback(database.host) and any(is_loopback(place) for place in places):
        yield warning(HOSTS, places[0], database.host, "%s: mysql_host names it, for another host's database"
                      % shown(host.config), "write the database's cluster IP there")
    if host.nodes() < 2 or not cib.servers() or not cib.databases():
        return
    beside_server, beside_database = cib.beside(*cib.servers()), cib.beside(*cib.databases())
    together = any(entry in beside_server for entry in cib.databases())
    if (_by_socket(database) or is_loopback(database.host)) and not together:
        yield warning(host.config, "mysql_host", text, "%s may run on another node than %s"
                      % (shown(cib.databases()[0].id), shown(cib.servers()[0].id)),
                      "use the database's cluster IP")
    for finding in _brought(host, "mysql_host", places, beside_database, cib.databases()[0]):
        yield finding


def database_login(host):
    # type: (Host) -> Iterator[Finding]
    """Whether the database takes kopano-server's login; nothing when it isn't up, or only a name server knows it."""
    settings = host.settings()
    database = settings.database() if settings else None
    if not database or not _by_socket(database) and not host.resolved(database.host):
        return
    from kopano_ocf import talk
    from kopano_ocf.probe import mysql
    seen = mysql.ask(database, min(host.call.deadline, time.monotonic() + _LOGIN_SECONDS))
    # 1049: no such database. kopano-server makes it at its first start.
    if seen.how == talk.DENIED and "error 1049 " not in seen.words:
        yield warning(host.config, "mysql_user", database.user or "(empty)",
                      "kopano-server can't log in: %s" % shown(seen.words, 400),
                      "correct mysql_user, mysql_password, mysql_host, or the account, as in crm/node/sql/account.sql")


def listening_addresses(host):
    # type: (Host) -> Iterator[Finding]
    """Addresses that a daemon listens on, and whether the cluster brings them to where it runs."""
    settings, cib = host.settings(), host.cib()
    own = [entry for entry in cib.primitives if entry.kind == "ocf:kopano:" + host.name]
    for key, _, endpoint in settings.bindspecs() if settings and own else ():
        if endpoint.path or endpoint.host in ANY or not address.family(endpoint.host) or is_loopback(endpoint.host):
            continue
        for finding in _brought(host, key, [endpoint.host], cib.beside(*own), own[0]):
            yield finding


def _brought(host, key, places, beside, entry):
    # type: (Host, str, List[str], List[Primitive], Primitive) -> Iterator[Finding]
    """Whether what stands beside a resource brings one of these addresses, or a node has it by itself."""
    bringers = [other for other in host.cib().primitives
                if other.params.get("ip") and any(same(place, other.params["ip"]) for place in places)]
    if not places or any(other in beside for other in bringers) or any(is_loopback(place) for place in places):
        return
    addresses = [other.params["ip"] for other in beside
                 if address.family(other.params.get("ip", "")) and other.type in ("IPaddr2", "IPaddr")]
    remedy = "use %s" % " or ".join(addresses) if addresses else "let them be together"
    if bringers:
        yield warning(host.config, key, places[0], "it comes with %s, which may be on another node than %s"
                      % (shown(bringers[0].id), shown(entry.id)), remedy)
    elif addresses and on_link(host, places[0]) and not is_here(host, places[0]) and not any(
            places[0] in value for other in host.cib().primitives for value in other.params.values()):
        yield warning(host.config, key, places[0], "no resource of the cluster brings this address", remedy)


def mariadb(host):
    # type: (Host) -> Iterator[Finding]
    """MariaDB's option files and its unit, where the cluster runs it for Kopano."""
    settings, cib = host.settings(), host.cib()
    if not settings or not host.in_a_cluster():
        return
    database = settings.database()
    options, start = _options(host)
    galera = options.get("wsrep_on", ("", ""))[0].lower() in ("1", "on") or "wsrep_cluster_address" in options
    if galera or cib.primitives and not cib.databases():
        return
    places = [] if _by_socket(database) else host.resolved(database.host)
    if not cib.primitives and (not places or any(_far(host, place) for place in places)):
        return                      # nothing is set up yet, and Kopano's database is not known to be here
    for unit in ("mariadb", "mysql", "mysqld"):
        found = list(beside_the_cluster(host, unit))
        if found:
            yield found[0]
            break
    if not start:
        return
    for finding in _reachable(options, database, places, host):
        yield finding
    moving = [entry.params.get("directory", "") for entry in cib.beside(*cib.databases()) if entry.type == "Filesystem"]
    own = [entry for entry in cib.databases() if entry.kind.startswith("ocf:")]
    keys = [("datadir", "/var/lib/mysql"), ("innodb_data_home_dir", ""), ("innodb_log_group_home_dir", ""),
            ("aria_log_dir_path", "")]
    for key, default in keys if moving else ():
        value, file = options.get(key, (default, start))
        if key == "datadir" and own:                        # the agent says it on the command line
            value, file = own[0].params.get("datadir", default), "CIB, " + own[0].id
        if value.startswith("/") and not any(within(value, folder) for folder in moving):
            yield warning(file, key, value, "not on a file system that moves with %s (%s)"
                          % (shown(cib.databases()[0].id), shown(" ".join(moving), 200)), "put it there")


def _far(host, place):
    # type: (Host, str) -> bool
    return not is_here(host, place) and not on_link(host, place)


def _reachable(options, database, places, host):
    # type: (Dict[str, Tuple[str, str]], Database, List[str], Host) -> Iterator[Finding]
    target = "%s: mysql_host = %s" % (shown(host.config, 200), shown(database.host or "localhost"))
    switched, file = options.get("skip_networking", ("0", ""))
    if _by_socket(database):
        own, file = options.get("socket", ("", ""))
        if own and database.socket and os.path.realpath(own) != os.path.realpath(database.socket):
            yield warning(file, "socket", own, "kopano-server looks for %s (%s: mysql_socket)"
                          % (shown(database.socket, 200), shown(host.config, 200)), "use the same in both")
        return
    if switched.lower() not in ("0", "off", "false"):
        yield warning(file, "skip-networking", switched, "kopano-server can't connect (%s)" % target, "remove it")
    port, file = options.get("port", ("3306", ""))
    if port != "%d" % database.port:
        yield warning(file or host.config, "port" if file else "mysql_port", port if file else "%d" % database.port,
                      "MariaDB's port and mysql_port differ: %s and %d" % (shown(port), database.port),
                      "use the same in both")
    value, file = options.get("bind_address", ("*", ""))
    for bound in value.replace(",", " ").split():
        if bound.startswith("["):
            yield warning(file, "bind-address", value, "not an address", "write it without brackets")
            return
    bounds = [place for bound in value.replace(",", " ").split()
              for place in ([bound] if bound in ANY else host.resolved(bound) or [""])]
    if not places or any(bound == "" or bound in ANY or any(same(bound, place) for place in places)
                         for bound in bounds):
        return
    wrong = "MariaDB is reachable from this host only, by" if all(map(is_loopback, bounds)) else "MariaDB listens on"
    yield warning(file, "bind-address", value, "%s this address, and kopano-server looks elsewhere (%s)"
                  % (wrong, target), "use %s, the database's cluster IP" % shown(database.host))


def _options(host):
    # type: (Host) -> Tuple[Dict[str, Tuple[str, str]], str]
    """({option: (value, file)}, the first file): MariaDB's option files, the last word on each."""
    own = [entry.params["config"] for entry in host.cib().databases() if entry.params.get("config")]
    pending = own[:1] or list(_MY_CNF)
    found, done = {}, []        # type: Dict[str, Tuple[str, str]], List[str]
    while pending and len(done) < _MOST_FILES:
        path = pending.pop(0)
        text = host.text(path) if path not in done else None
        if text is None:
            continue
        done.append(path)
        more = []       # type: List[str]
        for name, value in foreign_services.mysql_lines(text):
            if name == "!include":
                more.append(value)
            elif name == "!includedir":
                more += host.matching(value.rstrip("/") + "/*.cnf")
            else:
                found[name] = (value, path)
        pending = more + pending
    return found, done[0] if done else ""


# ---------------------------------------------------------------- Apache

def apache(host):
    # type: (Host) -> Iterator[Finding]
    """Apache's own status, which two agents ask, and its unit."""
    if host.cib().of_type("apache", "apache2", "httpd"):
        for unit in ("apache2", "httpd"):
            for finding in beside_the_cluster(host, unit):
                yield finding
    url = host.call.value("status_url") or ""
    if not url.partition("://")[2].startswith(("localhost", "127.", "[::1]")) or "/server-status" not in url:
        return
    for main, root, file, remedy in _APACHE:
        if os.path.lexists(host.path(main)):
            break
    else:
        return
    handlers = []       # type: List[Tuple[str, List[List[str]]]]
    for path, text in _apache_files(host, main, root):
        handlers += [(path, rules) for rules in foreign_services.apache_status(text)]
    if not handlers:
        yield warning(file, "SetHandler", "(none)", "no server-status, so Apache can't be watched", remedy)
    elif not any(foreign_services.lets_this_host_in(rules) for _, rules in handlers):
        path, rules = handlers[0]
        words = [" ".join(words) for words in rules if words[0] in ("require", "allow")] or ["deny from all"]
        yield warning(path, "server-status", ", ".join(words), "it must be readable from this host", "Require local")


def _apache_files(host, main, root):
    # type: (Host, str, str) -> Iterator[Tuple[str, str]]
    """(path, text) of Apache's configuration, what is included too."""
    import glob
    pending, done = [main], set()       # type: List[str], Set[str]
    while pending and len(done) < _MOST_FILES:
        path = pending.pop(0)
        if path in done or os.path.isdir(host.path(path)) and not path.endswith(".conf"):
            continue
        done.add(path)
        text = host.text(path) or ""
        yield path, text
        given, patterns = foreign_services.apache_includes(text)
        root = given if given.startswith("/") else root
        for pattern in patterns:
            pattern = os.path.join(root, pattern)
            if os.path.isdir(host.path(pattern)):
                pattern = pattern.rstrip("/") + "/*"
            pending += [host.plain(found) for found in sorted(glob.glob(host.path(pattern)))[:_MOST_FILES]]


# ---------------------------------------------------------------- HAProxy

def haproxy(host):
    # type: (Host) -> Iterator[Finding]
    """A balancer on this node, in front of the nodes' Apaches."""
    text = host.text(HAPROXY)
    nodes = host.nodelist()
    if text is None or len(nodes) < 2:
        return
    if host.cib().of_type("haproxy"):
        for finding in beside_the_cluster(host, "haproxy"):
            yield finding
    known = [place for node in nodes for name in [node.name] + [text for _, text in node.links.values()]
             for place in host.resolved(name) if not is_loopback(place)]
    for backend in foreign_services.haproxy_backends(text):
        servers = [(name, place, checked, host.resolved(place)) for name, place, _, checked in backend.servers]
        ours = [name for name, _, _, places in servers if any(same(one, two) for one in places for two in known)]
        if not ours:
            continue
        for name, place, checked, places in servers:
            key = "backend %s: server %s" % (shown(backend.name), shown(name))
            if not checked:
                yield warning(HAPROXY, key, place, "no health check: users are sent to a node that is dead",
                              "add check")
            if name not in ours and any(on_link(host, one) for one in places):
                yield warning(HAPROXY, key, place, "not an address of a node (%s)" % shown(" ".join(known), 200),
                              "correct it")
        for finding in _looks_at_webapp(backend):
            yield finding


def _looks_at_webapp(backend):
    # type: (foreign_services.Backend) -> Iterator[Finding]
    """Whether a check of the nodes' Apaches would see a WebApp that is broken."""
    if not any(checked and port in ("", "80", "443") for _, _, port, checked in backend.servers):
        return
    page, expected = backend.http_check()
    where, remedy = "backend %s: " % shown(backend.name), "http-check expect rstring name=.username"
    if not page:
        yield warning(HAPROXY, where + "option httpchk", "(none)", "the check only connects: users are sent to an "
                      "Apache that hangs, and to a WebApp that is broken", "use option httpchk GET /webapp/, " + remedy)
    elif (page == "/" or page.startswith("/webapp")) and "string" not in expected:
        yield warning(HAPROXY, where + "http-check expect", expected or "(none)",
                      "a WebApp that is broken answers 200 too", "use " + remedy)
