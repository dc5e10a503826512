# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's BMCs: power control of the nodes over a unix socket, apart from every network of theirs.

One line in, one line out, as fence_lab and ipmitool speak it:

    ping -> ok      list -> bob:on alice:off      status bob -> on | off
    off bob, on bob, reboot bob -> ok | error TEXT

A node may also be named by its BMC's address. "off" and "reboot" are done when the node is off. After "on" and
"reboot" its power is on, and it is there some seconds later, as a machine is that has to boot.
"""
import os
import socket
import sys
import threading
import time
from dataclasses import dataclass


@dataclass
class PowerEvent:
    """One order that was carried out (or refused)."""
    at: float           # time.time()
    order: str          # "reboot bob"
    answer: str         # "ok"


class BMC:
    """Serves `path` until close(). `nodes`: {name: object with power_on(), power_off(), alive() and powered()};
    `addresses`: {address of a BMC: name of its node}."""

    BOOT = 15.0         # seconds that a node takes to boot: a real one would need minutes

    def __init__(self, path, nodes, addresses=None):
        self.nodes = nodes
        self.addresses = addresses or {}
        self.events = []            # PowerEvents, in order
        self.broken = False         # refuse every order, as a BMC without power does
        self.delay = 0.0            # seconds an order takes
        self._booting = {}          # node -> Timer that will boot it
        self._shot = set()          # nodes that were switched off, and not on again
        self._fenced = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(path)
        os.chmod(path, 0o600)
        self._socket.listen(8)
        threading.Thread(target=self._serve, name="bmc", daemon=True).start()

    def close(self):
        """Stop serving; a node that is to boot stays off."""
        self.forget_boots()
        try:
            self._socket.shutdown(socket.SHUT_RDWR)     # wakes the accept() in the other thread
        except OSError:
            pass
        self._socket.close()

    def forget_boots(self):
        """Nodes that are to boot after a reboot stay off, until somebody switches them on."""
        for timer in self._booting.values():
            timer.cancel()

    def fenced(self):
        """Names of the nodes that were fenced, in order: switched off, or found off and switched on again."""
        return list(self._fenced)

    def forget(self):
        """Count fencings anew."""
        self.events.clear()
        self._fenced.clear()

    def _serve(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            # One thread an order: a slow power cycle must not keep a "status" waiting.
            threading.Thread(target=self._answer, args=(connection,), name="bmc order", daemon=True).start()

    def _answer(self, connection):
        with connection:
            connection.settimeout(20)
            try:
                order = connection.makefile().readline().strip()
                answer = self._obey(order)
                if order.split()[:1] in (["on"], ["off"], ["reboot"]):
                    self.events.append(PowerEvent(time.time(), order, answer))
                connection.sendall(answer.encode() + b"\n")
            except OSError:
                pass                                    # the agent was killed: nobody listens

    def _obey(self, order):
        verb, _, name = order.partition(" ")
        name = self.addresses.get(name, name)
        if verb == "list":              # which nodes it is for is known, broken or not
            return " ".join(f"{name}:{'on' if node.alive() else 'off'}" for name, node in self.nodes.items())
        if self.broken:
            return "error the BMC doesn't answer"
        if verb == "ping":
            return "ok"
        node = self.nodes.get(name)
        if node is None:
            return f"error no node {name!r}"
        if verb == "status":
            return "on" if node.powered() or self._boots(name) else "off"
        if verb not in ("on", "off", "reboot"):
            return f"error no such order {verb!r}"
        time.sleep(self.delay)
        try:
            if verb in ("off", "reboot"):
                if name in self._booting:
                    self._booting[name].cancel()
                node.power_off()
            if verb in ("on", "reboot") and not node.powered() and not self._boots(name):
                self._booting[name] = threading.Timer(self.BOOT, self._boot, [node])
                self._booting[name].daemon = True
                self._booting[name].start()
        except Exception as error:  # whatever it is, the fence agent must hear of it
            return f"error {error!r}"
        self._count(verb, name)
        return "ok"

    def _count(self, verb, name):
        """fence_ipmilan's reboot is an "off" unless the node is off already, then an "on"."""
        if verb != "on" or name not in self._shot:
            self._fenced.append(name)
        (self._shot.add if verb == "off" else self._shot.discard)(name)

    def _boots(self, name):
        return name in self._booting and self._booting[name].is_alive()

    def _boot(self, node):
        try:
            node.power_on()
        except Exception as error:  # a thread has nobody to raise it to; who waits for the node will time out
            print(f"{node.name}: {error}", file=sys.stderr)
