# SPDX-License-Identifier: GPL-2.0-or-later
"""validate-all: silent when all is well; else one line a finding, with file, key, value and remedy."""
import os
import shutil

import pytest

import certificates
from world import DAEMONS

from .looks import NAMES, monitors, says

every_daemon = pytest.mark.parametrize("name", DAEMONS)
OPEN = {"server": {"server_listen": "*:236"}, "dagent": {"lmtp_listen": "*:2003"},
        "gateway": {"imap_listen": "*:143", "pop3_listen": "*:110"}, "ical": {"ical_listen": "*:8080"}}


def validate(world, name, level=10, rc=0, **how):
    """Lines of what validate-all says, the exit reason aside."""
    result = world.agent(name, "validate-all", level=level, **how)
    assert result.rc == rc, result
    assert result.out == "" and "Traceback" not in result.err, result
    said = result.err.splitlines()
    found = [line for line in said if not line.startswith("ocf-exit-reason:")]
    assert all(line.startswith(("ERROR: ", "WARNING: ")) for line in found), result
    assert len(said) - len(found) == (1 if rc else 0), result
    assert (rc != 0) == any(line.startswith("ERROR: ") for line in found), result
    return found


@pytest.fixture
def good(world):
    """A host where there is nothing to find."""
    return _good(world)


@pytest.fixture
def good11(world11):
    """The same of the newest generation."""
    return _good(world11)


def _good(world):
    for name, changes in OPEN.items():
        world.write_config(name, **changes)
    os.makedirs("/etc/kopano/webapp", exist_ok=True)
    with open("/etc/kopano/webapp/config.php", "w", encoding="utf-8") as file:
        file.write('<?php define("DEFAULT_SERVER", "default:");\n')
    return world


@pytest.fixture
def put():
    """put(path, text) writes a file that is gone after the test; put(path, link=target) a symbolic link."""
    made, kept = [], []

    def write(path, text="", link=None):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if path not in made:
            made.append(path)
            if os.path.lexists(path):
                os.rename(path, path + ".kept")
                kept.append(path)
        if link:
            os.symlink(link, path)
            return
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    yield write
    for path in made:
        os.unlink(path)
    for path in kept:
        os.rename(path + ".kept", path)


@pytest.mark.parametrize("name", NAMES)
def test_silent_and_0_when_all_is_well(good, name):
    for level in (None, 0, 9, 10, 20):
        assert validate(good, name, level) == []
    assert good.gone("server")


def test_it_disturbs_nobody(site11):
    pids = {name: site11.pids(name) for name in DAEMONS}
    for name in DAEMONS:
        site11.agent(name, "validate-all", level=10)
    assert {name: site11.pids(name) for name in DAEMONS} == pids
    for result in monitors(site11, DAEMONS, level=20).values():
        says(result, 0)


@pytest.mark.parametrize("name", NAMES)
def test_level_0_looks_at_the_parameters_alone(world11, name):
    nothing = {"config": "/srv/none.cfg"}
    if name in DAEMONS:
        nothing["binary"] = "/srv/none/kopano"
    assert validate(world11, name, 0, params=nothing, env={"PATH": "/usr/bin:/bin"}) == []


@every_daemon
def test_a_parameter_that_is_wrong_in_itself_is_6_at_both_levels(good11, name):
    for level in (0, 10):
        wrong = {"config": "etc/x.cfg", "stop_escalate": "soon", "options": "'open"}
        found = validate(good11, name, level, 6, params=wrong)
        assert len(found) == 3
        for parameter, value in wrong.items():
            assert len([line for line in found if parameter in line and value in line]) == 1, found


# ---- this host: errors

@every_daemon
def test_a_missing_binary_or_config_is_5(good11, name):
    for parameter, value in (("binary", "/srv/none/kopano"), ("config", "/srv/none.cfg")):
        found = validate(good11, name, 10, 5, params={parameter: value})
        assert [line for line in found if line.startswith("ERROR") and value in line], found


@every_daemon
def test_a_config_that_the_daemon_itself_rejects_is_5(good, name):
    """ical and dagent end with 0 all the same."""
    good.write_config(name, bogus_key="some value")
    [line] = validate(good, name, 10, 5)
    for word in ("ERROR: /etc/kopano/%s.cfg" % name, "bogus_key", "some value", "remove"):
        assert word in line, line


@every_daemon
def test_an_unknown_user_is_5(good11, name):
    good11.write_config(name, run_as_user="nobody-here")
    found = validate(good11, name, 10, 5)
    where = "ERROR: /etc/kopano/%s.cfg: run_as_user = nobody-here: " % name
    assert [line for line in found if line.startswith(where)], found


