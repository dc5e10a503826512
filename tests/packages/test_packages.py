# SPDX-License-Identifier: GPL-2.0-or-later
"""RPM and Debian packages, built twice by the distributions' tools; what is in them, and what they do on a machine."""
import glob
import hashlib
import os
import re
import subprocess
import tempfile

import pytest

from conformance import page
from world import World, wait_for

from . import files
from .conftest import LIBRARY, good, older, one, run, version
from .files import ROOT

pytestmark = pytest.mark.xdist_group("packages")

AGENTS = "/usr/lib/ocf/resource.d/kopano"
NAMES = ("server", "dagent", "spooler", "gateway", "ical", "monitor", "webapp-health")
TESTS_OF_A_USER = [f"tests/unit/test_{name}.py" for name in (
    "action", "kopano_cfg", "lifecycle", "state", "validate", "validate_around", "validate_firewall")]


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


# ---- the build -------------------------------------------------------------------------------------------

def test_the_tarball_is_the_same_twice(tarballs):
    assert digest(tarballs[0]) == digest(tarballs[1])
    names = good("tar", "-tzf", tarballs[0]).splitlines()
    assert not [name for name in names if re.search(r"__pycache__|/build/|\.git|\.pyc$", name)]


@pytest.mark.parametrize("pattern", ["rpm/RPMS/noarch/*.rpm", "rpm/SRPMS/*.src.rpm", "deb/*.deb", "deb/*.dsc",
                                     "deb/*.tar.xz"])
def test_the_packages_are_the_same_twice(builds, pattern):
    first, second = (glob.glob(f"{build}/build/{pattern}") for build in builds)
    assert [os.path.basename(path) for path in first] == [os.path.basename(path) for path in second] != []
    assert digest(first[0]) == digest(second[0])


def test_the_check_of_the_packages_ran_tests(builds):
    for kind in ("rpm", "deb"):
        with open(f"{builds[0]}/build/{kind}/log") as log:
            assert re.search(r"^\d+ passed", log.read(), re.MULTILINE), kind


@pytest.mark.long
@pytest.mark.timeout(400)
def test_an_ordinary_user_builds_it(tarballs):
    """With the tests that know who runs them; in a container that user need not even have a name."""
    with tempfile.TemporaryDirectory() as place:
        good("tar", "-xzf", tarballs[0], "-C", place, "--no-same-owner")
        good("chown", "-R", "54321:54321", place)
        source, = glob.glob(f"{place}/*")
        said = good("setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "make", "-s", "-C", source, "deb",
                    timeout=380, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": place, "TMPDIR": place,
                                      "CHECK": " ".join(TESTS_OF_A_USER)})
        assert ".deb\n" in said
        with open(f"{source}/build/deb/log") as log:
            assert int(re.search(r"^(\d+) passed", log.read(), re.MULTILINE)[1]) > 500


def test_rpmlint(builds, rpm):
    said = good("rpmlint", "-c", ROOT + "/rpm/rpmlint.toml", rpm, one(builds, "rpm/SRPMS/*.rpm"),
                one(builds, "rpm/SPECS/*.spec"))
    assert " 0 errors, 0 warnings" in said, said


def test_lintian(builds):
    code, said = run("lintian", "--allow-root", "--fail-on", "error,warning", one(builds, "deb/*.changes"))
    assert (code, re.findall("^[EW]: .*", said, re.MULTILINE)) == (0, []), said


def test_they_are_small(rpm, deb):
    assert os.path.getsize(rpm) < 300000
    assert os.path.getsize(deb) < 300000


# ---- what is in them -------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def golden():
    """{path: mode} as agreed; directories end with /, links tell their target."""
    with open(files.GOLDEN) as file:
        return {path: mode for mode, path in (line.rstrip("\n").split(" ", 1) for line in file)}


def test_what_is_installed_is_what_was_agreed(golden, tmp_path):
    found = {path: mode for mode, path in (line.split(" ", 1) for line in files.installed(str(tmp_path)))}
    assert found == golden, "wanted? then `make golden`"


