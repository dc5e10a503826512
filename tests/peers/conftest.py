# SPDX-License-Identifier: GPL-2.0-or-later
"""Servers that nobody here wrote: see services."""

import pytest

import certificates
from peers.services import Services


@pytest.fixture(scope="module")
def services():
    made = Services()
    yield made
    made.end()


@pytest.fixture(scope="session")
def certs(tmp_path_factory):
    """Certificates by name; "ca" has signed the others."""
    folder = tmp_path_factory.mktemp("certificates")
    made = {"ca": certificates.make(folder / "ca", "Test CA", ca=True)}
    made["good"] = certificates.make(folder / "good", authority=made["ca"],
                                     names="DNS:localhost,DNS:mail.example.com,IP:127.0.0.1")
    made["expired"] = certificates.make(folder / "expired", end=certificates.LONG_AGO, authority=made["ca"])
    return made
