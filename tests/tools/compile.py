# SPDX-License-Identifier: GPL-2.0-or-later
"""compile.py PATH...: every Python file below the paths is one for this interpreter; nothing is written."""
import os
import sys

bad = 0
for top in sys.argv[1:]:
    for folder, folders, names in os.walk(top):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in names:
            path = os.path.join(folder, name)
            if name.endswith(".py") or ("." not in name and top.endswith("agents")):
                try:
                    with open(path, "rb") as source:
                        compile(source.read(), path, "exec", dont_inherit=True)
                except SyntaxError as err:
                    sys.stderr.write("%s:%s: %s\n" % (path, err.lineno, err.msg))
                    bad = 1
sys.exit(bad)
