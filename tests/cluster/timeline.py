# SPDX-License-Identifier: GPL-2.0-or-later
"""What Pacemaker saw and did, read from the nodes' pacemaker.log (Pacemaker 2.1's words)."""
import re
import time
from dataclasses import dataclass

LINE = re.compile(r"(?P<month>\w{3}) (?P<day>\d\d) (?P<clock>[\d:]{8})(?P<fraction>\.\d+) (?P<node>\S+) "
                  r"pacemaker-(?P<daemon>\w+) *\[\d+\] \(\w+\) \t(?P<level>\w+): (?P<text>.*)")
RESULT = re.compile(r"Result of (?P<operation>\S+) operation for (?P<resource>\S+) on \S+: "
                    r"(?P<result>.*?)(?: \((?P<reason>.*)\))?(?: \| .*)?$")
ACTION = re.compile(r"Actions: (?P<verb>Fence \(\w+\)|\S+) +(?P<resource>\S+) +(?P<rest>.*)")
FENCED = re.compile(r"Operation '(?P<action>\w+)' targeting (?P<target>\S+) by (?P<by>\S+) for \S+: "
                    r"(?P<result>[^|]*?) *(?:\||$)")
MEMBER = re.compile(r"Node (?P<target>\S+) state is now (?P<state>\w+)")
PLACE = re.compile(r"\( *(\S+)(?: -> (\S+))? *\)")
QUIET = ("Leave", "Calculated")


@dataclass(frozen=True)
class Event:
    """One thing that Pacemaker saw (`kind` "monitor", "node") or did ("plan", "start", "stop", "fence")."""
    at: float           # time.time()
    node: str           # whose log says so
    kind: str
    subject: str        # resource, or node
    text: str
    good: bool

    def __str__(self):
        if self.kind in ("plan", "fence", "node"):
            return f"{self.kind:<7} {self.subject}: {self.text}"
        return f"{self.kind:<7} {self.subject} on {self.node}: {self.text}"


def parse(line):
    """Event of a log line, None when there is nothing to tell."""
    found = LINE.match(line)
    if not found:
        return None
    daemon, node, text = found["daemon"], found["node"], found["text"]
    # The log has no year. Around New Year's midnight this is wrong by one; no lab runs for longer.
    stamp = time.strptime(f"{time.localtime().tm_year} {found['month']} {found['day']} {found['clock']}",
                          "%Y %b %d %H:%M:%S")
    at = time.mktime(stamp) + float(found["fraction"])
    if daemon == "controld" and (result := RESULT.match(text)):
        words = result["result"].replace("OCF_DEGRADED", "degraded")
        words += f": {result['reason']}" if result["reason"] else ""
        # a probe looks whether something runs already: "no" is as good an answer as "yes"
        good = words in ("ok", "promoted") or result["operation"] == "probe" and words == "not running"
        return Event(at, node, result["operation"], result["resource"], words, good)
    if daemon == "controld" and (member := MEMBER.match(text)):
        return Event(at, node, "node", member["target"], member["state"], member["state"] == "member")
    if daemon == "schedulerd" and (action := ACTION.match(text)):
        if action["verb"] in QUIET:
            return None
        rest = PLACE.sub(lambda place: f"from {place[1]} to {place[2]}" if place[2] else f"on {place[1]}",
                         action["rest"])
        return Event(at, node, "plan", action["resource"], " ".join([action["verb"], *rest.split()]), True)
    if daemon == "fenced" and (fenced := FENCED.match(text)):
        words = f"{fenced['action']} by {fenced['by']}: {fenced['result']}"
        return Event(at, node, "fence", fenced["target"], words, fenced["result"].startswith("OK"))
    return None


class Timeline:
    """Reads the logs of a lab as they grow."""

    def __init__(self, lab):
        self.lab = lab
        self._offsets = {}

    def news(self):
        """Events since the last call (since the beginning at the first), by time, each once."""
        events = []
        for node in self.lab:
            try:
                with open(node.path("/var/log/pacemaker/pacemaker.log"), errors="replace") as file:
                    file.seek(self._offsets.get(node.name, 0))
                    while (line := file.readline()).endswith("\n"):
                        self._offsets[node.name] = file.tell()
                        event = parse(line)
                        if event:
                            events.append(event)
            except FileNotFoundError:
                continue
        return sorted(dict.fromkeys(events), key=lambda event: event.at)
