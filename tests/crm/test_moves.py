# SPDX-License-Identifier: GPL-2.0-or-later
"""What Pacemaker does, by crm_simulate, about every single failure of a node or a resource."""
import re
import shutil
import time
import xml.etree.ElementTree as ElementTree

import pytest

from offline import CAROL, SEQUENCES, fail_count, places, prefer, run, simulate

pytestmark = pytest.mark.xdist_group("crm")

CLIENTS = {f"kopano-{name}" for name in ("spooler", "dagent", "monitor", "gateway", "ical")}
MYSQL = ["mysql_fs", "mysql_ip", "mysqld"]
KOPANO = ["kopano_fs", "kopano_ip", "kopano-server"]
SERVICES = {*MYSQL, *KOPANO, *CLIENTS}
CLONES = ("apache", "webapp-health")
PAIRS = ("drbd", "shared-storage")
# other clusters with the same services, everything of them on bob
QUORUM = ("three-nodes", "arbiter", "arbiter-shared", "quorum-device")
FENCING = tuple(name for name in SEQUENCES if name.startswith("fencing-"))

# where the two groups are: on bob, or on a node each
TOGETHER, APART = {"mysql": "bob", "kopano": "bob"}, {"mysql": "alice", "kopano": "bob"}


@pytest.fixture(scope="module", params=[(name, where) for name in PAIRS for where in (TOGETHER, APART)],
                ids=lambda pair: f"{pair[0]}-{'apart' if pair[1] is APART else 'together'}")
def pair(request, loader):
    """(running CIB of two nodes, where the groups are)"""
    name, where = request.param
    return (loader.running(name) if where is TOGETHER else apart(loader, name)), where


def apart(loader, name):
    """A deployment's running CIB after `crm resource move mysql alice; crm resource clear mysql`."""
    cib = loader.copy(loader.running(name))
    with prefer(cib, "mysql", "alice"):
        simulate(cib, out=cib)
    return cib


def without(cib, *resources):
    """What simulate() says, instances of clones and fence devices left out."""
    return {name: verb for name, verb in simulate(cib, *resources).items()
            if ":" not in name and not name.startswith("fence_")}


def monitors(cib):
    """[(resource, interval in ms, attributes of op), ...] of all recurring monitors."""
    return [(primitive.get("id"), int(op.get("interval").rstrip("s")) * 1000, op)
            for primitive in ElementTree.parse(cib).iter("primitive")
            for op in primitive.iter("op") if op.get("name") == "monitor"]


def failed(resource, interval, node, code=1):
    return "-i", f"{resource}_monitor_{interval}@{node}={code}"


# ---- two nodes --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", PAIRS)
def test_everything_starts_on_bob(loader, name):
    found = places(loader.running(name))
    assert {found[service][0] for service in SERVICES} == {"bob"}
    assert (found["fence_bob"], found["fence_alice"]) == (["alice"], ["bob"])
    assert sorted(found["apache"]) == sorted(found["webapp-health"]) == ["alice", "bob"]
    if name == "drbd":
        assert found["drbd_mysql promoted"] == found["drbd_kopano promoted"] == ["bob"]
        assert sorted(found["drbd_mysql"]) == sorted(found["drbd_kopano"]) == ["alice", "bob"]


def test_a_cluster_without_failures_is_left_alone(pair):
    assert simulate(pair[0]) == {}
    assert run("crm_verify", "-V", "-x", pair[0]) == ""


def test_every_monitor_that_fails(pair):
    """A service alone is restarted; an address or disk with what stands on it; nothing else anywhere."""
    cib, where = pair
    for resource, interval, op in monitors(cib):
        if op.get("on-fail") == "fence" or resource.startswith(("drbd_", "apache", "webapp-", "fence_")):
            continue
        node = where["mysql" if resource in MYSQL else "kopano"]
        group = next((group for group in (MYSQL, KOPANO) if resource in group), [resource])
        behind = group[group.index(resource) + 1:]
        assert simulate(cib, *failed(resource, interval, node)) == \
            {resource: "Recover", **{name: "Restart" for name in behind}}, (resource, interval)


@pytest.mark.parametrize("resource", ["apache", "webapp-health"])
def test_a_clone_that_fails_is_restarted_where_it_failed(pair, resource):
    for name, interval, _ in monitors(pair[0]):
        if name == resource:
            made = simulate(pair[0], *failed(name, interval, "alice"))
            assert list(made.values()) == ["Recover"] and list(made)[0].startswith(resource)


@pytest.mark.parametrize("device", ["fence_bob", "fence_alice"])
def test_a_fence_device_that_fails_is_tried_again(pair, device):
    made = simulate(pair[0], *failed(device, 60000, places(pair[0])[device][0]))
    assert made == {device: "Recover"}


