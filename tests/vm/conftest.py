# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures of the tests on virtual machines. They take long: only `make test-drbd` (pytest tests/vm) runs them."""
import os
import shutil
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, f"{ROOT}/tests/cluster"]

import virtual_lab  # noqa: E402
from drbd_site import DrbdSite  # noqa: E402

FAILED = f"{ROOT}/build/vm/failed"


def pytest_ignore_collect(config):
    """Passed over, unless they are named on the command line."""
    named = [os.path.abspath(str(config.invocation_params.dir / word.split("::")[0])) for word in config.args]
    return None if any(path.startswith(HERE) for path in named) else True


def pytest_collection_modifyitems(items):
    why = virtual_lab.missing()
    for item in items if why else []:
        if str(item.fspath).startswith(HERE + os.sep):
            item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="module")
def site(request):
    """Two booted virtual machines, nothing set up on their disks yet."""
    failed_before = request.session.testsfailed
    running = DrbdSite()
    with running:
        yield running
        if request.session.testsfailed > failed_before:
            shutil.rmtree(FAILED, ignore_errors=True)
            running.lab.keep_logs(FAILED)
            print("logs of the machines:", FAILED)
