# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/drills.md, made from the catalogue."""
import os
import re
import textwrap

from drills.catalogue import DRILLS

PATH = os.path.join(os.path.dirname(__file__), "..", "..", "..", "docs", "drills.md")
HELD = "\1"              # in place of a space at which no line may be broken
HEAD = """\
# Drills on your own cluster

Break it before it breaks. The names are those of `make drill`, which shows each on a cluster of namespaces, and of
the tests, which hold the shipped configuration to what is said here. In the examples bob runs everything; commands
are for bob unless said. Made by `tests/cluster/drills/run.py --write`: change tests/cluster/drills/catalogue.py.

Before: tell the users. `crm status` shows everything started, nothing failed; `crm_verify -LV` is silent; a backup is
fresh. Watch with `crm_mon -rf` on alice, and with a mail every second from a machine outside:

    while sleep 1; do swaks --silent --protocol LMTP --server 192.168.122.100:2003 --to anna@example.com; date; done

After each: `crm status` as before, the mail counted. Failed actions that are over go with `crm resource cleanup`.
The last line of each tells what the manual's own configuration did (`lsb:` daemons in plain groups, no fencing).
"""


def text():
    """The whole file."""
    parts = [HEAD]
    for drill in DRILLS.values():
        lines = [f"## {drill.name}", fill(f"{sentence(drill.does)}."),
                 fill(f"* Break: {drill.breaks}"), fill(f"* Expect: {drill.during}"),
                 fill(f"* Then: {drill.after}")]
        if drill.mends:
            lines.append(fill(f"* Mend: {drill.mends}"))
        if drill.drbd:
            lines.append(fill(f"* With DRBD: {drill.drbd}."))
        if drill.manual:
            lines.append(fill(f"* With the manual's configuration: {drill.manual}."))
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def sentence(words):
    """Begun with a capital, unless that is a name's."""
    return words if words.startswith("kopano-") else words[0].upper() + words[1:]


def fill(words):
    """Lines of 118 characters; commands are not broken."""
    words = re.sub("`[^`]+`", lambda code: code[0].replace(" ", HELD), words)
    return textwrap.fill(words, 118, subsequent_indent="  " if words.startswith("*") else "",
                         break_long_words=False, break_on_hyphens=False).replace(HELD, " ")


def write():
    """Renew it."""
    os.makedirs(os.path.dirname(PATH), exist_ok=True)
    with open(PATH, "w") as file:
        file.write(text())
