# SPDX-License-Identifier: GPL-2.0-or-later
"""Every test runs in a sandbox (sandbox.py): one for a plain `pytest`, one for each worker of `pytest -n`.

Only the tests of tests/unit run without one, so only they run without root. Everything else is skipped
then, with the reason; where CI is set, a test suite that skips most of itself is an error.

The library's tests run on Python 3.6 too, so this file does.
"""

import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
for place in (HERE, os.path.join(ROOT, "lib")):
    if place not in sys.path:
        sys.path.insert(0, place)

import sandbox  # noqa: E402

UNIT = os.path.join(HERE, "unit") + os.sep
_WHY_NOT = None


def why_no_sandbox():
    """The reason why tests can't have a sandbox; "" when they have or can have one."""
    global _WHY_NOT
    if _WHY_NOT is None:
        _WHY_NOT = "" if sandbox.inside() else sandbox.missing()
    return _WHY_NOT


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    only_looks = any(getattr(config.option, name, False) for name in
                     ("help", "version", "markers", "showfixtures", "show_fixtures_per_test", "collectonly"))
    if sandbox.inside() or only_looks or why_no_sandbox() or _distributed(config):
        return
    config.pluginmanager.getplugin("capturemanager").stop_global_capturing()
    sys.stdout.flush()
    sys.stderr.flush()
    os.chdir(str(config.invocation_params.dir))
    os.execv(sys.executable, [sys.executable, sandbox.__file__, sys.executable, "-m", "pytest"]
             + [str(word) for word in config.invocation_params.args])


def _distributed(config):
    return bool(getattr(config.option, "numprocesses", None) or getattr(config.option, "tx", None))


def pytest_configure(config):
    config.addinivalue_line("markers", "host: builds machines of its own, in namespaces")
    config.addinivalue_line("markers", "long: left out of `make test`, run by `make test-long`")
    if hasattr(config, "workerinput"):
        # the directory that xdist chose was made outside, in a /tmp that isn't ours
        if config.option.basetemp:
            os.makedirs(os.path.dirname(str(config.option.basetemp)), exist_ok=True)
    elif _distributed(config) and not why_no_sandbox():
        python = "popen//python=%s %s %s" % (sys.executable, sandbox.__file__, sys.executable)
        config.option.tx = [python if spec == "popen" else spec.replace("*popen", "*" + python)
                            for spec in config.option.tx]


def pytest_report_header(config):
    if why_no_sandbox():
        return "sandbox: none (%s): only the library's own tests run" % why_no_sandbox()
    return "sandbox: " + ("one for each worker" if _distributed(config) else "namespaces of its own")


def _leave_out(config, items):
    """LONG=all takes tests that are marked long too, LONG=only no others; without it they are left out."""
    wanted = os.environ.get("LONG", "")
    if wanted not in ("", "only", "all"):
        raise pytest.UsageError("LONG=%s: all or only" % wanted)
    if wanted == "all":
        return
    kept, out = [], []
    for item in items:
        (kept if bool(item.get_closest_marker("long")) == (wanted == "only") else out).append(item)
    if out:
        items[:] = kept
        config.hook.pytest_deselected(items=out)


def pytest_collection_modifyitems(config, items):
    _leave_out(config, items)
    if not why_no_sandbox():
        return
    barred = [item for item in items if not str(item.fspath).startswith(UNIT)]
    if barred and os.environ.get("CI"):
        raise pytest.UsageError("%d tests can't run without a sandbox: %s" % (len(barred), why_no_sandbox()))
    for item in barred:
        item.add_marker(pytest.mark.skip(reason="no sandbox: " + why_no_sandbox()))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Leaves each phase's report on the item, so that a fixture can keep the logs of a failed test."""
    outcome = yield
    report = outcome.get_result()
    setattr(item, "report_" + report.when, report)
