# SPDX-License-Identifier: GPL-2.0-or-later
"""validate-all at level 10: what is wrong with this host for one agent.

A check is a generator of findings about one matter. What it stumbles over in a file is one of its findings; on what
else it can't see it has nothing to say. An ERROR is what stops this daemon itself from starting here, everything else
is a WARNING. docs/validate.md lists what is looked at.
"""
from collections import OrderedDict
from itertools import islice

from kopano_ocf import validate_cluster, validate_firewall, validate_kopano, validate_services, validate_ways
from kopano_ocf.host import Host, warning
from kopano_ocf.kopano_cfg import ConfigError

MYPY = False
if MYPY:
    from typing import Any, Iterator, List  # noqa: F401
    from kopano_ocf.validate import Finding  # noqa: F401

_MOST = 20      # findings of one check: who has that many reads no more of them


def findings(agent, call, root=""):
    # type: (Any, Any, str) -> List[Finding]
    """What all checks for this kind of agent find."""
    host = Host(agent, call, root)
    found = OrderedDict()       # type: OrderedDict[str, Finding]
    for check, agents in CHECKS:
        if agent.name in agents:
            for finding in islice(_held(check, host), _MOST):
                found.setdefault(finding.text, finding)
    return list(found.values())


def _held(check, host):
    # type: (Any, Host) -> Iterator[Finding]
    """A check's findings; what it stumbles over is one, or nothing."""
    try:
        for finding in check(host):
            yield finding
    except ConfigError as err:
        yield warning(host.plain(err.file), err.key, err.value, err.wrong, err.remedy)
    except (OSError, ValueError, LookupError):
        pass


_CLIENTS = ("dagent", "spooler", "gateway", "ical", "monitor")
_DAEMONS = ("server",) + _CLIENTS
_LISTENING = ("server", "dagent", "gateway", "ical")
_TLS = ("server", "gateway", "ical")
_PAGE = ("webapp-health",)

# (check, agents it is for), in the order in which they are told
CHECKS = (
    (validate_kopano.modules, _DAEMONS + _PAGE),
    (validate_kopano.binary, _DAEMONS),
    (validate_kopano.config, _DAEMONS),
    (validate_kopano.listeners, _LISTENING),
    (validate_kopano.user, _DAEMONS),
    (validate_kopano.directories, _DAEMONS),
    (validate_kopano.boot_directories, _DAEMONS),
    (validate_kopano.certificates, _TLS),
    (validate_kopano.writable, _DAEMONS),
    (validate_kopano.boot, _DAEMONS),
    (validate_kopano.addresses, _LISTENING),
    (validate_kopano.loopback, _LISTENING),
    (validate_services.listening_addresses, _LISTENING),
    (validate_kopano.admins, ("server",)),
    (validate_kopano.upgrade_lock, ("server",)),
    (validate_kopano.attachments, ("server",)),
    (validate_services.account, ("server",)),
    (validate_services.database_host, ("server",)),
    (validate_services.mariadb, ("server",)),
    (validate_services.database_login, ("server",)),
    (validate_cluster.corosync, ("server",)),
    (validate_cluster.hosts, ("server",)),
    (validate_cluster.cluster_at_boot, ("server",)),
    (validate_cluster.drbd, ("server",)),
    (validate_cluster.site, ("server",)),
    (validate_ways.server_socket, _CLIENTS),
    (validate_ways.webapp, ("server",) + _PAGE),
    (validate_ways.postfix, ("dagent",)),
    (validate_services.apache, _PAGE),
    (validate_services.haproxy, _PAGE),
    (validate_firewall.firewall, _LISTENING),
    (validate_kopano.password, ("gateway", "ical") + _PAGE),
    (validate_kopano.authorities, _TLS + _PAGE),
)
