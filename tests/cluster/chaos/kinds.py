# SPDX-License-Identifier: GPL-2.0-or-later
"""All kinds of faults, how often and how long, and what their words may be.

Faults whose documented outcome waits for an administrator have no place here: kopano-server stopped in the middle
of a long schema upgrade (its stop fails, it is blocked), a move that is never cleared.
"""
from dataclasses import dataclass
from typing import Callable

from chaos import machines, services
from chaos.targets import DISKS
from kopano_site import DAEMONS

NODE = "a node"         # Kind.alone of what takes a node away: one at a time, and both must be well before
SIGNALS = ("KILL", "KILL", "KILL", "TERM", "SEGV")


@dataclass(frozen=True)
class Kind:
    """A kind of fault. `draw(random)`: the words that say what is broken; `act(run, *words)`: the generator."""
    name: str
    act: Callable
    draw: Callable
    often: int = 1                  # cards in the deck
    lasts: tuple = (0.0, 0.0)       # seconds until it is mended: from, to
    alone: str = ""                 # kinds with the same word don't overlap
    rest: float = 0.0               # seconds after its end before the next of these


def one_of(*words):
    """draw() that gives one of them."""
    return lambda random: (random.choice(words),)


def nothing(_random):
    """draw() where there is nothing to choose."""
    return ()


a_node = one_of("active", "active", "idle")


def some_daemons(random):
    """One daemon mostly, or several at once."""
    return random.sample(DAEMONS, random.choice((1, 1, 1, 2, 3, len(DAEMONS))))


def draw_kill(random):
    """A signal, and daemons."""
    return (random.choice(SIGNALS), *some_daemons(random))


def draw_hang(random):
    """For a while or for ever, and daemons."""
    return (random.choice(("a while", "ever")), *some_daemons(random))


KINDS = (
    Kind("kill", services.kill, draw_kill, often=5),
    Kind("hang", services.hang, draw_hang, often=5, lasts=(1, 40)),
    Kind("replace", services.replace, one_of(*DAEMONS), often=2),
    Kind("kill-database", services.kill_database, one_of("0", "0", "3", "25"), often=2),
    Kind("hang-database", services.hang_database, one_of("a while", "ever"), lasts=(1, 30), alone="the database",
         rest=15),
    Kind("hold-database", services.hold_database, nothing, lasts=(3, 25), alone="the database", rest=15),
    Kind("knock", services.knock, one_of("5", "25")),
    Kind("idle-clients", services.idle_clients, one_of("1", "2", "3"), lasts=(10, 90)),
    Kind("cut-power", machines.cut_power, a_node, often=2, alone=NODE, rest=35),
    Kind("cut-all-power", machines.cut_all_power, one_of("bob", "alice"), lasts=(0.5, 10), alone=NODE, rest=35),
    Kind("freeze-node", machines.freeze_node, a_node, lasts=(10, 10), alone=NODE, rest=35),
    Kind("pause-node", machines.pause_node, a_node, often=2, lasts=(0.2, 8), alone=NODE, rest=35),
    Kind("kill-corosync", machines.kill_corosync, a_node, alone=NODE, rest=35),
    Kind("pull-both", machines.pull_both, a_node, lasts=(1, 12), alone=NODE, rest=35),
    Kind("lose-storage", machines.lose_storage, one_of(*DISKS), lasts=(10, 10), alone=NODE, rest=35),
    Kind("standby", machines.standby, a_node, lasts=(3, 40), alone=NODE, rest=5),
    Kind("pull-lan", machines.pull_lan, a_node, lasts=(1, 15), alone="a cable", rest=3),
    Kind("pull-replication", machines.pull_replication, a_node, lasts=(1, 30), alone="a cable", rest=3),
    Kind("break-bmc", machines.break_bmc, nothing, often=2, lasts=(3, 15), alone="the BMCs"),
    Kind("make-readonly", machines.make_readonly, nothing, alone="a disk", rest=20),
    Kind("fill-disk", machines.fill_disk, one_of(*DISKS), lasts=(3, 30), alone="a disk"),
    Kind("move", machines.move, one_of("kopano", "mysql"), often=2, lasts=(5, 30), alone="a move"),
)


def kinds(deployment):
    """[Kind] that a deployment's cluster has: with DRBD a disk is no device that a path leads to."""
    return [kind for kind in KINDS if deployment == "shared-storage" or kind.act is not machines.lose_storage]