def test_uninstall_leaves_nothing(tmp_path):
    files.installed(str(tmp_path))
    good("make", "-s", "-C", ROOT, "uninstall", f"DESTDIR={tmp_path}")
    assert [line for line in files.listing(str(tmp_path)) if not line.endswith("/")] == []
    assert not [line for line in files.listing(str(tmp_path)) if "kopano" in line]


def test_links_of_the_installed_documents(tmp_path):
    """Those in one document to another lead to one that is installed, wherever its copy lies."""
    files.installed(str(tmp_path))
    found = {}
    for line in files.listing(str(tmp_path)):
        path = line.split(" ", 1)[1]
        if path.endswith(".md"):
            with open(f"{tmp_path}{path}") as document:
                text = document.read()
            links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
            found[path] = [link for link in links if link and "://" not in link]
    doc = "/usr/share/doc/resource-agents-kopano"
    for path, links in found.items():
        for link in links:
            there = os.path.normpath(os.path.join(os.path.dirname(path), link))
            assert os.path.isfile(f"{tmp_path}{there}"), f"{path}: {link}"
            assert link.startswith("/") or path.startswith(doc), "who copies crm/ loses it"
    assert {"guide.md", "drills.md", "procedures.md", "migration.md"} <= set(found[doc + "/README.md"])
    assert found["/usr/share/resource-agents-kopano/crm/README.md"] == [doc + "/guide.md"]


def test_the_guides_copy_of_the_configurations(tmp_path):
    """The guide's line for whoever has installed a package: whole files, no links that lead nowhere."""
    files.installed(str(tmp_path))
    with open(ROOT + "/docs/guide.md") as guide:
        line, = re.findall("^    (cp -rL /usr/share/.*)$", guide.read(), re.MULTILINE)
    (tmp_path / "here").mkdir()
    good("sh", "-ec", line.replace("/usr/share", f"{tmp_path}/usr/share"), cwd=tmp_path / "here")
    copied = [name for name in files.listing(str(tmp_path / "here")) if not name.endswith("/")]
    assert len(copied) > 70 and not [name for name in copied if name.startswith("link")]
    assert "644 /crm/drbd/040-kopano.crm" in copied and "644 /crm/node/etc/hosts" in copied


def modules(golden):
    return [path for path in golden if path.startswith(LIBRARY) and path.endswith(".py")]


def test_what_is_in_the_rpm(golden, rpm):
    lines = good("rpm", "-qp", "--qf", "[%{FILEMODES:octal} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILENAMES}\n]", rpm)
    found = {}
    for line in lines.splitlines():
        mode, owner, path = line.split(" ", 2)
        if mode.isdigit():              # Debian's rpm warns
            assert owner == "root:root", line
            found[re.sub(r"cpython-\d+", "cpython-XY", path)] = mode
    wanted = {path.partition(" -> ")[0].rstrip("/") for path in golden}
    # directories that every system has
    wanted -= {"/usr", "/usr/lib", "/usr/sbin", "/usr/share", "/usr/share/doc", "/usr/share/man",
               "/usr/share/man/man7", "/usr/share/man/man8"}
    for path in modules(golden):
        folder, name = os.path.split(path)
        wanted |= {f"{folder}/__pycache__", f"{folder}/__pycache__/{name[:-3]}.cpython-XY.pyc"}
    licence = f"/usr/share/licenses/resource-agents-kopano-{version()}"
    assert set(found) == wanted | {licence, licence + "/LICENSE"}
    for path, mode in golden.items():
        if mode != "link" and path.rstrip("/") in found:
            assert found[path.rstrip("/")][-4:].lstrip("0") == mode, path


def test_what_the_rpm_requires(rpm):
    needs = set(good("rpm", "-qp", "--requires", rpm).splitlines())
    assert {need for need in needs if not need.startswith(("rpmlib(", "rpm: "))} == {
        "/bin/sh", "/usr/bin/python3", "python(abi) >= 3.6", "python3-psutil", "python3-requests",
        "resource-agents >= 4.2.0"}


