# SPDX-License-Identifier: GPL-2.0-or-later
"""monitor when something else is down: database, server, mailbox. What a restart can't help is 190, never 1."""
import contextlib
import os

import pytest

from world import DAEMONS, DATABASE_PASSWORD, wait_for

from .looks import CLIENTS, lines, lmtp_connections, monitors, says, serve, start

# What clients say at depth 10, while the server or the database is away.
SHALLOW = {"dagent": 190, "gateway": 0, "ical": 0, "spooler": 0, "monitor": 0}
# What all say at depth 20 while the database is away; over TCP (gateway) nobody can look farther than to the server.
DATABASE_AWAY = {"server": 190, "dagent": 190, "gateway": (0, 190), "ical": 190, "spooler": (0, 190), "monitor": 0}


@contextlib.contextmanager
def nothing_is_restarted(site, *names):
    """No daemon may be another one afterwards."""
    before = {name: site.main_pid(name) for name in names or DAEMONS}
    yield
    assert {name: site.main_pid(name) for name in names or DAEMONS} == before


def expect(site, level, codes, timeout=20):
    """Monitors of several daemons at once: {name: code or codes}. Returns {name: Result}."""
    found = monitors(site, tuple(codes), level=level, timeout=timeout)
    for name, result in found.items():
        says(result, codes[name])
    return found


def all_is_well(site, names=DAEMONS):
    """Also at depth 20, and at once."""
    wait_for(lambda: site.ready("spooler"), 10, "spooler does not come back")
    says(site.agent("server", "monitor"), 0)
    for result in monitors(site, names, level=20).values():
        says(result, 0)


# ---- the database

def test_database_dead(site):
    with nothing_is_restarted(site):
        site.database.kill()
        before = lmtp_connections()
        for _ in range(3):
            expect(site, 10, dict(SHALLOW, server=0))
            found = expect(site, 20, DATABASE_AWAY)
        assert "database" in found["server"].reason and DATABASE_PASSWORD not in str(found)
        assert lmtp_connections() <= before, "dagent was asked though its server's database is dead"
        site.database.start()
        all_is_well(site)


def test_database_hung(site):
    with nothing_is_restarted(site):
        site.database.freeze()
        before = lmtp_connections()
        expect(site, 20, DATABASE_AWAY, timeout=3)
        expect(site, 20, {"server": 190}, timeout=3)
        found = expect(site, 10, dict(SHALLOW, server=(0, 190)), timeout=3)
        assert lmtp_connections() <= before, "dagent was asked though its server's database hangs"
        assert site.head(timeout=1) == 200, found
        site.database.thaw()
        all_is_well(site)


@contextlib.contextmanager
def another_password(world):
    """The database takes Kopano's password no more, and nobody stays connected."""
    hosts = "localhost", "127.0.0.1", "::1", "%"

    def set_password(connection, word):
        with connection.cursor() as cursor:
            for host in hosts:
                cursor.execute("ALTER USER 'kopano'@%s IDENTIFIED BY %s", (host, word))

    connection = world.database.connect()
    try:
        set_password(connection, "something else")
        with connection.cursor() as cursor:
            cursor.execute("SELECT id FROM information_schema.processlist"
                           " WHERE id <> CONNECTION_ID() AND user = 'kopano'")
            for (number,) in cursor.fetchall():
                with contextlib.suppress(Exception):
                    cursor.execute("KILL %d" % number)
        yield
    finally:
        set_password(connection, DATABASE_PASSWORD)
        connection.close()


def test_database_refuses_the_password(site):
    with nothing_is_restarted(site):
        with another_password(site):
            for _ in range(3):
                found = expect(site, 20, DATABASE_AWAY)
            assert "database" in found["server"].reason
            assert DATABASE_PASSWORD not in str(found)
        all_is_well(site)


def test_a_server_that_fails_while_its_database_is_fine_is_1_after_two_monitors(site):
    def deep(rc, *words):
        return says(site.agent("server", "monitor", level=20), rc, "database", *words)

    site.fault("server", "dberror")
    deep(190)
    deep(1)
    deep(1)
    site.fault("server", None)
    says(site.agent("server", "monitor", level=20), 0)
    site.fault("server", "dberror")
    deep(1)                                 # one good answer may come from the one good worker
    site.fault("server", None)
    for _ in range(3):
        says(site.agent("server", "monitor", level=20), 0)
    site.fault("server", "dberror")
    deep(190)                               # good monitors began the count anew
    site.database.kill()
    deep(190)                               # so did the database's fault
    deep(190)
    site.database.start()
    deep(190)
    deep(1)


def test_a_silent_server_is_1_only_when_its_database_is_fine_through_two_monitors(site):
    def look(rc):
        return says(site.agent("server", "monitor", timeout=3), rc, "database")

    site.fault("server", "hang")
    site.database.freeze()
    look(190)
    site.database.thaw()
    wait_for(site.database.answers)
    look(190)
    look(1)


def test_a_server_whose_configuration_is_gone_is_not_blamed_for_its_database(site):
    """Nobody can ask the database then, and a restart could not work either."""
    path = site.config("server")
    os.rename(path, path + ".away")
    try:
        site.fault("server", "dberror")
        for _ in range(3):
            says(site.agent("server", "monitor", level=20), 190)
    finally:
        os.rename(path + ".away", path)


# ---- the server

