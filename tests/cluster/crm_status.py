# SPDX-License-Identifier: GPL-2.0-or-later
"""What crm_mon says, as an object."""
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass


@dataclass
class Status:
    """One look at the cluster. A resource of a clone is listed under its own name, with all its nodes."""
    dc: str
    quorum: bool
    online: dict        # node -> bool
    unclean: list       # nodes waiting to be fenced
    running: dict       # resource -> [nodes where it is started (or promoted, or unpromoted)]
    failures: list      # (resource, node, operation, "rc text", exit reason)
    attributes: dict    # node -> {attribute: value}


def parse(text):
    """Status from the output of `crm_mon -1 --output-as=xml`; None when it is none, or no DC is known yet."""
    start = text.find("<pacemaker-result")
    if start < 0:
        return None
    try:
        root = ElementTree.fromstring(text[start:])
    except ElementTree.ParseError:
        return None
    dc = root.find("summary/current_dc")
    if dc is None or dc.get("present") != "true":
        return None
    nodes = root.findall("nodes/node")
    running = {}
    for resource in root.iter("resource"):
        places = running.setdefault(resource.get("id"), [])
        if resource.get("active") == "true" and resource.get("failed") != "true":
            places += [place.get("name") for place in resource.findall("node")]
    failures = [(failure.get("op_key", "").rsplit("_", 2)[0], failure.get("node"), failure.get("task"),
                 failure.get("exitstatus"), failure.get("exitreason") or "")
                for failure in root.findall("failures/failure")]
    attributes = {
        node.get("name"): {item.get("name"): item.get("value") for item in node.findall("attribute")}
        for node in root.findall("node_attributes/node")}
    return Status(
        dc=dc.get("name"), quorum=dc.get("with_quorum") == "true", running=running, failures=failures,
        attributes=attributes,
        online={node.get("name"): node.get("online") == "true" and node.get("pending") != "true"
                for node in nodes},
        unclean=[node.get("name") for node in nodes if node.get("unclean") == "true"])
