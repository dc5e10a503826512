# SPDX-License-Identifier: GPL-2.0-or-later
"""monitor's verdicts on a daemon's own state: process, pid file, endpoints."""
import contextlib
import os
import signal
import subprocess
import time

import pytest

import certificates
from world import DAEMONS, wait_for

from .looks import LISTENING, Mta, connects, forget, lines, monitors, says, serve, start, state_of

every_daemon = pytest.mark.parametrize("name", DAEMONS)
FAR = "198.51.100.7"        # an address that comes and goes
FORKING = ("dagent", "gateway", "ical", "spooler")


def probe(world, name, rc, *words, **how):
    """What Pacemaker asks before it starts anything."""
    return says(world.agent(name, "monitor", interval=0, **how), rc, *words, probe=True)


@contextlib.contextmanager
def address(place=FAR):
    """An address that this host has for a while; yields how to take it away."""
    subprocess.run(["ip", "address", "add", place + "/32", "dev", "lo"], check=True)

    def leave():
        subprocess.run(["ip", "address", "del", place + "/32", "dev", "lo"], check=True)

    try:
        yield leave
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            subprocess.run(["ip", "address", "del", place + "/32", "dev", "lo"], check=True, stderr=subprocess.DEVNULL)


# ---- no process of ours: 7

@every_daemon
def test_no_process_is_7(world, name):
    probe(world, name, 7)
    for level in (0, 20):
        says(world.agent(name, "monitor", level=level), 7)


@every_daemon
def test_what_a_crash_leaves_behind_is_7(site, name):
    left = {"/run/kopano/server.sock"}
    if site.generation < 10:
        left.add("/run/kopano/%s.pid" % name)
    pid = site.signal(name, signal.SIGKILL)
    wait_for(lambda: site.gone(name) and not state_of(pid))
    assert all(os.path.exists(path) for path in left)
    says(site.agent(name, "monitor"), 7)
    says(site.agent(name, "monitor", level=0), 7)
    probe(site, name, 7)


@every_daemon
def test_a_probe_where_nothing_is_installed_is_7(world11, name):
    nowhere = {"binary": "/srv/nowhere/kopano", "config": "/srv/nowhere/%s.cfg" % name, "pidfile": "/srv/nowhere/pid"}
    probe(world11, name, 7, params=nowhere)
    os.unlink(world11.config(name))
    probe(world11, name, 7, level=20, env={"PATH": "/usr/bin:/bin", "HA_RSCTMP": "/srv/nowhere/tmp"})


# ---- pid files prove nothing

@every_daemon
def test_a_pid_file_that_names_a_stranger_or_a_dead_pid_is_7(world, name):
    stranger = subprocess.Popen(["sleep", "1000"])
    dead = subprocess.Popen(["true"])
    dead.wait()
    try:
        for pid in (stranger.pid, dead.pid):
            for path in {"/run/kopano/%s.pid" % name, "/run/other.pid"}:
                with open(path, "w", encoding="ascii") as file:
                    file.write("%d\n" % pid)
            params = {"pidfile": "/run/other.pid"} if world.generation > 10 else {}
            says(world.agent(name, "monitor", params=params), 7)
            says(world.agent(name, "stop", params=params), 0)
        assert stranger.poll() is None, "somebody else's process was ended"
    finally:
        stranger.kill()
        stranger.wait()


@every_daemon
def test_a_lost_or_wrong_pid_file_changes_nothing_while_the_process_lives(site, name):
    path = "/run/kopano/%s.pid" % name
    kept = lines(path)
    for text in (None, "", "%d\n" % os.getpid(), "999999\n", "no number"):
        if text is not None:
            with open(path, "w", encoding="ascii") as file:
                file.write(text)
        elif os.path.exists(path):
            os.unlink(path)
            says(site.agent(name, "monitor"), 0)
        forget(site)
        says(site.agent(name, "monitor"), 0)
    if kept:
        with open(path, "w", encoding="ascii") as file:
            file.write(kept[0] + "\n")
    else:
        os.unlink(path)


@every_daemon
def test_a_daemon_started_by_hand_is_found_without_its_pid_file(site, name):
    site.kill_daemon(name)
    site.up(name)                   # generation 8: as its init script does, in the background
    with contextlib.suppress(FileNotFoundError):
        os.unlink("/run/kopano/%s.pid" % name)
    forget(site)
    probe(site, name, 0)
    says(site.agent(name, "stop", timeout=60), 0)
    assert site.gone(name)


