# SPDX-License-Identifier: GPL-2.0-or-later
"""No false alarm on a host that has hardly a moment to spare: a small part of `make soak`."""
import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [path for path in (HERE, os.path.join(ROOT, "tests", "bench")) if path not in sys.path]

from soak import Soak, schedule  # noqa: E402
from webserver import apache  # noqa: E402
from world import World  # noqa: E402


@pytest.mark.timeout(400)       # under a minute on an idle machine
def test_a_busy_host_is_a_healthy_host():
    os.makedirs(os.path.join(ROOT, "build"), exist_ok=True)
    with World(11, tls=True) as world, apache():
        soak = Soak(world, schedule(300, 60), minutes=5, burners=os.cpu_count() + 2, memory=1 << 30,
                    folder=os.path.join(ROOT, "build"))
        soak.furnish()
        soak.soak()
    assert soak.good, soak.report()
    assert soak.count() == 660
