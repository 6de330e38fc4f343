"""A canary for the whole run: no test may leave the key, or what was said in private, where others could read it.

A pytest plugin. It looks at every log record of every logger and level, at what tests print, and at the end at every
file they left. It also sees to it that no test talks to any machine but this one.
"""

import ipaddress
import logging
import os
import socket
from pathlib import Path

import pytest

KEY = "sk-canary-of-the-tests"  # and other keys that begin like it
TEXT = "what the canary said in private"
SECRETS = ("sk-canary", TEXT)
_LEAKS = pytest.StashKey[list]()
# Programs that a test wrote to run them are no artefacts, and hold what the test holds.
_SOURCES = {".py", ".pyc"}


def seen_in(text):
    return [secret for secret in SECRETS if secret in text]


class Watch(logging.Handler):
    """Notes what it finds; whoever runs the test asks for it afterwards."""

    def __init__(self):
        super().__init__(logging.NOTSET)
        self.leaks = []
        # As a formatter would make it, with the traceback.
        self.setFormatter(logging.Formatter("%(name)s %(message)s"))

    def emit(self, record):
        for secret in seen_in(self.format(record)):
            self.leaks.append(f"{secret!r} is in a record of the logger {record.name}: {record.msg!r}")

    def check(self, address):
        if not is_here(address):
            self.leaks.append(f"a connection to {address!r}, which is not this machine")
            raise OSError(f"no test may talk to {address!r}")

    def taken(self):
        leaks, self.leaks = self.leaks, []
        return leaks


WATCH = Watch()


def is_here(address):
    """Whether an address of a socket is on this machine: a path, or a loopback address."""
    if not isinstance(address, tuple):
        return True
    host = str(address[0])
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host in {"", "localhost"}


def guarded(connect):
    def connect_here(self, address, /):
        WATCH.check(address)
        return connect(self, address)

    return connect_here


def pytest_configure(config):
    config.stash[_LEAKS] = []
    logging.getLogger().addHandler(WATCH)
    logging.getLogger().setLevel(logging.DEBUG)
    for name in ("connect", "connect_ex"):
        setattr(socket.socket, name, guarded(getattr(socket.socket, name)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    leaks = WATCH.taken()
    for name, content in report.sections:
        leaks += [f"{secret!r} is in the {name.lower()}" for secret in seen_in(content)]
    if leaks and report.passed:
        report.outcome, report.longrepr = "failed", "The canary: " + "; ".join(sorted(set(leaks)))
    return report


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    factory = getattr(session.config, "_tmp_path_factory", None)
    base = getattr(factory, "_basetemp", None)
    for path in () if base is None else files(base):
        found = [secret for secret in SECRETS if secret.encode() in path.read_bytes()]
        session.config.stash[_LEAKS] += [f"{secret!r} is in the file {path.relative_to(base)}" for secret in found]
    if session.config.stash[_LEAKS]:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        output = getattr(session.config, "workeroutput", None)
        if output is not None:  # a worker of pytest-xdist, which has no say about the status of the run
            output["canary"] = session.config.stash[_LEAKS]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    node.config.stash[_LEAKS] += getattr(node, "workeroutput", {}).get("canary", [])


def pytest_terminal_summary(terminalreporter, config):
    if config.stash[_LEAKS]:
        terminalreporter.section("the canary")
        for leak in config.stash[_LEAKS]:
            terminalreporter.write_line(leak)


def files(base):
    for folder, _, names in os.walk(base):
        for name in names:
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink() and path.suffix not in _SOURCES and os.access(path, os.R_OK):
                yield path