@pytest.mark.parametrize("disk", ["mysql_fs", "kopano_fs"])
def test_lost_storage_is_fenced(pair, disk):
    cib, where = pair
    node = where[disk.partition("_")[0]]
    there = {name for group, names in (("mysql", MYSQL), ("kopano", [*KOPANO, *CLIENTS]))
             if where[group] == node for name in names}
    assert without(cib, *failed(disk, 10000, node)) == \
        {node: "Fence (reboot)", **{name: "Recover" if name == disk else "Move" for name in there}}


@pytest.mark.parametrize("group", ["mysql", "kopano"])
def test_drbd_that_fails_takes_its_group_with_it_and_no_client(loader, group):
    names = MYSQL if group == "mysql" else KOPANO
    for cib, where in ((loader.running("drbd"), TOGETHER), (apart(loader, "drbd"), APART)):
        made = simulate(cib, *failed(f"drbd_{group}", 10000, where[group]))
        assert {name: verb for name, verb in made.items() if ":" not in name} == {name: "Restart" for name in names}
        other = "alice" if where[group] == "bob" else "bob"
        made = simulate(cib, *failed(f"drbd_{group}", 20000, other))
        assert list(made.values()) == ["Recover"] and list(made)[0].startswith(f"drbd_{group}:")


@pytest.mark.parametrize("node", ["bob", "alice"])
def test_a_lost_node_is_fenced_and_what_it_ran_moves(pair, loader, node):
    cib, where = pair
    there = {name for group, names in (("mysql", MYSQL), ("kopano", [*KOPANO, *CLIENTS]))
             if where[group] == node for name in names}
    after = loader.copy(cib)
    assert without(cib, "-f", node) == {node: "Fence (reboot)", **{name: "Move" for name in there}}
    simulate(cib, "-f", node, out=after)
    other = "alice" if node == "bob" else "bob"
    assert {places(after)[name][0] for name in SERVICES} == {other}
    # the node that is back gets its clones and its copy of DRBD, and no service
    back = simulate(after, "-u", node)
    assert set(back.values()) == {"Start"} and not set(back) & SERVICES


@pytest.mark.parametrize("node", ["bob", "alice"])
def test_nothing_moves_before_the_lost_node_is_fenced(pair, node):
    words = run("crm_simulate", "-S", "-x", pair[0], "-f", node)
    steps = words.split("Executing Cluster Transition:")[1].splitlines()
    fencing = next(number for number, line in enumerate(steps) if f"Fencing {node} (reboot)" in line)
    assert not [line for line in steps[:fencing] if "start on" in line or "promote on" in line]


def test_degraded_restarts_nothing(pair):
    """As in an outage of the database, however long it is."""
    cib, where = pair
    faults = [word for resource, interval, _ in monitors(cib) if resource.startswith("kopano-")
              for word in failed(resource, interval, where["kopano"], 190)]
    assert simulate(cib, *faults) == {}


# ---- failures that repeat ----------------------------------------------------------------------------------

def third_failure(loader, cib, resource, node):
    """What is done about the third failure of a resource's first monitor."""
    interval = next(interval for name, interval, _ in monitors(cib) if name == resource)
    for _ in range(2):
        after = loader.copy(cib)
        assert set(simulate(cib, *failed(resource, interval, node), out=after)) == {resource}
        cib = after
    return without(cib, *failed(resource, interval, node))


def test_a_server_that_keeps_failing_moves(pair, loader):
    cib, where = pair
    assert set(third_failure(loader, cib, "kopano-server", where["kopano"])) == {*KOPANO, *CLIENTS}


def test_a_database_that_keeps_failing_moves_alone(pair, loader):
    cib, where = pair
    assert set(third_failure(loader, cib, "mysqld", where["mysql"])) == set(MYSQL)


@pytest.mark.parametrize("client", ["kopano-dagent", "kopano-gateway"])
def test_mail_in_and_imap_are_worth_a_move(pair, loader, client):
    assert set(third_failure(loader, pair[0], client, "bob")) == {*KOPANO, *CLIENTS}


@pytest.mark.parametrize("client", ["kopano-spooler", "kopano-monitor", "kopano-ical"])
def test_the_other_clients_throw_nobody_out(pair, loader, client):
    assert third_failure(loader, pair[0], client, "bob") == {client: "Stop"}


@pytest.mark.parametrize("client", ["kopano-spooler", "kopano-monitor", "kopano-ical"])
def test_nor_do_they_when_their_configuration_is_bad(pair, client):
    assert simulate(pair[0], "-i", f"{client}_start_0@bob=5") == {client: "Stop"}


