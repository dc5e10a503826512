# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures of the cluster tests. One site (a running two-node cluster) serves all drills of a module."""
import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)

import lab as lab_module  # noqa: E402
from kopano_site import QUICK, Site, Watch, keep_logs  # noqa: E402
from practice import practice, practice_cluster  # noqa: E402,F401  (fixtures)


def pytest_collection_modifyitems(config, items):
    mine = [item for item in items if str(item.fspath).startswith(HERE + os.sep)]
    why = lab_module.missing() if mine else ""
    if why and os.environ.get("CI"):
        raise pytest.UsageError(why)
    for item in mine if why else []:
        item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="module")
def site():
    """The site, loaded and running, with a user; the monitors' intervals shortened by QUICK."""
    with Site(interval=QUICK) as running:
        try:
            running.lab.wait_online()
            running.load()
            running.wait_started()
            running.wait_serving()
            running.create_user()
        except BaseException:
            print("logs of the nodes:", keep_logs(running.lab, "setup"))
            raise
        yield running


@pytest.fixture
def drill(site, request):
    """The site for one drill: whole before it; watched during it; its logs kept when the drill fails."""
    site.restore()
    with Watch(site) as watch:
        yield site
    report = getattr(request.node, "report_call", None)
    if watch.violations or report is None or report.failed:
        print("logs of the nodes:", keep_logs(site.lab, request.node.name))
    assert watch.looks and not watch.violations