def test_what_is_in_the_deb(golden, deb):
    found = {}
    for line in good("dpkg-deb", "--contents", deb).splitlines():
        _, owner, _, _, _, path = line.split(None, 5)
        assert owner == "root/root"
        found[path.partition(" -> ")[0][1:].rstrip("/")] = path
    wanted = {path.partition(" -> ")[0].rstrip("/") for path in golden} | {""}
    doc = "/usr/share/doc/resource-agents-kopano"
    wanted = {path + ".gz" if re.search(r"/man\d/", path) else path for path in wanted} - {doc + "/CHANGELOG.md"}
    wanted |= {doc + "/changelog.gz", doc + "/copyright", "/usr/share/lintian", "/usr/share/lintian/overrides",
               "/usr/share/lintian/overrides/resource-agents-kopano", "/usr/share/python3",
               "/usr/share/python3/runtime.d", "/usr/share/python3/runtime.d/resource-agents-kopano.rtupdate"}
    assert set(found) == wanted


# ---- RPM in an empty tree --------------------------------------------------------------------------------

SYSTEMD, UNITS = "etc/systemd/system", "/usr/lib/systemd/system"
# links below /etc; of these daemons server (named once), spooler and gateway are started at boot, for:
AT_BOOT = {
    f"{SYSTEMD}/multi-user.target.wants/kopano-server.service": f"{UNITS}/kopano-server.service",
    f"{SYSTEMD}/graphical.target.requires/kopano-server.service": f"{UNITS}/kopano-server.service",
    f"{SYSTEMD}/multi-user.target.wants/kopano-gateway.service": f"{UNITS}/kopano-gateway.service",
    f"{SYSTEMD}/multi-user.target.wants/kopano-search.service": f"{UNITS}/kopano-search.service",
    # scripts of init, the second with a unit of that name
    "etc/rc2.d/S20kopano-spooler": "../init.d/kopano-spooler",
    "etc/rc5.d/S20kopano-spooler": "../init.d/kopano-spooler",
    "etc/rc3.d/S20kopano-ical": "../init.d/kopano-ical", f"{SYSTEMD}/kopano-ical.service": "/etc/hostname",
    "etc/rc1.d/S20kopano-dagent": "../init.d/kopano-dagent", "etc/rc3.d/K20kopano-dagent": "../init.d/kopano-dagent",
    # masked
    f"{SYSTEMD}/multi-user.target.wants/kopano-monitor.service": f"{UNITS}/kopano-monitor.service",
    f"{SYSTEMD}/kopano-monitor.service": "/dev/null", "etc/rc3.d/S20kopano-monitor": "../init.d/kopano-monitor",
}
NOTICE = [
    "resource-agents-kopano: systemd starts these at boot: kopano-server.service kopano-spooler.service "
    "kopano-gateway.service",
    "On nodes of a cluster let Pacemaker alone start them, before it gets its resources:",
    "    systemctl disable --now kopano-server.service kopano-spooler.service kopano-gateway.service"]


@pytest.fixture
def tree(tmp_path):
    """An empty tree where systemd would start some of Kopano's daemons."""
    for path, target in AT_BOOT.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).symlink_to(target)
    return str(tmp_path)


def contents(top):
    """Paths in a tree, without what rpm and the machine keep for themselves."""
    return {line.split(" ", 1)[1].partition(" -> ")[0].rstrip("/") for line in files.listing(top)
            if not re.match(r"\S+ /(root|etc|var|run|tmp)/", line)}