def test_a_server_with_a_bad_configuration_here_starts_there(pair):
    assert set(without(pair[0], "-i", "kopano-server_start_0@bob=5")) == {*KOPANO, *CLIENTS}


def test_a_server_that_fails_to_start_is_tried_on_the_other_node_at_once(pair, loader):
    cib = loader.copy(pair[0])
    fail_count(cib, "kopano-server", "start_0", "bob", "INFINITY")
    assert set(without(cib, "-i", "kopano-server_start_0@bob=1")) == {*KOPANO, *CLIENTS}


def test_a_database_that_starts_nowhere_is_tried_again(pair, loader):
    cib = loader.copy(pair[0])
    soon = at(1)                # however slow this machine is
    for node in ("bob", "alice"):
        fail_count(cib, "mysqld", "start_0", node, "INFINITY")
    faults = [word for node in ("bob", "alice") for word in ("-i", f"mysqld_start_0@{node}=1")]
    # no Kopano daemon is touched
    assert set(without(cib, *faults, *soon)) <= set(MYSQL)
    after = loader.copy(cib)
    simulate(cib, *faults, *soon, out=after)
    assert places(after)["mysqld"] == []
    assert "mysqld" not in simulate(after, *soon)
    assert simulate(after, *at(25)).get("mysqld") == "Start"


def at(seconds):
    """Words for simulate() to make it think that it is some seconds later."""
    return "-t", time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(time.time() + seconds))


# ---- stops that fail ----------------------------------------------------------------------------------------

def test_a_client_that_can_not_be_stopped_is_fenced(pair):
    assert simulate(pair[0], "-i", "kopano-dagent_stop_0@bob=1")["bob"] == "Fence (reboot)"


def test_a_server_amid_a_schema_upgrade_is_not_fenced(pair, loader):
    """It and what is below it stay where they are, until somebody comes."""
    cib, after = loader.copy(pair[0]), loader.copy(pair[0])
    fail_count(cib, "kopano-server", "stop_0", "bob", "INFINITY")
    # with DRBD there are steps that wait for the server's end, and crm_simulate calls that a failure
    words = run("crm_simulate", "-S", "-x", cib, "-i", "kopano-server_stop_0@bob=1", "-O", after, check=False)
    assert "Fence" not in words and "FAILED bob (blocked)" in words
    steps = words.split("Executing Cluster Transition:")[1].split("Revised Cluster Status:")[0]
    assert not re.search("Resource action: .* (start|stop|demote|promote) on", steps)
    assert {places(after)[name][0] for name in (*KOPANO, *CLIENTS)} == {"bob"}


def test_a_hung_database_that_was_killed_starts_again_on_its_node(pair, loader):
    """Its agent says that the stop has failed, though the process is about to be gone."""
    cib, where = pair
    cib = loader.copy(cib)
    fail_count(cib, "mysqld", "stop_0", where["mysql"], "INFINITY")
    assert simulate(cib, "-i", f"mysqld_stop_0@{where['mysql']}=1") == {"mysqld": "Start"}


def test_a_disk_that_can_not_be_unmounted_is_fenced(pair):
    cib, where = pair
    assert simulate(cib, "-i", f"mysql_fs_stop_0@{where['mysql']}=1")[where["mysql"]] == "Fence (reboot)"


def test_without_fencing_two_nodes_may_run_the_same(loader):
    """Why it is on: nothing makes sure that the lost node is down."""
    cib = loader.copy(loader.running("shared-storage"))
    run("crm_attribute", "--name", "stonith-enabled", "--update", "false", cib=cib)
    assert without(cib, "-f", "bob") == {name: "Start" for name in SERVICES}


# ---- the other deployments ----------------------------------------------------------------------------------

LOSSES = [(name, node) for name in (*QUORUM, *FENCING)
          for node in ("bob", "alice", *(["carol"] if CAROL in SEQUENCES[name][1] else []))]


@pytest.mark.parametrize("name, node", LOSSES)
def test_other_clusters_survive_the_loss_of_a_node(loader, name, node):
    cib, after = loader.running(name), loader.copy(loader.running(name))
    before = places(cib)
    assert [before[service] for service in SERVICES] == [["bob"]] * len(SERVICES)
    assert without(cib, "-f", node) == \
        {node: "Fence (reboot)", **{service: "Move" for service in SERVICES if node == "bob"}}
    simulate(cib, "-f", node, out=after)
    found = places(after)
    assert {len(found[service]) for service in SERVICES} == {1}
    assert node not in {where for nodes in found.values() for where in nodes}
    if name.startswith("arbiter"):
        for seen in (before, found):
            assert "carol" not in {where for service, nodes in seen.items() if not service.startswith("fence_")
                                   for where in nodes}


