# SPDX-License-Identifier: GPL-2.0-or-later
"""The case file for ocft, run by ocft on the agents as they are installed."""
import os
import re
import shutil
import subprocess

import pytest

from conformance.agents import ROOT
from world import World


@pytest.mark.long
def test_ocft(tmp_path):
    with open(ROOT + "/extras/ocft-kopano-server") as file:
        cases = re.findall('^CASE "(.*)"', file.read(), re.MULTILINE)
    shutil.copy(ROOT + "/extras/ocft-kopano-server", tmp_path / "kopano-server")
    subprocess.run(["make", "-s", "-C", ROOT, "install-agents"], check=True, timeout=60)
    with World(11) as world:
        world.database.start()
        env = dict(os.environ, PATH=world.sbin + ":/usr/sbin:/usr/bin:/sbin:/bin", HA_RSCTMP=world.rsctmp)
        said = ""
        for words in (["make", "-d", str(tmp_path)], ["test", "-v"]):
            done = subprocess.run(["ocft", *words, "kopano-server"], env=env, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=150, check=True)
            said += re.sub(r"\x1b\[\d*m", "", done.stdout.decode())
        assert re.findall(r"^Starting 'kopano-server' case \d+ '(.*)':", said, re.MULTILINE) == cases
        verdicts = re.findall("^Checking return value: +(.*)", said, re.MULTILINE)
        assert len(verdicts) > len(cases)
        assert [verdict for verdict in verdicts if not verdict.startswith("OK")] == [], said
    subprocess.run(["rm", "-r", "/usr/lib/ocf/resource.d/kopano", "/usr/lib/ocf/lib/kopano"], check=True, timeout=60)
