# SPDX-License-Identifier: GPL-2.0-or-later
"""What `make test` takes by turns, where one case is as good as the other: all of them are in `LONG=all make test`."""
import os
from zlib import crc32

LONG = os.environ.get("LONG", "")


def has_turn(item, choices, parameter="generation"):
    """Whether a test's value of this parameter is the one whose turn it is; another with each of its other cases."""
    case = item.callspec
    others = [number for name, number in case.indices.items() if name != parameter]
    return case.params[parameter] == choices[(sum(others) + crc32(item.originalname.encode())) % len(choices)]


def fewer(count):
    """So many examples of a property: a third of it, unless all tests are wanted."""
    return count if LONG else max(4, count // 3)