def test_a_socket_in_a_directory_that_can_not_be_made_is_5(good11):
    good11.write_config("server", server_pipe_name="/srv/none/deep/server.sock")
    found = validate(good11, "server", 10, 5)
    assert [line for line in found
            if "server_pipe_name" in line and "/srv/none/deep" in line and "create" in line], found


def test_a_server_without_its_tls_key_is_5_others_are_warned(good11):
    good11.write_config("server", server_ssl_key_file="/srv/none.pem")
    [line] = validate(good11, "server", 10, 5)
    assert "server_ssl_key_file = /srv/none.pem" in line and line.startswith("ERROR")
    for name in ("gateway", "ical"):
        good11.write_config(name, ssl_certificate_file="/srv/none.pem")
        [line] = validate(good11, name)
        assert "ssl_certificate_file = /srv/none.pem" in line and line.startswith("WARNING")


# ---- this host: warnings

def warned(world, name, *words, **how):
    """Exactly one finding, a warning with these words."""
    [line] = validate(world, name, **how)
    for word in ("WARNING: ",) + words:
        assert word in line, line


@pytest.mark.parametrize("name, key, port", (("server", "server_listen", 236), ("dagent", "lmtp_listen", 2003),
                                             ("gateway", "imap_listen", 143), ("ical", "ical_listen", 8080)))
def test_addresses_and_lo(good11, name, key, port):
    tls = {"server": "server_listen_tls", "gateway": "imaps_listen", "ical": "icals_listen"}
    if name in tls:
        good11.write_config(name, **{tls[name]: ""})
    good11.write_config(name, **{key: "*%%lo:%d" % port})
    warned(good11, name, "/etc/kopano/%s.cfg: %s = *%%lo:%d" % (name, key, port), "*:%d" % port)
    good11.write_config(name, **{key: "203.0.113.77:%d *:%d" % (port, port + 1)})
    found = validate(good11, name)
    assert [line for line in found if "%s = 203.0.113.77:%d" % (key, port) in line and "cluster IP" in line], found


@every_daemon
def test_a_unit_that_is_enabled_at_boot(good11, put, name):
    put("/etc/systemd/system/multi-user.target.wants/kopano-%s.service" % name, link="/lib/systemd/system/x.service")
    warned(good11, name, "multi-user.target.wants/kopano-%s.service" % name,
           "systemctl disable kopano-%s.service" % name)


def test_tls_files(good11, tmp_path):
    expired = certificates.make(tmp_path / "expired", end=certificates.LONG_AGO)
    other = certificates.make(tmp_path / "other")
    for number, path in enumerate((expired.pem, expired.key, other.key)):
        shutil.copy(path, "/etc/kopano/%d.pem" % number)
        os.chmod("/etc/kopano/%d.pem" % number, 0o644)
    for name in ("gateway", "ical"):
        good11.write_config(name, ssl_certificate_file="/etc/kopano/0.pem", ssl_private_key_file="/etc/kopano/1.pem")
        warned(good11, name, "ssl_certificate_file = /etc/kopano/0.pem", "expired", "renew")
        good11.write_config(name, ssl_private_key_file="/etc/kopano/2.pem")
        assert any("ssl_private_key_file = /etc/kopano/2.pem" in line for line in validate(good11, name))


def test_postfix(good11, put):
    put("/etc/postfix/main.cf", "virtual_transport = lmtp:127.0.0.1:2003\n")
    assert validate(good11, "dagent") == []
    put("/etc/postfix/main.cf", "virtual_transport = lmtp:127.0.0.1:2004\n")
    warned(good11, "dagent", "/etc/postfix/main.cf: virtual_transport = lmtp:127.0.0.1:2004", "lmtp_listen = *:2003")


@pytest.mark.parametrize("name", ("server", "webapp-health"))
def test_webapps_default_server(good11, put, name):
    put("/etc/kopano/webapp/config.php", '<?php define("DEFAULT_SERVER", "http://127.0.0.1:236/kopano");')
    assert validate(good11, name) == []
    put("/etc/kopano/webapp/config.php", '<?php define("DEFAULT_SERVER", "http://127.0.0.1:9236/kopano");')
    warned(good11, name, "/etc/kopano/webapp/config.php: DEFAULT_SERVER = http://127.0.0.1:9236",
           "server_listen = *:236")


@pytest.mark.parametrize("name", DAEMONS[1:])
def test_a_client_that_looks_for_its_server_elsewhere(good11, name):
    good11.write_config(name, server_socket="http://127.0.0.1:9236/")
    warned(good11, name, "/etc/kopano/%s.cfg: server_socket = http://127.0.0.1:9236/" % name,
           "/etc/kopano/server.cfg", "use ")


