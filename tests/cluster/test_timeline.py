# SPDX-License-Identifier: GPL-2.0-or-later
"""The words of Pacemaker's log, and what the timeline makes of them."""
import time

import pytest

import timeline

CONTROLD = "Nov 23 15:53:48.757 alice pacemaker-controld  [46] (log_executor_event) \tnotice: "
RESULT = CONTROLD + "Result of "
SCHEDULER = "Nov 23 15:53:48.757 alice pacemaker-schedulerd[45] (log_list_item) \tnotice: "
FENCER = "Nov 23 15:53:48.757 alice pacemaker-fenced    [42] (finalize_op) \tnotice: "


@pytest.mark.parametrize("line, words, good", [
    (RESULT + "monitor operation for kopano-server on alice: error (process 842 is stopped (state T)) "
     "| CIB update 57, graph action unconfirmed; call=83 key=kopano-server_monitor_10000 rc=1",
     "monitor kopano-server on alice: error: process 842 is stopped (state T)", False),
    (RESULT + "monitor operation for webapp-health on alice: OCF_DEGRADED (no answer) | CIB update 9",
     "monitor webapp-health on alice: degraded: no answer", False),
    (RESULT + "start operation for d on alice: ok | CIB update 70, graph action confirmed; rc=0",
     "start   d on alice: ok", True),
    (RESULT + "probe operation for d on alice: not running | CIB update 7",
     "probe   d on alice: not running", True),
    (RESULT + "monitor operation for d on alice: not running | CIB update 7",
     "monitor d on alice: not running", False),
    (CONTROLD + "Node bob state is now lost | nodeid=25 previous=member source=crm_update_peer_proc",
     "node    bob: lost", False),
    (SCHEDULER + "Actions: Recover    kopano-server       (   bob )",
     "plan    kopano-server: Recover on bob", True),
    (SCHEDULER + "Actions: Move       d       ( bob -> alice )", "plan    d: Move from bob to alice", True),
    (SCHEDULER + "Actions: Fence (reboot) bob 'peer is no longer part of the cluster'",
     "plan    bob: Fence (reboot) 'peer is no longer part of the cluster'", True),
    (FENCER + "Operation 'reboot' targeting bob by alice for stonith-api.9@alice: OK (complete) | id=1b",
     "fence   bob: reboot by alice: OK (complete)", True),
    (FENCER + "Operation 'reboot' targeting bob by alice for stonith-api.9@alice: Error occurred (complete)",
     "fence   bob: reboot by alice: Error occurred (complete)", False),
])
def test_line(line, words, good):
    event = timeline.parse(line)
    assert (str(event), event.good) == (words, good)
    assert time.strftime("%m-%d %H:%M:%S", time.localtime(event.at)) == "11-23 15:53:48"
    assert round(event.at % 1, 3) == 0.757


@pytest.mark.parametrize("line", [
    "", "Nov 23", CONTROLD + "State transition S_IDLE -> S_POLICY_ENGINE | input=I_PE_CALC",
    SCHEDULER.replace("log_list_item", "rsc_action_default") + "Leave   fs\t(Stopped)",
    "Set r/w permissions for uid=103",
])
def test_nothing_to_tell(line):
    assert timeline.parse(line) is None