def test_rpm_in_an_empty_tree(rpm, tree):
    def query(*words):
        code, said = run("rpm", "--root", tree, *words)
        return code, [line for line in said.splitlines() if not line.startswith("rpm: ")]

    before = files.listing(tree + "/etc")
    code, said = query("--nodeps", "-i", rpm)
    assert code == 0
    assert said == NOTICE
    assert files.listing(tree + "/etc") == before, "it changes nothing"
    assert query("--verify", "--nodeps", "resource-agents-kopano") == (0, [])

    env = {"PATH": "/usr/bin:/bin", "OCF_RESKEY_config": "/nonexistent", "HA_RSCTMP": tree + "/run",
           "OCF_CHECK_LEVEL": "10"}
    for name in NAMES:
        codes = {action: run(f"{tree}{AGENTS}/{name}", action, env=env)[0]
                 for action in ("meta-data", "monitor", "validate-all", "start", "stop")}
        assert codes == {"meta-data": 0, "monitor": 7, "stop": 0,
                         "validate-all": 5 if name != "webapp-health" else 0,
                         "start": 5 if name != "webapp-health" else 0}, name
    assert query("--verify", "--nodeps", "resource-agents-kopano") == (0, [])
    owned = set(query("-ql", "resource-agents-kopano")[1])
    assert {path for path in contents(tree) if path.startswith(LIBRARY)} <= owned, "a stray file"

    # a newer Python than that of the build was here; and what the agents remember, beside others' memories
    os.makedirs(tree + "/run/resource-agents")
    for path in (f"{LIBRARY}/kopano_ocf/__pycache__/action.cpython-399.pyc",
                 "/run/resource-agents/kopano-ocf-server-x", "/run/resource-agents/apache-x"):
        with open(tree + path, "w"):
            pass
    assert query("-e", "resource-agents-kopano") == (0, [])
    assert os.listdir(tree + "/run/resource-agents") == ["apache-x"]
    assert {path for path in contents(tree) if "kopano" in path or "ocf" in path} == set()
    assert files.listing(tree + "/etc") == before


def test_what_another_version_has_compiled_goes(rpm, tree):
    """A module whose source has the same time and size in both, compiled at its first use."""
    good("rpm", "--root", tree, "--nodeps", "-i", rpm)
    words = [f"{tree}{AGENTS}/server", "meta-data"]
    before = good(*words)
    source = f"{tree}{LIBRARY}/kopano_ocf/metadata.py"
    with open(source) as file:
        text = file.read()
    seen = os.stat(source)
    assert "<longdesc" in text
    for content in (text.replace("<longdesc", "<another_"), text):
        with open(source, "w") as file:
            file.write(content)
        os.utime(source, ns=(seen.st_atime_ns, seen.st_mtime_ns))
        if content != text:
            good("/usr/bin/python3", "-m", "py_compile", source)
    assert "<another_" in good(*words), "what the scriptlet is for"
    compiled = set(glob.glob(f"{tree}{LIBRARY}/**/*.pyc", recursive=True))
    good("rpm", "--root", tree, "--nodeps", "-U", "--replacepkgs", rpm)
    left = set(glob.glob(f"{tree}{LIBRARY}/**/*.pyc", recursive=True))
    assert len(left) == 8 and compiled - left
    assert good(*words) == before
    assert run("rpm", "--root", tree, "--verify", "--nodeps", "resource-agents-kopano")[0] == 0


def test_the_shebang_is_one_that_distributions_leave_alone(rpm, tree):
    """Fedora's and RHEL's brp-mangle-shebangs change `env`, relative and versionless interpreters."""
    good("rpm", "--root", tree, "--nodeps", "-i", rpm)
    for path in [f"{tree}{AGENTS}/{name}" for name in NAMES] + [tree + "/usr/sbin/kopano-ocf-report"]:
        with open(path, "rb") as file:
            assert file.readline() == b"#!/usr/bin/python3 -IS\n"


# ---- Debian's package, installed with apt ----------------------------------------------------------------

