# SPDX-License-Identifier: GPL-2.0-or-later
"""The agents' promises, tested as Pacemaker uses them, on a host with stand-ins of each generation in turn.

With KOPANO_SBIN=/usr/sbin the daemons are real ones: the other generations are skipped then, and so is what real
daemons can't be made to do.
"""
import os

import pytest

from world import DAEMONS, StandinOnly, World

from .looks import SOCKET, serve

GENERATIONS = (8, 9, 11)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """What takes a minute comes first, so that the other worker has something to do meanwhile."""
    items.sort(key=lambda item: not item.path.match("contract/test_patience.py"))


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


def host(number):
    """The host of a generation as after a reboot: its database runs, no daemon does."""
    made = World.shared(number, tls=True)
    if made.generation != number:
        pytest.skip("KOPANO_SBIN=%s holds generation %d" % (os.environ["KOPANO_SBIN"], made.generation))
    made.database.start()
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
    made = World.shared(11, tls=True)
    made.database.start()
    yield made
    made.release()


def _traits(world):
    """What must not have changed when a site is used again: processes and configuration."""
    return ([world.main_pid(name) for name in DAEMONS], [os.stat(world.config(name)).st_mtime_ns for name in DAEMONS],
            world.database.pid if world.database.running else None)


def _memory(world):
    """Contents of HA_RSCTMP."""
    found = {}
    for name in os.listdir(world.rsctmp):
        with open(os.path.join(world.rsctmp, name), "rb") as file:
            found[name] = file.read()
    return found


def _restore(world, memory):
    for name in set(os.listdir(world.rsctmp)) - set(memory):
        os.unlink(os.path.join(world.rsctmp, name))
    for name, data in memory.items():
        with open(os.path.join(world.rsctmp, name), "wb") as file:
            file.write(data)


@pytest.fixture
def site(generation):
    """A host where all six daemons run, started by their agents. What a test does to it is undone, or it is made anew.

    gateway reaches its server by TCP, ical by the socket.
    """
    current = World._current
    kept = getattr(current, "site", None)
    if kept is None or current.generation != generation or kept[0] != _traits(current):
        current = host(generation)
        current.write_config("ical", server_socket="file://" + SOCKET)
        serve(current, *DAEMONS)
        current.site = kept = (_traits(current), _memory(current))
    _restore(current, kept[1])
    yield current
    current.release()
    current.database.start()
    for name in DAEMONS:
        current.thaw(name)
        if not current.real:
            current.clear_faults(name)
    if kept[0] != _traits(current):
        current.site = None
