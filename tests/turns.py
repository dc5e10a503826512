# SPDX-License-Identifier: GPL-2.0-or-later
"""What `make test` takes by turns, where one case is as good as the other: all of them are in `LONG=all make test`."""
import os
from zlib import crc32

LONG = os.environ.get("LONG", "")


def has_turn(item):
    """Whether it is the turn of a test's generation, 8 or 11: another with each of its other cases."""
    others = [number for name, number in item.callspec.indices.items() if name != "generation"]
    return item.callspec.params["generation"] == (8, 11)[(sum(others) + crc32(item.originalname.encode())) % 2]


def fewer(count):
    """So many examples of a property: a third of it, unless all tests are wanted."""
    return count if LONG else max(4, count // 3)
