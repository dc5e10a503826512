# SPDX-License-Identifier: GPL-2.0-or-later
"""What nodes with systemd have for units: those of the packages that a cluster needs, and nothing else of the machine.

The rest would be started with them: what this machine has enabled, and what sets kernel parameters or mounts things.
"""
import os
import shutil

from namespaces import LabError
from node_init import RUN_DIRECTORIES
from node_systemd import SYSTEMD

UNITS = "/usr/lib/systemd/system"
# Of the machine's packages: what a boot to multi-user.target and a shutdown go through, and the cluster.
TAKEN = ("basic.target", "sysinit.target", "local-fs.target", "local-fs-pre.target", "swap.target", "sockets.target",
         "timers.target", "paths.target", "slices.target", "multi-user.target", "network.target",
         "network-online.target", "remote-fs.target", "remote-fs-pre.target", "nss-user-lookup.target",
         "time-sync.target", "shutdown.target", "umount.target", "final.target", "poweroff.target",
         "systemd-poweroff.service", "reboot.target", "systemd-reboot.service", "emergency.target",
         "systemd-tmpfiles-setup.service", "dbus.socket", "dbus.service", "resource-agents-deps.target",
         "corosync.service", "pacemaker.service", "mariadb.service")
# As the packages and their enabling have it: unit -> what wants it.
WANTED = {"dbus.socket": f"{UNITS}/sockets.target.wants",
          "systemd-tmpfiles-setup.service": f"{UNITS}/sysinit.target.wants",
          "corosync.service": "/etc/systemd/system/multi-user.target.wants",
          "pacemaker.service": "/etc/systemd/system/multi-user.target.wants"}
# Directories of which the machine's own contents aren't seen.
CLEARED = (UNITS, "/usr/lib/systemd/system-generators", "/usr/lib/systemd/system-environment-generators",
           "/usr/lib/systemd/system-preset", "/usr/lib/tmpfiles.d", "/etc/systemd", "/etc/tmpfiles.d")

# What else systemd-tmpfiles makes at every boot: its own /run/lock covers what node_init.py has put there.
TMPFILES = "".join(f"d {path} {mode:o} {owner} {group} -\n" for path, (mode, owner, group) in RUN_DIRECTORIES.items())
# No journal is kept: what services say goes to the console, and so to the lab's log.
CONFIGURATION = """\
[Manager]
DefaultStandardOutput=tty
"""

# A unit of Kopano's packages, as they have been since 8.3.
KOPANO_UNIT = """\
[Unit]
Description=Kopano Groupware Core {name}
{after}
[Service]
Type=simple
EnvironmentFile=-/etc/sysconfig/kopano
EnvironmentFile=-/etc/default/kopano
ExecStart=/usr/sbin/kopano-{name} {mode}
ExecReload=/bin/kill -HUP $MAINPID
{timeout}
[Install]
WantedBy=multi-user.target
"""


def missing():
    """Why nodes can't have systemd as their init here; "" when they can."""
    absent = [path for path in (SYSTEMD, "/usr/bin/dbus-daemon", *(f"{UNITS}/{unit}" for unit in TAKEN))
              if not os.path.exists(path)]
    return "a lab with systemd needs " + ", ".join(absent) if absent else ""


def furnish(image):
    """Fill the image of the nodes' root directory with what their systemd finds."""
    why = missing()
    if why:
        raise LabError(why)
    for path in CLEARED:
        os.makedirs(image + path, exist_ok=True)
        os.setxattr(image + path, "trusted.overlay.opaque", b"y")
    for unit in TAKEN:
        shutil.copy(f"{UNITS}/{unit}", f"{image}{UNITS}")
    for unit, place in WANTED.items():
        os.makedirs(image + place, exist_ok=True)
        os.symlink(f"{UNITS}/{unit}", f"{image}{place}/{unit}")
    for path, text in (("/usr/lib/tmpfiles.d/lab.conf", TMPFILES), ("/etc/systemd/system.conf", CONFIGURATION)):
        with open(image + path, "w") as file:
            file.write(text)


def add_kopano(image, daemons):
    """The units of Kopano's packages, and what makes their directory in /run."""
    for name in daemons:
        with open(f"{image}{UNITS}/kopano-{name}.service", "w") as file:
            file.write(KOPANO_UNIT.format(
                name=name, mode="-l" if name == "dagent" else "-F",
                after="After=network.target mysql.service mariadb.service\n" if name == "server" else "",
                timeout="TimeoutStopSec=60\n" if name == "server" else ""))
    with open(f"{image}/usr/lib/tmpfiles.d/kopano.conf", "w") as file:
        file.write("d /run/kopano 0775 kopano kopano -\n")
