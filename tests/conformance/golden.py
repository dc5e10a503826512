#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""`make golden`: keeps what the agents say about themselves; a changed interface shows as a difference."""
import os

import agents

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden")

if __name__ == "__main__":
    for name in agents.NAMES:
        with open(os.path.join(FOLDER, name + ".xml"), "wb") as file:
            file.write(agents.printed(name))
