#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes the second half of kopano/main.yml from crm/*/*.crm, with a site's values in place of the manual's.

So what the wizard builds is what the files say, and there is one place to change it. After a change of a .crm file:

    crm/wizard/generate.py            # --check: only say whether it would change something
"""
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
CRM = os.path.dirname(HERE)
SCRIPT = f"{HERE}/kopano/main.yml"
MARK = "  # From here on written by ../generate.py out of ../../*/*.crm.\n"
STEPS = ("010-cluster", "020-site", "030-mysql", "040-kopano", "050-webapp")
# {(deployment, node3_role): what is loaded after the deployment's own files}
BUILDS = {
    ("drbd", "none"): (), ("shared-storage", "none"): (), ("virtual-machine", "none"): (),
    ("drbd", "votes"): ("quorum/three-nodes", "quorum/arbiter", "quorum/arbiter-drbd"),
    ("shared-storage", "votes"): ("quorum/three-nodes", "quorum/arbiter"),
    ("shared-storage", "equal"): ("quorum/three-nodes",),
}

# The manual's nodes, also within names, and what the wizard says instead.
NODES = {rf"(?<![A-Za-z]){name}(?![A-Za-z])": f"{{{{node{number}}}}}"
         for number, name in enumerate(("bob", "alice", "carol"), 1)}


def optional(key, name):
    """The attribute `key` when the wizard's parameter `name` is given."""
    return f'{{{{#{name}}}}}{key}="{{{{{name}}}}}"{{{{/{name}}}}}'


def fence_device(number):
    """What is said of one node's fence device."""
    return [
        (r"stonith:fence_ipmilan", "stonith:{{fence_agent}}"),
        (r"ip=10\.0\.0\.12[567]", optional("ip", f"fence_ip{number}")),
        (r"username=fencing", optional("username", "fence_username")),
        (r"password_script=\S+", optional("password_script", "fence_password_script")),
        (r"lanplus=true", "{{fence_options}}"),
        (r"pcmk_host_list=\S+", rf"\g<0> {{{{#fence_plug{number}}}}}pcmk_host_map="
                                rf'"{{{{node{number}}}}}:{{{{fence_plug{number}}}}}"{{{{/fence_plug{number}}}}}'),
    ]


def file_system(name):
    """What is said of one file system."""
    return [(r"device=\S+", f'device="{{{{{name}_device}}}}"'),
            (r"directory=\S+", f'directory="{{{{{name}_directory}}}}"'),
            (r"fstype=\S+", 'fstype="{{fstype}}"')]


def address(name):
    """What is said of one cluster address."""
    return [(r"ip=\S+", f'ip="{{{{{name}_ip}}}}"'), (r"nic=\S+", 'nic="{{nic}}"'),
            (r"cidr_netmask=\S+", 'cidr_netmask="{{cidr_netmask}}"')]


# Each of these must be found in the resource, or the wizard would keep a value of the manual.
VALUES = {
    "fence_bob": fence_device(1), "fence_alice": fence_device(2), "fence_carol": fence_device(3),
    "mysql_fs": file_system("mysql"), "kopano_fs": file_system("kopano"),
    "mysql_ip": address("mysql"), "kopano_ip": address("kopano"),
    "drbd_mysql": [(r"drbd_resource=\S+", 'drbd_resource="{{mysql_drbd}}"')],
    "drbd_kopano": [(r"drbd_resource=\S+", 'drbd_resource="{{kopano_drbd}}"')],
    "mysqld": [(r"binary=\S+", f'binary="{{{{mysql_binary}}}}" {optional("config", "mysql_config")} '
                               f'{optional("datadir", "mysql_datadir")}'),
               (r"log=\S+", 'log="{{mysql_directory}}/mysqld.log"')],
}
# A load defines things in any order; in this one they read well.
KINDS = ("property", "rsc_defaults", "op_defaults", "primitive", "group", "clone",
         "location", "colocation", "xml", "order")


