# SPDX-License-Identifier: GPL-2.0-or-later
"""A world of stand-ins for each test, of each generation in turn.

`make test` takes 8 and 11 by turns where a test has several cases, or speaks of no generation.
"""

import inspect
import os
import pathlib

import pytest

from turns import has_turn
from world import World

HERE = pathlib.Path(__file__).parent


def pytest_configure(config):
    config.addinivalue_line("markers", "generations(8, 9, 11): which stand-ins a test is for; default: all")
    config.addinivalue_line("markers", "slow: waits for half a minute or more, as the daemons do")


def pytest_collection_modifyitems(items):
    if not os.environ.get("KOPANO_SBIN"):
        return
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.skip(reason="proves the stand-ins; KOPANO_SBIN names real daemons"))


def pytest_generate_tests(metafunc):
    if "generation" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("generations")
        numbers = marker.args if marker else (8, 9, 11)
        names = ["g%d" % number for number in numbers]
        # what generation 9 does it does as 8 or as 11, but where a test is for it
        values = [pytest.param(number, marks=pytest.mark.long) if number == 9 and not marker else number
                  for number in numbers]
        metafunc.parametrize("generation", values, ids=names, scope="session")


def pytest_itemcollected(item):
    case = getattr(item, "callspec", None)
    if case is None or case.params.get("generation") not in (8, 11):
        return
    marker = item.get_closest_marker("generations")
    other = len(item.callspec.indices) > 1 or "generation" not in inspect.getsource(item.obj)
    if (marker is None or len(marker.args) > 1) and other and not has_turn(item):
        item.add_marker(pytest.mark.long)


@pytest.fixture
def world(generation):
    """The database runs, no daemon does."""
    made = World.shared(generation, tls=True)
    made.database.start()
    yield made
    made.release()


@pytest.fixture
def mail(world):
    """A running server with the user alice."""
    world.up("server")
    if "alice" not in world.users:
        world.add_user("alice", "secret")
    return world
