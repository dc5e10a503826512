# SPDX-License-Identifier: GPL-2.0-or-later
"""A world of stand-ins for each test, of each generation in turn."""
import os
import pathlib

import pytest

from world import World

_HERE = pathlib.Path(__file__).parent


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: waits for half a minute or more, as the daemons do")


def pytest_collection_modifyitems(items):
    if os.environ.get("KOPANO_SBIN"):
        for item in items:
            if item.path.parent == _HERE:
                item.add_marker(pytest.mark.skip(reason="proves the stand-ins; KOPANO_SBIN names real daemons"))




@pytest.fixture(params=(8, 9, 11), ids=lambda number: "g%d" % number)
def world(request):
    """The database runs, no daemon does; user alice exists once a server has run (with_alice)."""
    made = World.shared(request.param, tls=True)
    made.database.start()
    yield made
    made.release()


@pytest.fixture
def world11(request):
    """For what takes long and is the same in all generations."""
    made = World.shared(11, tls=True)
    made.database.start()
    yield made
    made.release()
