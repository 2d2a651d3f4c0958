"""Checks of vm-test: a machine that is short of memory, disk space or numbers of processes says so, acts, and gets over it."""

from systemd_host import NODE, Miss
from vm_checks import Checks, until
from vm_work import FILL, MANY, TAKE, THRASH, WAIT, deployment, manifest, process, python, sh

# Settings of the machine: from where on it is short. Its logs have a small file system of their own (vm_host.py).
SETTINGS = """
[pressure]
memory_available = "30%"
memory_stall = "5%"
disk_free = "20%"
pids_free = "400"
hold = "20s"
"""
# Short of memory is this host when so much is left; half of that is what the hog leaves.
LEFT = 18
# Numbers of processes that are left once there are few: more than what ends the shortage. Those below 300 are given out
# once only, so there must be enough above.
NUMBERS_LEFT = 570
TAKEN = 250


class Pressures(Checks):
    def pressed(self, what="MemoryPressure"):
        """The message of a condition of the node, if it holds."""
        conditions = (self.plane.object(f"node/{NODE}") or {}).get("status", {}).get("conditions", [])
        return next((c.get("message") or c["type"] for c in conditions if c["type"] == what and c["status"] != "False"), None)

    def instances(self, owner):
        return [p for p in self.plane.objects("processes") if p["metadata"]["name"].startswith(f"{owner}-")]

    def pressure(self):
        """A hog leaves too little memory: the node says so, the greediest is evicted with the reason, nothing new comes."""
        for name in ("spins", "writes", "hog", "swollen", "forks"):
            self.plane.ostler("delete", f"process/{name}", "--wait=false")
        self.plane.apply(manifest(process("modest", python(TAKE.format(40)), NODE, resources={"requests": {"memory": "64Mi"}})))
        modest = self.running("modest")
        self.said("modest", "took")
        self.plane.apply(manifest(deployment("greedy", python(FILL.format(LEFT)), NODE, resources={"requests": {"memory": "16Mi"}})))
        first = until("greedy has a process", lambda: self.instances("greedy"))[0]["metadata"]["name"]
        until("the node says MemoryPressure", self.pressed)
        self.plane.apply(manifest(process("late", sh(WAIT), NODE)))
        until("what is new waits, because of the pressure", lambda: "pressure" in str(self.status("late").get("message")))
        self.expect("it waits for its node", self.status("late").get("phase") == "Pending", self.status("late"))
        until("it is evicted", lambda: "Evicted" in self.events(f"process/{first}"))
        why = next(line for line in self.events(f"process/{first}").splitlines() if "Evicted" in line)
        self.expect("the reason has the figures and the rank", "memory pressure" in why and "(1st of" in why, why)
        self.ok(f"memory pressure: nothing new comes; {why[why.index('evicted:'):].strip()}")
        self.plane.ostler("delete", "deployment/greedy")
        until("the pressure is over", lambda: not self.pressed())
        self.running("late")
        self.expect("what took what it asked for was left alone", self.running("modest") == modest)
        self.ok("after the hold: no pressure, what waited runs, the modest one was left alone")

    def waits_for_the_end(self, kind, taint, relieve):
        """While the node is short nothing new comes; afterwards what waited runs."""
        told = until(f"the node says {kind}", lambda: self.pressed(kind))
        name = f"late-{kind.lower()}"
        self.plane.apply(manifest(process(name, sh(WAIT), NODE)))
        until("what is new waits, because of the pressure", lambda: taint in str(self.status(name).get("message")))
        relieve()
        until(f"{kind} is over", lambda: not self.pressed(kind))
        self.running(name)
        self.plane.ostler("delete", f"process/{name}", "--wait=false")
        self.ok(f"{kind}: {told}; nothing new came; over after the hold, what waited runs")

    def disk_pressure(self):
        self.guest.sh("dd if=/dev/zero of=/var/log/ostler/rig-filler bs=64k 2>/dev/null || true; "
                      "truncate --size=-512K /var/log/ostler/rig-filler")
        self.waits_for_the_end("DiskPressure", "disk-pressure", lambda: self.guest.run("rm", "/var/log/ostler/rig-filler"))

    def pid_pressure(self):
        most = self.guest.read("/proc/sys/kernel/pid_max").strip()
        used = int(self.guest.read("/proc/loadavg").split("/")[1].split()[0])
        try:
            self.guest.sh(f"echo {used + NUMBERS_LEFT} > /proc/sys/kernel/pid_max")
            self.guest.run("systemd-run", "--quiet", "--property", "TasksMax=infinity", "--unit", "rig-many", "/usr/bin/python3", "-c", MANY.format(TAKEN))
            self.waits_for_the_end("PidPressure", "pid-pressure", lambda: self.guest.run("systemctl", "stop", "rig-many"))
        except Miss as miss:
            state = self.guest.sh("cat /proc/sys/kernel/pid_max /proc/sys/kernel/threads-max /proc/loadavg; "
                                  "systemctl status --no-pager rig-many || true")
            raise Miss(f"{miss}; the host says {state}") from None
        finally:
            self.guest.sh(f"echo {most} > /proc/sys/kernel/pid_max; systemctl stop rig-many 2>/dev/null || true")

    def stall(self):
        """What stalls for memory is pressure too, however much is free. Who takes most above his request goes first."""
        # What gets on hides that others wait.
        for name in ("spins", "writes", "reads"):
            self.plane.cli("delete", f"process/{name}", "--wait=false")
        takers = {"much": 60, "more": 90}
        for name, mib in takers.items():
            self.plane.apply(manifest(deployment(name, python(TAKE.format(mib)), NODE, resources={"requests": {"memory": "8Mi"}})))
        first = {name: until(f"{name} has a process", lambda n=name: self.instances(n))[0]["metadata"]["name"] for name in takers}
        for name in takers:
            self.said(first[name], "took")
        self.plane.apply(manifest(process("stalls", python(THRASH.format(40)), NODE, memoryHigh="20Mi",
                                          resources={"requests": {"memory": "64Mi"}})))
        try:
            told = until("the node says MemoryPressure", self.pressed)
        except Miss as miss:
            raise Miss(f"{miss}; the kernel says {self.guest.read('/proc/pressure/memory')}") from None
        self.expect("because of what waits for memory", "wait" in told or "stall" in told, told)
        until("more is evicted", lambda: "Evicted" in self.events(f"process/{first['more']}"))
        until("much is evicted", lambda: "Evicted" in self.events(f"process/{first['much']}"))
        order = [line for line in self.plane.cli("events").stdout.splitlines() if "Evicted" in line]
        for name in takers:
            self.plane.ostler("delete", f"deployment/{name}", "--wait=false")
        self.plane.ostler("delete", "process/stalls", "--wait=false")
        until("the pressure is over", lambda: not self.pressed())
        self.ok(f"stall: {told}; evicted in order: {order}")
