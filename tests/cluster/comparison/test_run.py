# SPDX-License-Identifier: GPL-2.0-or-later
"""What the comparison makes of its figures."""
import re

import pytest

from comparison import run
from comparison.side import Outcome


def outcomes(manual, shipped, **more):
    return {"manual": Outcome(good_after=manual), "shipped": Outcome(good_after=shipped, **more)}


@pytest.mark.parametrize("name, measured, bad", [
    ("kill-server", outcomes(25, 5), False),
    ("kill-server", outcomes(None, 50), False),
    ("kill-server", outcomes(5, 14), False),            # the wait for a monitor may be 10 s longer by chance
    ("kill-server", outcomes(5, 16), True),
    ("power-cut", outcomes(5, 16), False),              # its declaration says why
    ("kill-server", outcomes(None, None), True),
    ("kill-server", outcomes(25, 5, wrong=["a mail"]), True),
    ("kill-server", None, True),
])
def test_what_counts_as_worse(name, measured, bad):
    assert run.worse([(name, measured)]) == ([name] if bad else [])


def test_rows_that_were_slower_are_told_with_their_reasons():
    rows = [run.row("kill-ical", outcomes(5, 5.9)), run.row("kill-dagent", outcomes(5, 9)),
            run.row("power-cut", outcomes(5, 13))]
    told = re.sub(r"\s+", " ", run.totals(rows).partition("## Slower here")[2])
    assert "kopano-ical" not in told
    assert "kopano-dagent killed: 4.0 s more. No more than the wait" in told
    assert "afterwards it boots: 8.0 s more. The dead node is fenced" in told


def test_the_page_says_of_its_rows_what_it_would_now():
    with open(run.DOCUMENT) as file:
        assert file.read() == run.page([]), "renew it with tests/cluster/comparison/run.py --write --nothing"