@pytest.mark.parametrize("name", [*QUORUM, *FENCING])
def test_every_monitor_that_fails_in_other_clusters(loader, name):
    """On every node where it is watched; with other fencing, of the fence devices."""
    cib = loader.running(name)
    found, kinds = places(cib), set()
    for resource, interval, op in monitors(cib):
        device = resource.startswith("fence_")
        kind = (resource, op.get("role"), op.get("on-fail"))
        if name in FENCING and not device or kind in kinds:
            continue
        kinds.add(kind)
        promoted = found.get(f"{resource} promoted", [])
        role = {"Master": "Promoted", "Slave": "Unpromoted"}.get(op.get("role"), op.get("role"))
        nodes = {None: found[resource], "Promoted": promoted,
                 "Unpromoted": [node for node in found[resource] if node not in promoted]}[role]
        assert nodes, resource
        for node in nodes:
            where = (resource, interval, node)
            made = simulate(cib, *failed(resource, interval, node))
            services = {what: verb for what, verb in made.items() if ":" not in what and not what.startswith("fence_")}
            group = next((group for group in (MYSQL, KOPANO) if resource in group), [resource])
            if op.get("on-fail") == "fence":
                assert services == {node: "Fence (reboot)", **dict.fromkeys(SERVICES, "Move"),
                                    resource: "Recover"}, where
            elif role == "Promoted":
                assert services == dict.fromkeys(MYSQL if resource == "drbd_mysql" else KOPANO, "Restart"), where
            elif device or role or resource in CLONES:
                assert [(what.partition(":")[0], verb) for what, verb in made.items()] == [(resource, "Recover")], where
            else:
                assert made == {resource: "Recover",
                                **dict.fromkeys(group[group.index(resource) + 1:], "Restart")}, where


def test_a_single_node_restarts_what_failed(loader):
    cib = loader.running("virtual-machine")
    for resource, interval, _ in monitors(cib):
        again = loader.copy(cib)
        # as often as it takes
        fail_count(again, resource, f"monitor_{interval}", "bob", "100")
        for state in (cib, again):
            made = simulate(state, *failed(resource, interval, "bob"))
            assert {name.partition(":")[0]: verb for name, verb in made.items()} == {resource: "Recover"}


def test_what_the_manuals_groups_restart(loader):
    cib = loader.running("manual-groups")
    order = [*KOPANO, "kopano-spooler", "kopano-dagent", "kopano-monitor", "kopano-gateway", "kopano-ical"]
    for number, resource in enumerate(order[2:], 2):
        interval = next(interval for name, interval, _ in monitors(cib) if name == resource)
        assert simulate(cib, *failed(resource, interval, "bob")) == \
            {resource: "Recover", **{name: "Restart" for name in order[number + 1:]}}
    assert simulate(cib, *failed("mysqld", 10000, "bob")) == \
        {"mysqld": "Recover", **{name: "Restart" for name in order}}
    assert set(third_failure_in_group(loader, cib, "kopano-monitor")) == set(order)


def third_failure_in_group(loader, cib, resource):
    cib = loader.copy(cib)
    fail_count(cib, resource, "monitor_20000", "bob", "2")
    return without(cib, *failed(resource, 20000, "bob"))


def test_ipv6_addresses_are_where_the_ipv4_ones_are(loader):
    cib = loader.running("ipv6")
    found = places(cib)
    assert found["mysql_ip6"] == found["mysql_ip"] and found["kopano_ip6"] == found["kopano_ip"]
    assert simulate(cib, *failed("kopano_ip6", 10000, "bob")) == {"kopano_ip6": "Recover", "kopano-server": "Restart"}


def test_a_node_that_does_not_see_the_lan_gives_its_services_away(loader):
    cib = loader.copy(loader.running("lan"))

    def seen(**hosts):
        for node, count in hosts.items():
            run("crm_attribute", "--type", "status", "--node", node, "--name", "pingd", "--update", str(10000 * count),
                cib=cib)
    seen(bob=1, alice=1)
    assert not simulate(cib)
    seen(bob=0)
    moves = simulate(cib)
    assert set(moves.values()) == {"Move"} and {"mysqld", "kopano-server", "kopano-dagent"} <= set(moves)
    seen(alice=0)
    assert not simulate(cib), "the router is dead: nothing is better elsewhere"


def test_second_fence_level(loader):
    cib = loader.running("fencing-pdu")
    levels = [entry.get("devices") for entry in ElementTree.parse(cib).iter("fencing-level")]
    assert sorted(levels) == ["fence_alice", "fence_bob", "fence_pdu", "fence_pdu"]
    assert shutil.which("fence_apc_snmp")
