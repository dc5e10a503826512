# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts for the tests of validate-all."""
import sys
from unittest import mock

import pytest

try:
    import hypothesis
    # how fast examples come says more of the machine than of the test
    hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
    hypothesis.settings.load_profile("busy")
except ImportError:             # RHEL has none: the tests that it would feed are skipped, the others run
    skipped = pytest.mark.skip(reason="no hypothesis here")
    sys.modules["hypothesis"] = mock.MagicMock(**{
        "given.return_value": skipped, "settings.return_value": lambda test: test})

from kopano_ocf import address, validate_host, validate_kopano  # noqa: E402

from .tree import ADDRESSES, NodeTree, Tree  # noqa: E402


@pytest.fixture
def bare(monkeypatch):
    """Nothing of the machine that runs the tests counts."""
    # whether this Python has psutil is no matter of the host under test
    monkeypatch.setattr(validate_host, "CHECKS",
                        [entry for entry in validate_host.CHECKS if entry[0] is not validate_kopano.modules])
    monkeypatch.setattr(validate_kopano, "_servers", lambda holding="": [])


@pytest.fixture
def tree(tmp_path, bare):
    """A host with Kopano, and nothing of a cluster."""
    return Tree(tmp_path)


@pytest.fixture
def node(tmp_path, bare, monkeypatch):
    """Node bob."""
    monkeypatch.setattr(address, "is_local", lambda place: place in ADDRESSES["bob"] or place.startswith("127."))
    return NodeTree(tmp_path)