# ---- dead, but not gone

@pytest.mark.parametrize("name", FORKING)
def test_children_that_outlive_the_main_process_are_1_and_stop_ends_them(world, name):
    world.write_config(name, process_model="fork")
    serve(world, "server", name)
    with contextlib.ExitStack() as stack:
        if name == "spooler":
            world._standin("submit")
            mta = stack.enter_context(Mta())
            world.submit("alice", "bob@example.org", "on its way")
            mta.wait_for_client()
        elif name == "ical":
            wait_for(lambda: len(world.pids(name)) == 2)
            world.hold("caldav", greeting=False).send(b"OPTIONS / HT")
            wait_for(lambda: len(world.pids(name)) == 3)
        else:
            world.hold("lmtp" if name == "dagent" else "imap")
        children = set(world.pids(name))
        children.discard(world.signal(name, signal.SIGKILL))
        assert children, "no child"
        wait_for(lambda: world.main_pid(name) in children or not world.pids(name))
        assert world.pids(name), "the child is gone too"
        says(world.agent(name, "monitor", level=0), 1, "child")
        says(world.agent(name, "monitor"), 1, "child")
        forget(world)
        probe(world, name, 1, "child")
        if name == "spooler":
            mta.greet()
        says(world.agent(name, "stop", timeout=60), 0)
        assert world.gone(name)
        probe(world, name, 7)


@every_daemon
def test_a_stopped_process_is_1(site, name):
    pid = site.main_pid(name)
    site.freeze(name)
    for level in (0, 10, 20):
        says(site.agent(name, "monitor", level=level), 1, "stopped", str(pid))
    forget(site)
    probe(site, name, 1, "stopped")
    site.thaw(name)
    wait_for(lambda: site.agent(name, "monitor", timeout=5).rc == 0)
    assert site.main_pid(name) == pid


@every_daemon
def test_a_zombie_is_1(site, name):
    site.kill_daemon(name)
    started = site.start_daemon(name, reap=False)
    wait_for(lambda: site.agent(name, "monitor", level=0).rc == 0)
    for pid in site.pids(name):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: state_of(started.pid) == "Z")
    says(site.agent(name, "monitor", level=0), 1, "zombie")
    says(site.agent(name, "monitor"), 1, "zombie")
    started.reap()
    wait_for(lambda: not state_of(started.pid))
    says(site.agent(name, "monitor"), 7)


# ---- endpoints

@every_daemon
def test_running_is_0_at_every_depth(site, name):
    for level in (None, 0, 10, 20):
        assert says(site.agent(name, "monitor", level=level), 0).err == ""
    assert probe(site, name, 0).err == ""
    assert site.agent(name, "status").rc == 0


@pytest.mark.parametrize("what", (("hang",), ("garbage",), ("half",), ("half", "close"), ("close",), ("refuse",)),
                         ids="-".join)
def test_nothing_nonsense_half_an_answer_or_refusal_is_1(site, what):
    names = ("gateway", "ical", "dagent")
    for name in names:
        site.fault(name, *what)
    if what == ("refuse",):
        wait_for(lambda: not any(map(connects, (143, 8080, 2003))))
    for result in monitors(site, names, timeout=3).values():
        says(result, 1)
    for result in monitors(site, names, level=0).values():
        says(result, 0)
    for name in names:
        site.fault(name, None)
    site.wait_ready(*names)
    for result in monitors(site, names).values():
        says(result, 0)


def test_a_server_that_refuses_or_closes_is_1(site):
    for fault in ("refuse", "close"):
        site.fault("server", fault)
        wait_for(lambda: not site.ready("server"))
        says(site.agent("server", "monitor", level=0), 0)
        says(site.agent("server", "monitor", timeout=5), 1, "server.sock")
        site.fault("server", None)
        site.wait_ready("server")


def test_slow_but_sound_is_0(site):
    for name in ("gateway", "ical"):
        site.fault(name, "slow", 0.001)
    for result in monitors(site, ("gateway", "ical")).values():
        says(result, 0)


