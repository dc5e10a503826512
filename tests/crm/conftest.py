# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures: the agents in place, and a loader for the files of crm/."""
import os
import shutil
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import sandbox  # noqa: E402
from offline import ROOT, Loader  # noqa: E402
from quick_pcs import Server  # noqa: E402


@pytest.fixture(scope="session")
def loader(tmp_path_factory):
    """Loads the files of crm/. The agents are in place: crmsh and pcs ask for their meta-data."""
    assert sandbox.inside()
    shutil.copytree(f"{ROOT}/agents", "/usr/lib/ocf/resource.d/kopano", dirs_exist_ok=True)
    shutil.copytree(f"{ROOT}/lib/kopano_ocf", "/usr/lib/ocf/lib/kopano/kopano_ocf", dirs_exist_ok=True)
    with Server(tmp_path_factory.mktemp("pcs")) as pcs:
        yield Loader(tmp_path_factory.mktemp("cibs"), pcs.bin)
