# SPDX-License-Identifier: GPL-2.0-or-later
"""What the nodes of a lab are furnished with: the same files whichever way they came, built once."""
import os
import subprocess
import sys

import pytest

from . import files
from .conftest import LIBRARY, ROOT

CLUSTER = os.path.join(ROOT, "tests", "cluster")
sys.path.insert(0, CLUSTER)
import installed  # noqa: E402
from namespaces import LabError  # noqa: E402


@pytest.mark.parametrize("kind", installed.WAYS)
def test_the_same_files_whichever_way(kind, tmp_path):
    installed.install(str(tmp_path / "node"), kind, str(tmp_path / "kept"))
    there = {line for line in files.listing(str(tmp_path / "node")) if not line.endswith("/")}
    with open(files.GOLDEN) as golden:
        agreed = {line.rstrip("\n") for line in golden if not line.endswith("/\n")}
    # as Debian has it
    elsewhere = {line for line in agreed if "/share/man/" in line or line.endswith("CHANGELOG.md")}
    assert agreed - there <= (elsewhere if kind == "deb" else set())
    for line in agreed & there:
        for path, folder in ((f"{LIBRARY}/", "lib"), ("/usr/lib/ocf/resource.d/kopano/", "agents")):
            where = line.split(" ")[1]
            if where.startswith(path):
                assert (tmp_path / f"node{where}").read_bytes() == open(
                    f"{ROOT}/{folder}/{where[len(path):]}", "rb").read()
    modules = [line for line in there if line.startswith(f"644 {LIBRARY}") and line.endswith(".py")]
    compiled = [line for line in there if LIBRARY in line and line.endswith(".pyc")]
    assert len(compiled) == len(modules) > 0


def test_labs_that_begin_together_build_once(tmp_path):
    words = [sys.executable, "-c", "import sys; import installed; installed.install(*sys.argv[1:])"]
    labs = [subprocess.Popen([*words, str(tmp_path / f"node{count}"), "make", str(tmp_path / "kept")], cwd=CLUSTER)
            for count in range(3)]
    assert [lab.wait(timeout=60) for lab in labs] == [0, 0, 0]
    kept = {path.name: path.stat().st_ino for path in (tmp_path / "kept").iterdir()}
    assert len(kept) == 2 and "lock" in kept
    assert len({tuple(files.listing(str(tmp_path / f"node{count}"))) for count in range(3)}) == 1
    installed.install(str(tmp_path / "later"), "make", str(tmp_path / "kept"))
    assert {path.name: path.stat().st_ino for path in (tmp_path / "kept").iterdir()} == kept


def test_another_word_is_refused(tmp_path):
    with pytest.raises(LabError, match="INSTALLED=tarball: it is one of make, deb, rpm"):
        installed.install(str(tmp_path), "tarball")