class Machine:
    """The sandbox with a /usr of its own, so that something can be installed; all else is the sandbox's.

    Its daemons can be managed from here, and from there.
    """
    SETUP = """
        mkdir -p "$0/usr" "$0/work" "$0/sbin"
        mount --rbind /usr/local/sbin "$0/sbin"
        mount -t overlay overlay -o "lowerdir=/usr,upperdir=$0/usr,workdir=$0/work" /usr
        mount --rbind "$0/sbin" /usr/local/sbin
        echo ready; exec sleep infinity"""

    def __init__(self, place):
        self.place = str(place)
        good("mount", "-t", "tmpfs", "tmpfs", self.place)
        self.holder = subprocess.Popen(["unshare", "--mount", "sh", "-ec", self.SETUP, self.place],
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self.holder.stdout.readline() == b"ready\n"

    def close(self):
        self.holder.kill()
        self.holder.wait()
        self.holder.stdout.close()
        run("umount", "--lazy", self.place)

    def __call__(self, *words, **more):
        """(exit code, what was said) of a command on it"""
        return run("nsenter", "--mount", f"--target={self.holder.pid}", "--", *words, **more)

    def apt(self, *words):
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
        code, said = self("apt-get", "-q", "-y", "-o", "Dpkg::Use-Pty=0", "-o", "Debug::NoLocking=true",
                          "--no-install-recommends", "--allow-downgrades", *words, env=env)
        assert code == 0, said
        return said

    def kopano_files(self):
        """What of the package is there."""
        os.makedirs("/run/resource-agents", exist_ok=True)
        code, said = self("find", "/usr/lib/ocf", "/usr/share", "/usr/sbin", "/run/resource-agents",
                          "-path", "*kopano*")
        assert code == 0
        return said.splitlines()


@pytest.fixture
def machine(tmp_path):
    found = Machine(tmp_path)
    for path, target in AT_BOOT.items():
        os.makedirs(os.path.dirname("/" + path), exist_ok=True)
        os.symlink(target, "/" + path)
    yield found
    for path in AT_BOOT:
        os.unlink("/" + path)
    found.close()


def test_deb_with_apt(deb, machine, tmp_path_factory):
    """Installed, upgraded while a daemon runs and is monitored all the time, verified, removed."""
    before = set(machine.kopano_files())
    said = machine.apt("install", older(deb, tmp_path_factory.mktemp("older")))
    assert "\n".join(NOTICE) + "\n" in said
    with World(11) as world:
        world.database.start()
        env = {"PATH": world.sbin + ":/usr/sbin:/usr/bin:/sbin:/bin", "OCF_ROOT": "/usr/lib/ocf",
               "OCF_RESOURCE_INSTANCE": "kopano-server", "HA_RSCTMP": world.rsctmp, "OCF_CHECK_LEVEL": "20",
               "OCF_RESKEY_CRM_meta_timeout": "60000"}

        def act(action):
            return machine(f"{AGENTS}/server", action, env=env)

        assert act("start")[0] == 0
        assert act("monitor") == (0, "")
        daemon = world.pids("server")
        env["OCF_RESKEY_CRM_meta_interval"] = "10000"
        upgrade = subprocess.Popen(
            ["nsenter", "--mount", f"--target={machine.holder.pid}", "--", "apt-get", "-q", "-y", "-o",
             "Dpkg::Use-Pty=0", "install", deb], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env=dict(os.environ, DEBIAN_FRONTEND="noninteractive"))
        seen = [act("monitor")]
        while upgrade.poll() is None:
            seen.append(act("monitor"))
        said = upgrade.communicate()[0].decode()
        assert upgrade.returncode == 0, said
        assert "systemd starts" not in said, "told once, on installation"
        wait_for(lambda: act("monitor") == (0, ""), 5, "a good monitor")
        # in the moment when files are replaced an agent may not find itself whole, and says that it is degraded
        assert {code for code, _ in seen} <= {0, 126, 127, 190}, seen
        assert seen.count((0, "")) >= len(seen) - 3, seen
        assert world.pids("server") == daemon, "not restarted"
        assert act("stop")[0] == 0
    assert machine("dpkg", "--verify", "resource-agents-kopano") == (0, "")
    there = machine.kopano_files()
    assert not [path for path in there if "bygone" in path]
    assert any("/action.cpython-" in path for path in there), "byte-compiled where it is installed"
    with open("/run/resource-agents/kopano-ocf-server-x", "w"):
        pass
    machine.apt("remove", "resource-agents-kopano")
    assert set(machine.kopano_files()) <= before


@pytest.mark.timeout(400)
def test_ocf_tester_on_what_apt_has_installed(deb, machine):
    machine.apt("install", deb)
    with World(11) as world:
        world.database.start()
        env = {"PATH": world.sbin + ":/usr/sbin:/usr/bin:/sbin:/bin", "HA_RSCTMP": world.rsctmp}
        with page.served():
            for name in NAMES:
                if name != "server":
                    world.up("server")
                words = ["-o", "attribute="] if name == "webapp-health" else []     # there is no cluster to keep it
                code, said = machine("ocf-tester", "-n", "kopano", *words, f"{AGENTS}/{name}", env=env, timeout=150)
                assert code == 0 and f"{AGENTS}/{name} passed all tests" in said, said
    machine.apt("remove", "resource-agents-kopano")