def test_a_server_that_lets_root_not_in(good11):
    good11.write_config("server", local_admin_users="kopano")
    warned(good11, "server", "local_admin_users = kopano", "add root")


@pytest.mark.parametrize("name", ("gateway", "ical", "webapp-health"))
def test_the_test_mailboxs_password(good11, name, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("do not show this\n")
    secret.chmod(0o600)
    params = {"test_user": "alice", "test_password_file": str(secret)}
    assert validate(good11, name, params=params) == []
    secret.chmod(0o644)
    [line] = validate(good11, name, params=params)
    assert "chmod 600 %s" % secret in line and "do not show" not in line
    params["test_password_file"] = "/srv/none"
    warned(good11, name, "/srv/none", params=params)


# ---- around Kopano (each single check is in tests/unit/test_validate_around.py)

CLUSTER = """totem {
    version: 2
    token: %s
}
nodelist {
    node {
        name: bob
        nodeid: 1
        ring0_addr: 192.0.2.25
    }
    node {
        name: alice
        nodeid: 2
        ring0_addr: 192.0.2.26
    }
}
quorum {
    provider: corosync_votequorum
    %s
}
"""
CIB = """<cib><configuration><resources><group id="kopano">
<primitive id="kopano_ip" class="ocf" provider="heartbeat" type="IPaddr2"><instance_attributes id="i">
<nvpair id="n" name="ip" value="192.0.2.100"/><nvpair id="m" name="nic" value="eth77"/></instance_attributes>
</primitive>
<primitive id="kopano-server" class="ocf" provider="kopano" type="server"/>
</group></resources></configuration></cib>"""


def test_corosync_and_the_cib(good11, put):
    put("/etc/corosync/corosync.conf", CLUSTER % ("200", ""))
    put("/var/lib/pacemaker/cib/cib.xml", CIB)
    found = "\n".join(validate(good11, "server"))
    for words in ("/etc/corosync/corosync.conf: totem.token = 200: ", "quorum.two_node = 0: ", "use two_node: 1",
                  "nodelist.node.name = bob alice: this host is none of the nodes",
                  "CIB, kopano_ip: nic = eth77: this host has no such network device; crm configure edit kopano_ip"):
        assert words in found, found
    assert good11.agent("server", "validate-all", level=0).err == ""


def test_drbd(good11, put):
    put("/etc/corosync/corosync.conf", CLUSTER % ("3000", "two_node: 1"))
    put("/etc/drbd.conf", "resource kopano {\n net {\n protocol B;\n }\n}\n")
    found = "\n".join(validate(good11, "server"))
    for words in ("/etc/drbd.conf: resource kopano: protocol = B: ", "resource kopano: fencing = (none): ",
                  "resource kopano: fence-peer = (none): "):
        assert "WARNING: " in found and words in found, found
    put("/etc/drbd.conf", "resource kopano {\n")
    assert [line for line in validate(good11, "server") if "drbd" in line] == [
        "WARNING: /etc/drbd.conf: '}' is missing: the section 'resource' does not end; correct it"]


def test_the_databases_account(good11):
    good11.write_config("server", mysql_user="root", mysql_host="[fd00::101]")
    found = "\n".join(validate(good11, "server"))
    assert "server.cfg: mysql_user = root: this account may do everything" in found and "without brackets" in found


def test_attachments_that_can_not_be_kept(good11, put):
    put("/srv/attachments", "a file")
    good11.write_config("server", attachment_storage="files_v2", attachment_path="/srv/attachments")
    [line] = validate(good11, "server", 10, 5)
    assert line == ("ERROR: /etc/kopano/server.cfg: attachment_path = /srv/attachments: /srv/attachments is not a "
                    "directory; correct it")


def test_apache(good11, put):
    put("/etc/apache2/apache2.conf", "<Location /server-status>\nSetHandler server-status\nRequire ip 192.0.2.1\n"
        "</Location>\n")
    put("/etc/apache2/mods-enabled/status.conf", "")
    warned(good11, "webapp-health", "/etc/apache2/apache2.conf: server-status = require ip 192.0.2.1: ",
           "Require local")
    assert validate(good11, "webapp-health", params={"status_url": "http://192.0.2.7/server-status"}) == []


def test_the_first_error_sets_the_code_and_all_findings_are_told(good11, put):
    good11.write_config("ical", bogus_key="1")
    put("/etc/systemd/system/multi-user.target.wants/kopano-ical.service", link="/lib/systemd/system/x.service")
    found = validate(good11, "ical", 10, 5)
    assert [line.split(":")[0] for line in found] == ["ERROR", "WARNING"]
