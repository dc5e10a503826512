# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's BMC: power control of the nodes over a unix socket, apart from every network of theirs.

One line in, one line out, as fence_lab speaks it:

    ping -> ok      list -> bob:on alice:off      status bob -> on | off
    off bob, on bob, reboot bob -> ok | error TEXT

"reboot" is done when the node is off. It is back some seconds later, as a machine is that has to boot.
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
    """Serves `path` until close(). `nodes`: {name: object with power_on(), power_off() and alive()}."""

    BOOT = 15.0         # seconds that the reboot of a node takes: a real one would need minutes

    def __init__(self, path, nodes):
        self.nodes = nodes
        self.events = []            # PowerEvents, in order
        self.broken = False         # refuse every order, as a BMC without power does
        self.delay = 0.0            # seconds an order takes
        self._booting = {}          # node -> Timer that will boot it
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
        """Names of the nodes that were switched off or rebooted, in order."""
        return [event.order.split()[1] for event in self.events
                if event.answer == "ok" and event.order.split()[0] in ("off", "reboot")]

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
            return "on" if node.alive() else "off"
        if verb not in ("on", "off", "reboot"):
            return f"error no such order {verb!r}"
        time.sleep(self.delay)
        if name in self._booting:
            self._booting[name].cancel()
        try:
            if verb in ("off", "reboot"):
                node.power_off()
            if verb == "on":
                node.power_on()
            elif verb == "reboot":
                self._booting[name] = threading.Timer(self.BOOT, self._boot, [node])
                self._booting[name].daemon = True
                self._booting[name].start()
        except Exception as error:  # whatever it is, the fence agent must hear of it
            return f"error {error!r}"
        return "ok"

    def _boot(self, node):
        try:
            node.power_on()
        except Exception as error:  # a thread has nobody to raise it to; who waits for the node will time out
            print(f"{node.name}: {error}", file=sys.stderr)
