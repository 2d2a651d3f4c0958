"""Checks of systemd-test: output that goes to the host's journal."""

import json
import re

from systemd_host import NODE, Miss, until

# More of one line than there can be of another: these must not be cut or mixed.
PROGRAM = r"""
echo one; printf 'two\nthree\n'; echo four >&2; echo '<3>five'; printf 'caf\303\251 \033[1mbold\n'
n=0; while :; do n=$((n+1)); echo "number $n"; sleep 0.05; done
"""
NAME = "speaks"
# The same, and it would rather wait than lose a line.
PATIENT = "patient"
# Lines that a journal may have taken and not kept when its socket is taken from it.
TAKEN = 3
# More than journald takes of one unit in its interval, with a limit of a sixth of that: it takes more the more room it has.
LOUD = 10000
TIGHT = "[Journal]\nRateLimitIntervalSec=30s\nRateLimitBurst=1000\n"
JOURNALD = ["systemd-journald.socket", "systemd-journald-dev-log.socket", "systemd-journald-audit.socket",
            "systemd-journald.service"]


def manifest(name, program):
    return f"""\
apiVersion: ostler/v1
kind: Process
metadata: {{name: {name}}}
spec:
  command: [/bin/sh, -c, {json.dumps(program)}]
  nodeSelector: {{ostler/node: {NODE}}}
  standardOutput: journal
  standardError: journal
  timeoutStopSec: 2s
"""


class Journal:
    def apply(self, text):
        self.host.write(text, "/root/part.yaml")
        self.host.ostler("apply", "-f", "/root/part.yaml")

    def entries(self, name=NAME):
        """What the journal has of the process, oldest first."""
        shown = self.host.run("journalctl", "--no-pager", "--quiet", "--output", "json", f"OSTLER_PROCESS={name}", check=False)
        return [json.loads(line) for line in shown.splitlines()]

    def numbers(self, name=NAME):
        return [int(e["MESSAGE"].split()[1]) for e in self.entries(name) if str(e["MESSAGE"]).startswith("number ")]

    def goes_on(self, what, name=NAME, may_lose=False):
        """Lines come that were not there before, and none is missing that was not said to be. Gives how many."""
        last = max(self.numbers(name), default=0)
        until(f"{what}: lines of {name} come", lambda: max(self.numbers(name), default=0) > last + 3)
        numbers = self.numbers(name)
        holes = sorted(set(range(1, max(numbers) + 1)) - set(numbers))
        said = [e["MESSAGE"] for e in self.entries(name) if e.get("OSTLER_STREAM") == "ostler"]
        told = sum(int(n) for text in said for n in re.findall(r"^(\d+) lines lost", text))
        self.expect(f"{what}: each line once, in order", numbers == sorted(set(numbers)), numbers)
        self.expect(f"{what}: what is missing was said", told <= len(holes) <= told + TAKEN and (may_lose or told == 0),
                    f"{holes}, {said}")
        return told

    def journal(self):
        self.apply(manifest(NAME, PROGRAM))
        self.apply(manifest(PATIENT, PROGRAM) + "  logs: {overflow: block}\n")
        until("the journal has its lines", lambda: len(self.numbers()) > 3)
        found = {e["MESSAGE"] if isinstance(e["MESSAGE"], str) else bytes(e["MESSAGE"]).decode(): e for e in self.entries()}
        for word, stream in (("one", "stdout"), ("two", "stdout"), ("three", "stdout"), ("four", "stderr")):
            entry = found.get(word, {})
            told = {field: entry.get(field) for field in ("OSTLER_STREAM", "PRIORITY", "SYSLOG_IDENTIFIER", "OSTLER_NAMESPACE",
                                                         "OSTLER_INCARNATION", "_SYSTEMD_UNIT")}
            wanted = {"OSTLER_STREAM": stream, "PRIORITY": "6", "SYSLOG_IDENTIFIER": NAME, "OSTLER_NAMESPACE": "default",
                      "OSTLER_INCARNATION": "1", "_SYSTEMD_UNIT": "ostler-holder.service"}
            self.expect(f"the fields of {word!r}", told == wanted, told)
        uid = self.process(NAME)["metadata"]["uid"]
        self.expect("the field of its uid", found["one"].get("OSTLER_UID") == uid, found["one"].get("OSTLER_UID"))
        self.expect("a line with other than plain text is as it was", "caf\u00e9 \033[1mbold" in found, sorted(found)[:9])
        self.ok(f"output to the journal: {len(found['one'])} fields of each line, streams told apart")

    def journal_of_many(self):
        """All work is one unit to journald: its usual limit of a unit must not make one process silence the others."""
        self.host.write(TIGHT, "/etc/systemd/journald.conf.d/rig.conf")
        self.host.run("systemctl", "restart", "systemd-journald")
        self.apply(manifest("loud", f"seq -f 'number %.0f' {LOUD}; exec sleep 100000").replace("timeout", "logs: {overflow: block}\n  timeout"))
        try:
            until("the journal has the last line", lambda: self.host.run(
                "journalctl", "--quiet", "--lines", "1", "--output", "cat", "OSTLER_PROCESS=loud", check=False) == f"number {LOUD}")
        except Miss as miss:
            raise Miss(f"{miss}; it has {len(self.numbers('loud'))} lines") from None
        count = len(self.numbers("loud"))
        self.expect("and all before it", count == LOUD, count)
        self.host.ostler("delete", "process/loud")
        self.ok(f"{LOUD} lines at once: all are in the journal")

    def journal_restarts(self):
        pid = self.host.run("systemctl", "show", "--value", "-p", "MainPID", "systemd-journald")
        self.host.run("systemctl", "restart", "systemd-journald")
        self.goes_on("journald restarted")
        self.host.run("sh", "-c", f"kill -KILL $(systemctl show --value -p MainPID systemd-journald) || kill -KILL {pid}")
        self.goes_on("journald killed (kill -9)")
        self.ok("journald restarted, and killed: no line is missing")

    def journal_absent(self):
        """Without a journal what runs goes on, what is to start says why it cannot, and afterwards all lines come."""
        before = self.process(NAME)
        units = [u for u in JOURNALD if self.host.succeeds("systemctl", "cat", u)]
        self.host.run("systemctl", "stop", *units)
        self.host.run("rm", "-f", "/run/systemd/journal/socket")
        self.apply(manifest("mute", "exec sleep 100000"))
        until("what needs the journal says that there is none", lambda: "journal" in json.dumps(self.process("mute")["status"]))
        told = self.process("mute")["status"]
        self.expect("what runs goes on", self.process(NAME)["status"].get("pid") == before["status"].get("pid"))
        self.host.run("systemctl", "start", *units)
        lost = self.goes_on("the journal is back", may_lose=True)
        self.goes_on("the journal is back", PATIENT)
        until("what waited for it runs", lambda: self.process("mute")["status"].get("phase") == "Running")
        for name in (NAME, PATIENT, "mute"):
            self.host.ostler("delete", f"process/{name}")
        self.ok(f"no journal: what runs goes on, {lost} lines lost and said, none with overflow block; "
                f"a start says: {told.get('reason')}: {told.get('message')}")

    def process(self, name):
        return json.loads(self.host.ostler("get", f"process/{name}", "-o", "json"))
