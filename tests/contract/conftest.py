# SPDX-License-Identifier: GPL-2.0-or-later
"""The agents' promises, tested as Pacemaker uses them, on a host with stand-ins of each generation in turn.

With KOPANO_SBIN=/usr/sbin the daemons are real ones: the other generations are skipped then, and so is what real
daemons can't be made to do.
"""
import os

import pytest

from turns import has_turn
from world import DAEMONS, StandinOnly, World

from .looks import SOCKET, serve

GENERATIONS = (8, 9, 11)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """What takes a minute comes first, so that the other worker has something to do meanwhile.

    All others in an order in which few hosts have to be made: six daemons that run are there for the next test too.
    """
    def host_of(item):
        case = getattr(item, "callspec", None)
        generation = case.params.get("generation", 11) if case else 11
        return generation, bool({"site", "site11"} & set(item.fixturenames))
    ours = [place for place, item in enumerate(items) if item.path.match("contract/test_*.py")]
    for place, item in zip(ours, sorted((items[place] for place in ours), key=host_of)):
        items[place] = item
    items.sort(key=lambda item: not item.path.match("contract/test_patience.py"))


def pytest_itemcollected(item):
    """`make test` takes 8 and 11 by turns where a test has several daemons or cases.

    What generation 9 does it does as 8 or as 11. A test that names 8 or 11, or has no other cases, keeps them.
    """
    case = getattr(item, "callspec", None)
    if case is None or "generation" not in case.params:
        return
    named = any("generation" in marker.args[0] for marker in item.iter_markers("parametrize"))
    if case.params["generation"] == 9 or not named and len(case.indices) > 1 and not has_turn(item):
        item.add_marker(pytest.mark.long)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run a test; skip it at the point where it asks more than a real daemon can do."""
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    try:
        pyfuncitem.obj(**arguments)
    except StandinOnly as what:
        pytest.skip("real daemons can't be made to do this: %s" % what)
    return True


@pytest.fixture(scope="session", params=GENERATIONS, ids="g{}".format)
def generation(request):
    """8, 9 or 11."""
    return request.param


def host(number, any_will_do=False):
    """The host of a generation as after a reboot: its database runs, no daemon does."""
    made = World.shared(number, tls=True)
    if made.generation != number and not any_will_do:
        pytest.skip("KOPANO_SBIN=%s holds generation %d" % (os.environ["KOPANO_SBIN"], made.generation))
    made.database.start()
    made.site = None
    return made


@pytest.fixture
def world(generation):
    """A host where nothing runs but the database."""
    made = host(generation)
    yield made
    made.release()


@pytest.fixture
def world11():
    """The same of the newest generation (or of what KOPANO_SBIN holds), for what is alike in all of them."""
    made = host(11, any_will_do=True)
    yield made
    made.release()


class Site:
    """A host where all six daemons run, as it was when it was made: that is what heal() makes of it again."""

    def __init__(self, number, any_will_do):
        self.world = host(number, any_will_do)
        self.world.write_config("ical", server_socket="file://" + SOCKET)
        serve(self.world, *DAEMONS)
        self.world.wait_ready(*DAEMONS)
        self.settings = {name: dict(self.world.settings[name]) for name in DAEMONS}
        self.look()

    def look(self):
        """Remember how it is now."""
        self.texts = {name: self._text(name) for name in DAEMONS}
        self.pids = {name: self.world.pids(name) for name in DAEMONS}
        self.memory = {}
        for name in os.listdir(self.world.rsctmp):
            with open(os.path.join(self.world.rsctmp, name), "rb") as file:
                self.memory[name] = file.read()

    def _text(self, name):
        """What the configuration says, and when it was written."""
        try:
            with open(self.world.config(name), encoding="utf-8") as file:
                return file.read(), os.stat(self.world.config(name)).st_mtime_ns
        except (OSError, UnicodeError):
            return None

    def undo(self):
        """Faults, frozen processes, idle clients, a database that is away."""
        self.world.release()
        self.world.database.start()
        for name in DAEMONS:
            self.world.thaw(name)
            if not self.world.real:
                self.world.clear_faults(name)

    def heal(self):
        """Start anew what is not as it was; forget what agents have remembered since."""
        ill = [name for name in DAEMONS
               if self.world.pids(name) != self.pids[name] or self._text(name) != self.texts[name]]
        for name in ill:
            self.world.settings[name] = dict(self.settings[name])
            self.world.write_config(name)
            self.world.kill_daemon(name)
        for name in set(os.listdir(self.world.rsctmp)) - set(self.memory):
            os.unlink(os.path.join(self.world.rsctmp, name))
        for name, data in self.memory.items():
            with open(os.path.join(self.world.rsctmp, name), "wb") as file:
                file.write(data)
        if ill:
            serve(self.world, *ill)
            self.look()


def site_of(number, any_will_do=False):
    """A healthy site of a generation: that of the test before, or a new one."""
    current = World._current
    kept = getattr(current, "site", None)
    if kept is None or current.generation != number and not current.real:
        kept = Site(number, any_will_do)
        kept.world.site = kept
    else:
        kept.heal()
    yield kept.world
    kept.undo()


@pytest.fixture
def site(generation):
    """A host where all six daemons run, started by their agents. gateway reaches its server by TCP, ical by the socket.

    What a test does to it is undone, or the daemon is made anew.
    """
    yield from site_of(generation)


@pytest.fixture
def site11():
    """The same of the newest generation (or of what KOPANO_SBIN holds), for what is alike in all of them."""
    yield from site_of(11, any_will_do=True)
