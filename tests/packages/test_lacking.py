# SPDX-License-Identifier: GPL-2.0-or-later
"""A node where something is missing that the agents need: they name it, and what must work still works."""
import glob
import os

import pytest

from conformance import agents
from world import World

DAEMONS = [name for name in agents.NAMES if name != "webapp-health"]
HIDDEN = {"psutil": "/usr/lib/python3/dist-packages", "requests": "/usr/lib/python3/dist-packages",
          "ocf.py": "/usr/lib/ocf/lib/heartbeat"}
# an interpreter that says it is 3.5: the agent's file and the first of its library are read, and no more
OLD = ("import sys; sys.argv = sys.argv[1:]; sys.version_info = (3, 5, 3, 'final', 0)\n"
       "exec(compile(open(sys.argv[0]).read(), sys.argv[0], 'exec'), "
       "{'__name__': '__main__', '__file__': sys.argv[0]})")


def act(name, action, hide=None, empty=None, **env):
    """(exit code, lines on stderr, stdout) of an agent where a directory is empty."""
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HA_RSCTMP": "/tmp", "OCF_CHECK_LEVEL": "10", **env}
    words = [agents.path(name), action]
    if hide:
        words = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" "$1"; shift; exec "$@"', str(empty), hide] + words
    done = agents.run(*words, env=env)
    return done.returncode, done.stderr.decode().splitlines(), done.stdout


@pytest.mark.parametrize("name, lacks, package", [
    *((name, "psutil", "python3-psutil") for name in DAEMONS), ("webapp-health", "requests", "python3-requests"),
    *((name, "ocf.py", "resource-agents") for name in agents.NAMES)])
def test_it_names_the_package(name, lacks, package, tmp_path):
    hide = HIDDEN[lacks]
    code, said, _ = act(name, "start", hide, tmp_path)
    assert code == 5
    assert len(said) == 1 and said[0].startswith("ocf-exit-reason:") and f"install the package {package}" in said[0]
    code, said, _ = act(name, "validate-all", hide, tmp_path)
    assert code == 5
    assert any(line.startswith("ERROR: ") and package in line for line in said)
    assert act(name, "meta-data", hide, tmp_path) == (0, [], agents.printed(name))
    assert act(name, "monitor", hide, tmp_path)[0] == 7
    assert act(name, "stop", hide, tmp_path)[0] == 0
    assert act(name, "usage", hide, tmp_path)[:2] == (0, [])
    assert act(name, "reload-agent", hide, tmp_path)[0] == 1, "nothing runs"
    assert act(name, "promote", hide, tmp_path)[0] == 3


@pytest.mark.parametrize("lacks", HIDDEN)
def test_what_runs_is_watched_and_stopped_all_the_same(lacks, tmp_path):
    """A package was removed from under running daemons: monitor, a failure's reason and stop do without it."""
    empty, folder = tmp_path / "empty", tmp_path / "agents"
    empty.mkdir()
    folder.mkdir()
    for name in ("server", "gateway"):
        script = folder / name
        script.write_text(f"#!/bin/sh\nexec unshare --mount sh -c 'mount --bind {empty} {HIDDEN[lacks]}; exec "
                          f"{agents.path(name)} \"$@\"' {name} \"$@\"\n")
        script.chmod(0o755)
    with World(11) as world:
        def lacking(name, action, **more):
            return world.agent(name, action, agents_dir=str(folder), **more)
        world.up("server", "gateway")
        for name in ("server", "gateway"):
            for action in ("monitor", "reload", "reload-agent"):
                assert lacking(name, action, level=20).rc == 0, (name, action)
        world.freeze("gateway")
        assert lacking("gateway", "monitor", level=20, interval=10).rc == 1
        world.thaw("gateway")
        for name in ("gateway", "server"):
            assert lacking(name, "stop", timeout=60).rc == 0
            assert not world.pids(name)
            assert lacking(name, "start").rc == 5


@pytest.mark.parametrize("name", agents.NAMES)
def test_an_ocf_py_elsewhere_will_do(name, tmp_path):
    """OCF_ROOT may name it; a wrong one is no reason not to start."""
    for env in ({"OCF_ROOT": "/nonexistent"}, {"OCF_FUNCTIONS_DIR": "/nonexistent"}):
        _, said, _ = act(name, "start", OCF_RESKEY_config="/nonexistent", OCF_RESKEY_attribute="", **env)
        assert "ocf.py" not in "".join(said)
        act(name, "stop")


@pytest.mark.parametrize("action", ["meta-data", "start", "stop", "monitor"])
@pytest.mark.parametrize("name", agents.NAMES)
def test_an_old_python_says_so_in_one_line(name, action):
    done = agents.run("/usr/bin/python3", "-IS", "-c", OLD, agents.path(name), action, env={})
    assert (done.returncode, done.stdout) == (5, b"")
    said, = done.stderr.decode().splitlines()
    assert said.startswith("ocf-exit-reason:Python 3.5 (/usr/bin/python3") and said.endswith("they need 3.6 or newer")


@pytest.mark.parametrize("name", agents.NAMES)
def test_python_2_says_so_in_one_line(name):
    found = glob.glob(os.path.expanduser("~/.pyenv/versions/2.7*/bin/python2.7")) + glob.glob("/usr/bin/python2.7")
    if not found:
        pytest.skip("no Python 2 here")
    done = agents.run(found[0], "-B", agents.path(name), "monitor", env={})
    assert done.returncode == 5
    said, = done.stderr.decode().splitlines()
    assert said.startswith("ocf-exit-reason:Python 2.7 (") and said.endswith("they need 3.6 or newer")