@pytest.mark.parametrize("what", ("hang", "refuse", "garbage", "close"))
def test_some_endpoints_answer_and_others_do_not_is_190_and_names_them(site, what):
    broken = {"server": 237, "gateway": 993, "ical": 8443}
    for name, port in broken.items():
        site.fault(name, what, endpoint=port)
    if what == "refuse":
        wait_for(lambda: not any(map(connects, broken.values())))
    for name, result in monitors(site, tuple(broken), timeout=3).items():
        says(result, 190, ":%d" % broken[name])
        for port in {143, 110, 995, 236, 8080} - {broken[name]}:
            assert ":%d:" % port not in result.reason
        assert "server.sock" not in result.reason


def test_one_of_two_lmtp_endpoints_is_190_and_named(world):
    world.write_config("dagent", lmtp_listen="*:2003 127.0.0.1:2004")
    serve(world, "server", "dagent")
    says(world.agent("dagent", "monitor"), 0)
    world.fault("dagent", "refuse", endpoint=2004)
    wait_for(lambda: not connects(2004))
    assert ":2003" not in says(world.agent("dagent", "monitor"), 190, ":2004").reason


@pytest.mark.parametrize("name, ports", (("gateway", (993, 995)), ("ical", (8443,))))
def test_a_broken_tls_key_is_190_and_plain_clients_are_served(world, name, ports, tmp_path):
    (tmp_path / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    world.write_config(name, ssl_certificate_file=tmp_path / "broken.pem", ssl_private_key_file=tmp_path / "broken.pem")
    start(world, name)
    says(world.agent(name, "monitor"), 190, *[":%d" % port for port in ports])
    assert world.ready(name)


@pytest.mark.parametrize("name", LISTENING)
def test_an_address_that_is_not_on_this_host_is_190(world, name):
    listen = {"server": {"server_listen": FAR + ":236"}, "dagent": {"lmtp_listen": FAR + ":2003"},
              "gateway": {"imap_listen": FAR + ":143", "pop3_listen": "", "imaps_listen": None, "pop3s_listen": None},
              "ical": {"ical_listen": FAR + ":8080", "icals_listen": None}}
    world.write_config(name, **listen[name])
    with address() as leave:
        for daemon in dict.fromkeys(("server", name)):
            start(world, daemon)
        says(world.agent(name, "monitor"), 0)
        leave()
        for nonlocal_bind in ("0", "1"):
            with open("/proc/sys/net/ipv4/ip_nonlocal_bind", "w", encoding="ascii") as switch:
                switch.write(nonlocal_bind)
            try:
                for level in (10, 20):
                    says(world.agent(name, "monitor", level=level, timeout=5), 190, FAR)
                says(world.agent(name, "monitor", level=0), 0)
            finally:
                with open("/proc/sys/net/ipv4/ip_nonlocal_bind", "w", encoding="ascii") as switch:
                    switch.write("0")
    with address():
        says(world.agent(name, "monitor"), 0)


def test_reachable_on_lo_only_is_0_and_validate_all_warns(world):
    for name, key, port in (("server", "server_listen", 236), ("dagent", "lmtp_listen", 2003),
                            ("gateway", "imap_listen", 143), ("ical", "ical_listen", 8080)):
        world.write_config(name, **{key: "*%%lo:%d" % port})
    for name, key in (("server", "server_listen_tls"), ("gateway", "imaps_listen"), ("ical", "icals_listen")):
        world.write_config(name, **{key: None})
    serve(world, *LISTENING)
    for name, result in monitors(world, LISTENING).items():
        says(result, 0)
        told = world.agent(name, "validate-all", level=10)
        assert told.rc == 0
        assert [line for line in told.err.splitlines()
                if line.startswith("WARNING: /etc/kopano/%s.cfg: " % name) and "%lo" in line]


@pytest.fixture(scope="module")
def expired(tmp_path_factory):
    """A certificate that has expired, with its key, in one file that the daemons can read."""
    made = certificates.make(tmp_path_factory.mktemp("expired") / "it", end=certificates.LONG_AGO)
    path = "/etc/kopano/expired.pem"
    with open(path, "w", encoding="ascii") as out:
        out.write("\n".join(lines(made.key) + lines(made.pem)) + "\n")
    return path


def test_an_expired_certificate_is_190(world, expired):
    names = ("server", "gateway", "ical")
    world.write_config("server", server_ssl_key_file=expired)
    for name in names[1:]:
        world.write_config(name, ssl_certificate_file=expired, ssl_private_key_file=expired)
    serve(world, *names)
    for name, result in monitors(world, names).items():
        says(result, 190, "expired", {"server": ":237", "gateway": ":993", "ical": ":8443"}[name])
    for name, only in (("gateway", "imaps://127.0.0.1:993"), ("ical", "https://127.0.0.1:8443")):
        says(world.agent(name, "monitor", params={"listen": only}), 190, "expired")


def test_a_certificate_is_verified_on_demand_only(world11):
    names = ("server", "gateway", "ical")
    serve(world11, *names)
    for result in monitors(world11, names).values():
        says(result, 0)
    for result in monitors(world11, names, params={"tls_verify": "true"}).values():
        says(result, 190, "certificate")
    listen = {"server": "https://127.0.0.1:237", "gateway": "imaps://127.0.0.1:993", "ical": "https://127.0.0.1:8443"}
    for name in names:
        params = {"tls_verify": "true", "ca_file": world11.certificate, "listen": listen[name]}
        says(world11.agent(name, "monitor", params=params), 0)


@pytest.mark.parametrize("name", LISTENING)
def test_listen_names_the_endpoints_to_probe(site11, name):
    good = {"server": "http://127.0.0.1:236 unix:/run/kopano/server.sock", "dagent": "lmtp://127.0.0.1:2003",
            "gateway": "imap://127.0.0.1:143 pop3s://127.0.0.1:995", "ical": "http://127.0.0.1:8080"}[name]
    bad = {"server": "http://127.0.0.1:9236", "dagent": "lmtp://127.0.0.1:9003", "gateway": "imap://127.0.0.1:9143",
           "ical": "https://127.0.0.1:9443"}[name]
    says(site11.agent(name, "monitor", params={"listen": good}), 0)
    says(site11.agent(name, "monitor", params={"listen": bad}), 1, bad.rpartition("/")[2])
    says(site11.agent(name, "monitor", params={"listen": good + " " + bad}), 190, bad.rpartition("/")[2])
    says(site11.agent(name, "monitor"), 0)


# ---- two of a kind: nobody is restarted for it, and somebody is told

@pytest.mark.parametrize("name", ("spooler", "monitor"))
def test_a_second_one_is_190_at_depth_20_and_stop_ends_both(world11, name):
    """11.x runs them twice without a word, and two spoolers may send a mail twice."""
    serve(world11, "server", name)
    first, second = world11.main_pid(name), world11.start_daemon(name)
    begun = time.monotonic()
    # what has just been started may be somebody who asks for the version
    wait_for(lambda: time.monotonic() - begun > 1.2 and world11.catches_term(name))
    if second.rc is not None:
        pytest.skip("this kopano-%s refuses to run twice" % name)
    for level, rc, words in ((10, 0, ()), (20, 190, (str(first), str(second.pid))), (20, 190, ())):
        says(world11.agent(name, "monitor", level=level), rc, *words)
    os.kill(second.pid, signal.SIGKILL)
    second.wait()
    says(world11.agent(name, "monitor", level=20), 0)
    third = world11.start_daemon(name)
    wait_for(lambda: world11.catches_term(name) and len(world11.pids(name)) >= 2)
    says(world11.agent(name, "stop", timeout=60), 0)
    assert world11.gone(name) and third.wait() is not None


def test_a_second_server_at_the_socket_is_190_at_depth_20(world11):
    """It takes server.sock from the first one without a word, and with it all that come by socket once it ends."""
    serve(world11, "server")
    values = dict(world11.settings["server"], server_listen="*:1236", log_file=world11.log + "/second.log")
    values.pop("server_listen_tls", None)
    with open(world11.etc + "/second.cfg", "w", encoding="utf-8") as file:
        file.write("".join("%s = %s\n" % item for item in values.items()))
    says(world11.agent("server", "monitor", level=20), 0)
    second = world11.start_daemon("server", config=world11.etc + "/second.cfg")
    wait_for(lambda: "Startup succeeded" in "".join(lines(world11.log + "/second.log")))
    says(world11.agent("server", "monitor", level=10), 0)
    says(world11.agent("server", "monitor", level=20), 190, "server.sock", str(second.pid))
    os.kill(second.pid, signal.SIGKILL)
    second.wait()
