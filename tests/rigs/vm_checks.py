"""What the checks of vm-test share: the talk with the control plane and with the machine, and the words of a miss."""

import os
import time

from systemd_host import Miss
from systemd_host import until as until_soon

MIB = 1 << 20
# Nothing takes longer than ten seconds on an idle machine; an emulated one beside other work gets this long.
PATIENCE_S = int(os.environ.get("OSTLER_VM_PATIENCE_S", "120"))


def until(what, probe, seconds=PATIENCE_S):
    return until_soon(what, probe, seconds)


class Checks:
    def __init__(self, plane, guest):
        self.plane, self.guest = plane, guest
        self.started = time.monotonic()

    def ok(self, what):
        print(f"ok   {time.monotonic() - self.started:5.1f}s  {what}", flush=True)

    @staticmethod
    def expect(what, holds, found=""):
        if not holds:
            raise Miss(f"{what}{f': {found}' if found != '' else ''}")

    # Parts that several checks share.

    def status(self, name):
        return (self.plane.object(f"process/{name}") or {}).get("status", {})

    def running(self, name):
        """The pid of a process that runs."""
        def probe():
            status = self.status(name)
            return status.get("phase") == "Running" and status.get("pid")
        try:
            return until(f"{name} runs", probe)
        except Miss as miss:
            raise Miss(f"{miss}; it is {self.status(name)}") from None

    def ended(self, name):
        try:
            return until(f"{name} has ended", lambda: self.status(name).get("lastExit"))
        except Miss as miss:
            raise Miss(f"{miss}; it is {self.status(name)}") from None

    def said(self, name, word):
        """The lines of a process, once one of them has the word."""
        def probe():
            done = self.plane.cli("logs", f"process/{name}")
            return word in done.stdout and done.stdout
        try:
            return until(f"{name} says {word!r}", probe)
        except Miss as miss:
            done = self.plane.cli("logs", f"process/{name}")
            raise Miss(f"{miss}; it said {done.stdout!r} {done.stderr!r}") from None

    def group(self, name):
        """The folder of a running process's group."""
        group = self.guest.group_of(self.running(name))
        self.expect(f"{name} has a group", group, "none")
        return group

    def value(self, group, file):
        return (self.guest.read(f"{group}/{file}") or "").strip()

    def figures(self, group, file):
        """{word: number} of a file of such lines, and the machine's own clock in seconds."""
        text, clock = self.guest.read(f"{group}/{file}", "/proc/uptime")
        return {w: int(n) for w, n in (line.split() for line in (text or "").splitlines())}, float(clock.split()[0])

    def proc(self, name, file):
        return self.guest.read(f"/proc/{self.running(name)}/{file}") or ""

    @staticmethod
    def line_of(text, word):
        return next((line for line in text.splitlines() if line.startswith(word)), "")

    def events(self, thing):
        return self.plane.cli("events", thing).stdout
