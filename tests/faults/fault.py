# SPDX-License-Identifier: GPL-2.0-or-later
"""What a fault of the catalogue is."""
from dataclasses import dataclass, field
from typing import Callable, Mapping, Optional, Tuple


@dataclass(frozen=True)
class Says:
    """What the monitor of one depth must come to.

    rc      its exit code
    before  exit codes that it may give in looks before that
    after   seconds that it may take for reasons of its own, beside the time of a look
    """
    rc: int
    before: Tuple[int, ...] = ()
    after: float = 0.0

    def __str__(self):
        return "%s%d" % ("".join("%d, then " % code for code in self.before), self.rc)


WELL, ILL, GONE, DEGRADED = Says(0), Says(1), Says(7), Says(190)
# a server that is silent, or fails at its database: that is asked too, in two monitors
ILL_TWICE = Says(1, (190,))
# threads that all stand still, a spooler without sessions: over more than 65 s
ILL_LATER = Says(1, (0,), 75.0)
# spooler's main thread stands still beside others that move: over more than 125 s
ILL_MUCH_LATER = Says(1, (0,), 135.0)

# What cures a fault
RESTART = "restart"             # of this daemon, on this node
ELSEWHERE = "elsewhere"         # not on this node: a start must say why it fails, so that the other node gets it
NO_RESTART = "no restart"       # something else has to be mended; a restart would only throw out clients
NOTHING = "nothing"             # nothing has to be cured: the service is well


@dataclass(frozen=True)
class Fault:
    """One fault. The texts are for people (docs/fault-matrix.md); act(scene) breaks, yields, and mends.

    daemons     whom it can hit
    broken      what is broken
    visible     what can be seen from outside
    fact        why the verdict follows, and where that is known from
    at10, at20  Says, or {daemon: Says}
    cure        RESTART, ELSEWHERE, NO_RESTART, NOTHING; or {daemon: ...}
    blind       why nobody can tell from the service's health, where nobody can
    waits       daemons whose verdict takes the whole monitor, as they are waited for
    partly      whether depth 20 waits for half of it only: others of its endpoints answer, and it has more to ask
    planned     exit codes of a stop and a start that an administrator asks for meanwhile, None where he doesn't;
                or {daemon: ...}.  stop_within: seconds that this stop gets, None: what is advised
    settings    {daemon: {key: value}}, and prepares(scene): before anything is started
    parameters  {parameter: value} of our agents
    needs       others that must run beside the server;  touches: those that the fault itself ends
    not_for     names of ways that it can't happen to
    passes      whether it mends itself before long
    costs_slots whether it takes dagent's slots by itself
    """
    name: str
    group: str
    daemons: Tuple[str, ...]
    broken: str
    visible: str
    fact: str
    at10: object
    at20: object
    cure: object
    act: Callable = field(repr=False, default=None)
    blind: str = ""
    waits: Tuple[str, ...] = ()
    partly: bool = False
    planned: object = None
    stop_within: Optional[int] = None
    settings: Mapping = field(default_factory=dict)
    parameters: Mapping = field(default_factory=dict)
    prepares: Optional[Callable] = None
    needs: Tuple[str, ...] = ()
    touches: Tuple[str, ...] = ()
    not_for: Tuple[str, ...] = ()
    passes: bool = False
    costs_slots: bool = False
    generation: int = 11

    def cured(self, daemon):
        """What cures it at this daemon."""
        return self.cure if isinstance(self.cure, str) else self.cure[daemon]

    def asked(self, daemon):
        """What a planned stop and start must come to: (exit code, exit code or None), or None."""
        return self.planned.get(daemon) if isinstance(self.planned, dict) else self.planned

    def expected(self, daemon, depth):
        """Says of a daemon's monitor at depth 10 or 20."""
        found = self.at10 if depth == 10 else self.at20
        return found if isinstance(found, Says) else found[daemon]


CATALOGUE = {}


def fault(name, group, daemons, **words):
    """Put a function that breaks, yields and mends into the catalogue."""
    def enter(act):
        assert name not in CATALOGUE, name
        daemon_names = (daemons,) if isinstance(daemons, str) else tuple(daemons)
        CATALOGUE[name] = Fault(name, group, daemon_names, act=act, **words)
        return act
    return enter


def cases(faults=None):
    """[(Fault, daemon)] of the whole catalogue, or of these names, in its order."""
    return [(one, daemon) for one in CATALOGUE.values() for daemon in one.daemons
            if not faults or one.name in faults or "%s-%s" % (one.name, daemon) in faults]
