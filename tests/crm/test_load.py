# SPDX-License-Identifier: GPL-2.0-or-later
"""Every file of crm/ loads: with crmsh without a word of complaint, with pcs to an equal CIB."""
import glob
import os

import pytest

from offline import BLIND_FAITH, CAROL, CRM, SEQUENCES, essence, run

pytestmark = pytest.mark.xdist_group("crm")


def test_every_file_is_in_a_sequence():
    steps = {step for _, sequence in SEQUENCES.values() for step in sequence}
    for ending in ("crm", "pcs"):
        there = {os.path.realpath(file) for file in glob.glob(f"{CRM}/*/*.{ending}")}
        assert there == {os.path.realpath(f"{CRM}/{step}.{ending}") for step in steps if step != CAROL}


@pytest.mark.parametrize("name", SEQUENCES)
def test_crmsh_has_nothing_to_say(loader, name):
    for step, cib in loader.all(name, "crm"):
        # a single node has no fencing, and crmsh says so each time
        assert loader.words[cib] in ("", BLIND_FAITH if name == "virtual-machine" else ""), step
        assert run("crm_verify", "-V", "-x", cib) == "", step


@pytest.mark.parametrize("name", ["drbd", "shared-storage", "virtual-machine"])
def test_a_deployment_loads_at_once(loader, name):
    cib, words = loader.at_once(name)
    assert words in ("", BLIND_FAITH if name == "virtual-machine" else "")
    assert essence(cib) == essence(loader.cib(name, "crm"))


# those that are left out differ from another in a file of the same form
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.long] if name in (
    "fencing-virsh", "fencing-xvm", "fencing-pdu", "lan", "arbiter-shared") else []) for name in SEQUENCES])
def test_pcs_makes_an_equal_cib(loader, name):
    for (step, by_crm), (_, by_pcs) in zip(loader.all(name, "crm"), loader.all(name, "pcs")):
        assert essence(by_pcs) == essence(by_crm), step
        assert "rror" not in loader.words[by_pcs], step