@pytest.mark.parametrize("how", ("killed", "frozen"))
def test_server_away(site, how):
    clients = {name: site.main_pid(name) for name in CLIENTS}
    before = lmtp_connections()
    site.kill_daemon("server") if how == "killed" else site.freeze("server")
    log = len(lines("/var/log/kopano/dagent.log"))
    expect(site, 10, SHALLOW, timeout=3)
    found = expect(site, 20, {"dagent": 190, "gateway": 190, "ical": 190, "spooler": (0, 190), "monitor": 0}, timeout=3)
    for name in ("dagent", "gateway", "ical"):
        assert "server" in found[name].reason
    assert lmtp_connections() <= before, "dagent was asked though its server is " + how
    assert len(lines("/var/log/kopano/dagent.log")) == log
    site.thaw("server") if how == "frozen" else start(site, "server")
    all_is_well(site)
    assert {name: site.main_pid(name) for name in CLIENTS} == clients


def test_dagent_that_does_not_listen_is_1_though_its_server_is_down(site):
    site.kill_daemon("server")
    says(site.agent("dagent", "monitor"), 190)
    site.fault("dagent", "refuse")
    wait_for(lambda: not _listens(2003))
    says(site.agent("dagent", "monitor"), 1, "listen")


def _listens(port):
    with open("/proc/net/tcp", encoding="ascii") as one, open("/proc/net/tcp6", encoding="ascii") as other:
        rows = [row.split() for row in list(one)[1:] + list(other)[1:]]
    return any(words[1].endswith(":%04X" % port) and words[3] == "0A" for words in rows)


def wedge_dagent(world):
    """Its slots are used up by 421s while its server is down; then the server is started."""
    serve(world, "server", "dagent")
    world.kill_daemon("server")
    for _ in range(20):
        assert world.hold("lmtp").greeting.startswith(b"421")
    world.release()
    says(world.agent("dagent", "monitor"), 190, "server")
    start(world, "server")


def test_dagent_wedged_by_leaked_slots_is_1_once_its_server_is_good(world):
    world.write_config("dagent", process_model="thread")
    wedge_dagent(world)
    says(world.agent("dagent", "monitor", timeout=3), 1, "lmtp", "server is fine")
    # its drain of 30 s would be for clients that are long gone
    assert says(world.agent("dagent", "stop", timeout=60), 0).took < 15
    start(world, "dagent")
    says(world.agent("dagent", "monitor"), 0)


def test_a_wedged_dagent_is_told_soon_after_its_server_is_back(world11):
    """Mail has waited for the server long enough: not for nearly the whole timeout too, as when dagent alone hangs."""
    wedge_dagent(world11)
    assert says(world11.agent("dagent", "monitor", timeout=30), 1, "lmtp", "server is fine").took < 14
    assert says(world11.agent("dagent", "monitor", timeout=15), 1, "lmtp").took > 11        # as ever


def test_dagent_that_says_421_with_a_good_server_is_1(site):
    site.fault("dagent", "421")
    says(site.agent("dagent", "monitor"), 1, "421", "server is fine")


def test_spooler_that_waits_for_its_server_is_never_1(site):
    site.kill_daemon("server")
    for level in (10, 20, 20):
        says(site.agent("spooler", "monitor", level=level), (0, 190))


def test_spooler_that_has_never_reached_its_server_is_190_at_once(world):
    """65 s without a session are for a server that is well: what is known isn't kept for a minute."""
    start(world, "spooler")
    says(world.agent("spooler", "monitor"), 0)
    for _ in range(2):
        says(world.agent("spooler", "monitor", level=20), 190, "server")


# ---- a mailbox to log in to

@pytest.mark.parametrize("name", ("gateway", "ical"))
def test_login_to_the_test_mailbox(site, name, tmp_path):
    if "carol" not in site.users:
        site.add_user("carol", "pass word&<>\"")
    good, wrong = tmp_path / "good", tmp_path / "wrong"
    good.write_text(site.users["carol"] + "\n")
    wrong.write_text("guess\n")

    def look(rc, *words, user="carol", file=good, level=20):
        params = {"test_user": user, "test_password_file": str(file)}
        return says(site.agent(name, "monitor", level=level, params=params, timeout=10), rc, *words)

    look(0)
    for how in ({"file": wrong}, {"user": "nobody-here"}):
        result = look(190, "login", **how)
        assert "guess" not in result.err and "pass word" not in result.err
        look(0, level=10, **how)
    look(190, "no-such-file", file=tmp_path / "no-such-file")
    site.database.kill()
    look(190)
    site.database.start()
    look(0)
    site.kill_daemon("server")
    look(190, "server")
    look(0, level=10)


def test_a_login_that_hangs_with_the_server_is_190(site, tmp_path):
    (tmp_path / "secret").write_text("whatever\n")
    site.freeze("server")
    for name, result in monitors(site, ("gateway", "ical"), level=20, timeout=3,
                                 params={"test_user": "alice", "test_password_file": str(tmp_path / "secret")}).items():
        says(result, 190)


def test_without_test_user_nobody_logs_in(site):
    def look():
        for name in ("gateway", "ical"):
            says(site.agent(name, "monitor", level=20), 0)

    def logs():
        # the server may have to find its database again after the test before, each worker for itself
        return {name: [line for line in lines("/var/log/kopano/%s.log" % name) if "Reconnecting" not in line]
                for name in ("server", "gateway", "ical")}

    look()
    before = logs()
    for _ in range(3):
        look()
    assert logs() == before