def statements(path):
    """The statements of a .crm file as lists of words, without comments."""
    with open(path) as file:
        text = "".join(line for line in file if not line.lstrip().startswith("#"))
    return [line.split() for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def whole(build):
    """{what is defined: (its statement, whether it is WebApp's)}: what all files of a build say together."""
    deployment, _ = build
    found = {}
    for file in [f"{deployment}/{step}" for step in STEPS] + list(BUILDS[build]):
        for words in statements(f"{CRM}/{file}.crm"):
            kind = words[0]
            if kind not in KINDS:
                sys.exit(f"{file}.crm: {kind}: unknown here")
            key = kind if kind in ("property", "rsc_defaults", "op_defaults") else words[2 if kind == "xml" else 1]
            if key == kind and key in found:                    # attributes come together, the last one wins
                old = dict(word.split("=", 1) for word in found[key][0][1:])
                old.update(word.split("=", 1) for word in words[1:])
                words = [kind] + [f"{name}={value}" for name, value in old.items()]
            of_webapp = kind == "location" and found[words[2]][1]
            found[key] = (words, of_webapp or file.endswith("050-webapp"))  # a group that has grown: the last one wins
    return found


def with_placeholders(name, words):
    """A statement with the wizard's parameters in place of the manual's values."""
    used = set()
    out = []
    for word in words:
        for number, (pattern, new) in enumerate(VALUES.get(name, [])):
            if re.fullmatch(pattern, word):
                word = re.sub(pattern, new, word)
                used.add(number)
                break
        for pattern, new in NODES.items():
            word = re.sub(pattern, new, word)
        out.append(word)
    for number, (pattern, _) in enumerate(VALUES.get(name, [])):
        if number not in used:
            sys.exit(f"{name}: nothing in it is {pattern}")
    return out


def layout(words):
    """A statement's lines: one for each set of parameters, operation and so on."""
    lines = [words[:1]]
    for word in words[1:]:
        if words[0] in ("primitive", "clone") and word in ("params", "op", "meta"):
            lines.append([])
        lines[-1].append(word)
    return [("    " if number else "") + " ".join(line) for number, line in enumerate(lines)]


def versions(name, words):
    """[(lines of a statement, crmsh's expression for when they are meant or "")]: XFS keeps no room for root, so on
    a full one the monitor that writes would fail."""
    lines = layout(with_placeholders(name, words))
    if not name.endswith("_fs"):
        return [(lines, "")]
    reading = [line for line in lines if "OCF_CHECK_LEVEL=20" not in line]
    if reading == lines:
        sys.exit(f"{name}: has no monitor with OCF_CHECK_LEVEL=20")
    return [(lines, 'fstype != "xfs"'), (reading, 'fstype == "xfs"')]


def when(builds):
    """crmsh's conditions for when one of these builds is asked for: of the deployment, of the third node, or both."""
    asked = [{build[part]: None for build in builds} for part in (0, 1)]
    for parts in (), (0,), (1,), (0, 1):
        if all((build in builds) == all(build[part] in asked[part] for part in parts) for build in BUILDS):
            return [" or ".join(f'{("deployment", "node3_role")[part]} == "{value}"' for value in asked[part])
                    for part in parts]
    return sys.exit(f"{builds}: no condition says when these are meant")


def actions():
    """The cib actions. Neighbours become one load, so the cluster sees a single change."""
    having = {}             # (kind, text, webapp, version) -> builds
    for build in BUILDS:
        for name, (words, webapp) in whole(build).items():
            for lines, version in versions(name, words):
                key = (KINDS.index(words[0]), "\n".join(lines), webapp, version)
                having.setdefault(key, []).append(build)
    sections = {}
    for (_, text, webapp, version), builds in sorted(having.items(), key=lambda item: item[0][0]):
        conditions = when(builds)
        if version:
            conditions.append(version)
        if webapp:
            conditions.append('webapp == "true"')
        sections.setdefault(tuple(conditions), []).append(text)
    for conditions, texts in sorted(sections.items(), key=lambda item: len(item[0])):
        yield "  - cib: |\n" + "".join(f"      {line}\n" for text in texts for line in text.splitlines())
        yield "    shortdesc: Configure the cluster\n"
        if conditions:
            yield f"    when: {' and '.join(f'({text})' if ' or ' in text else text for text in conditions)}\n"


def main():
    """Write the script anew, or only look."""
    with open(SCRIPT) as file:
        old = file.read()
    new = old.split(MARK)[0] + MARK + "".join(actions())
    if "--check" in sys.argv[1:]:
        sys.exit(f"{SCRIPT}: not what the .crm files say: run {sys.argv[0]}" if new != old else 0)
    with open(SCRIPT, "w") as file:
        file.write(new)


if __name__ == "__main__":
    main()
