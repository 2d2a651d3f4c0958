"""Checks of vm-test: what becomes of work when those who run it end, come back or change, and when the machine does."""

from systemd_host import NODE, Miss
from vm_checks import MIB, Checks, until
from vm_work import REUSE, WAIT, limits, manifest, process, sh

# Numbers of processes come round soon when there are only so many more than the one that is wanted.
SPARE_NUMBERS = 50
RESERVED = 310


class Lives(Checks):
    def unknown_exit(self):
        """Linux 6.1 does not tell the exit code of a process whose parent is gone: then it is said to be unknown."""
        pid = self.running("mortal")
        self.guest.run("systemctl", "stop", "ostler-holder")
        self.guest.sh(f"kill -KILL {pid}")
        until("it is gone", lambda: self.guest.read(f"/proc/{pid}/stat") is None)
        self.guest.run("systemctl", "start", "ostler-holder")
        exit_ = self.ended("mortal")
        self.expect("the exit is unknown, with a reason", "unknown" in str(exit_).lower() and "code" not in exit_, exit_)
        self.ok(f"ended while no holder ran: {exit_}")

    def survival(self):
        """Holder upgraded, restarted and killed, agent killed, under load: same processes."""
        names = ["plain", "forks", "spins", "writes", "second", "serves", "own"]
        before = {name: self.running(name) for name in names}
        for what, act in (
            ("upgraded", ("systemctl", "reload", "ostler-holder")),
            ("restarted", ("systemctl", "restart", "ostler-holder")),
            ("killed", ("sh", "-c", f"kill -9 {self.guest.main_pid('ostler-holder')}")),
            ("and agent killed", ("sh", "-c", "kill -9 $(systemctl show --value -p MainPID ostler-agent ostler-holder)")),
        ):
            if what == "killed":
                act = ("sh", "-c", f"kill -9 {self.guest.main_pid('ostler-holder')}")
            self.guest.run(*act)
            for unit in ("ostler-holder", "ostler-agent"):
                until(f"holder {what}: {unit} is active", lambda u=unit: self.guest.active(u))
            gone = [name for name, pid in before.items() if self.guest.read(f"/proc/{pid}/stat") is None]
            self.expect(f"holder {what}: all processes live", not gone, gone)
        # What is limited is limited still, and can be changed by the new ones.
        self.plane.apply(manifest(process("plain", sh(WAIT), NODE, resources=limits(memory="80Mi"), cpuWeight=300)))
        group = self.guest.group_of(before["plain"])
        until("the new holder changes a limit in place", lambda: self.value(group, "memory.max") == str(80 * MIB))
        now = {name: self.running(name) for name in names}
        self.expect("same pids", now == before, f"{before} became {now}")
        self.ok(f"holder upgraded, restarted, killed, and with the agent: same {len(names)} processes, same limits")

    def number_reused(self):
        """A process ends while nobody watches, and a stranger gets its number: the stranger is left alone."""
        # The lowest three hundred are given out once, in the first round.
        self.guest.sh(f"while [ $(sh -c 'echo $$') -lt {RESERVED} ]; do :; done")
        self.plane.apply(manifest(process("brief", sh(WAIT), NODE, restart="never")))
        pid = self.running("brief")
        most = self.guest.read("/proc/sys/kernel/pid_max").strip()
        self.guest.run("systemctl", "stop", "ostler-agent", "ostler-holder")
        try:
            self.guest.sh(f"echo {pid + SPARE_NUMBERS} > /proc/sys/kernel/pid_max; kill -KILL {pid}")
            until("it is gone", lambda: self.guest.read(f"/proc/{pid}/stat") is None)
            self.guest.run("systemd-run", "--quiet", "--unit", "rig-stranger", "/usr/bin/python3", "-c", REUSE, pid)
            until("a stranger has its number", lambda: "100002" in (self.guest.read(f"/proc/{pid}/cmdline") or ""))
        finally:
            self.guest.sh(f"echo {most} > /proc/sys/kernel/pid_max; systemctl start ostler-agent")
        exit_ = self.ended("brief")
        self.expect("the exit is unknown, with a reason", "unknown" in str(exit_).lower() and "code" not in exit_, exit_)
        self.plane.ostler("delete", "process/brief")
        stranger = self.guest.read(f"/proc/{pid}/cmdline") or ""
        self.expect("the stranger lives", "100002" in stranger and self.guest.active("rig-stranger"), stranger)
        self.guest.run("systemctl", "stop", "rig-stranger")
        self.ok(f"number {pid} reused by a stranger while agent and holder were down: exit unknown, the stranger untouched")

    def manager(self):
        """What systemd does to its units is not done to the work below them."""
        names = ["plain", "forks", "second"]
        before = {name: self.running(name) for name in names}
        limit = self.value(self.group("plain"), "memory.max")
        for verb in ("stop", "restart"):
            code, _, errors = self.guest.done("systemctl", verb, "ostler-work")
            self.expect(f"systemctl {verb} ostler-work is refused", code != 0, errors)
        for verb in ("daemon-reload", "daemon-reexec"):
            self.guest.run("systemctl", verb)
            self.expect(f"{verb}: same processes", {name: self.running(name) for name in names} == before)
        self.plane.apply(manifest(process("afterwards", sh(WAIT), NODE, resources=limits(memory="32Mi"))))
        found = self.value(self.group("afterwards"), "memory.max")
        self.expect("what is new has its limit", found == str(32 * MIB), found)
        self.expect("what was there has its own", self.value(self.group("plain"), "memory.max") == limit)
        self.plane.ostler("delete", "process/afterwards", "--wait=false")
        self.ok("ostler-work cannot be stopped; daemon-reload and daemon-reexec change nothing; what is new has its limit")

    def keeper(self):
        """The one process that keeps the place of all work ends, and then all work: there is a place again."""
        if not self.guest.done("test", "-e", "/sys/fs/cgroup/system.slice/ostler-work.service/keeper")[0] == 0:
            return
        names = ["plain", "second", "own"]
        before = {name: self.running(name) for name in names}
        place = "/sys/fs/cgroup/system.slice/ostler-work.service"
        self.guest.sh(f"kill -KILL $(cat {place}/keeper/cgroup.procs)")
        self.expect("the keeper killed: same processes", {name: self.running(name) for name in names} == before)
        self.guest.sh(f"echo 1 > {place}/cgroup.kill")
        for name in names:
            until(f"{name} runs again", lambda n=name: self.status(n).get("phase") == "Running" and
                  self.status(n).get("pid") != before[n])
        found = self.value(self.group("plain"), "memory.max")
        self.expect("and has its limit", found != "max" and found != "", found)
        self.ok("the keeper of ostler-work killed, then all work: it runs again, with limits")

    def reboot(self):
        """The machine restarts at once, as by a power cut, and comes back without a network: work starts from the ledger."""
        before = {name: self.status(name) for name in ("plain", "second", "own")}
        boot = self.guest.read("/proc/sys/kernel/random/boot_id")
        self.guest.run("systemctl", "preset", "ostler-work", "ostler-holder", "ostler-workload-stop", "ostler-agent")
        self.guest.sh("sync")
        self.guest.reboot()
        self.expect("it is another boot", self.guest.read("/proc/sys/kernel/random/boot_id") != boot)
        user = self.guest.run("id", "-u", "ostler-work")
        until("work runs again, without a bus", lambda: len(
            self.guest.done("pgrep", "-u", user, "-f", "sleep 100000")[1].split()) >= len(before))
        self.guest.network()
        self.guest.run("systemctl", "start", "rig-bus.socket")
        for name, old in before.items():
            def again(n=name, o=old):
                now = self.status(n)
                return now.get("phase") == "Running" and now.get("incarnation") == o["incarnation"] + 1 and now
            try:
                now = until(f"{name} runs once more", again)
            except Miss as miss:
                raise Miss(f"{miss}; it was {old}, is {self.status(name)}") from None
            self.expect("its end is unknown, because of the restart", "restarted" in str(now["lastExit"]), now["lastExit"])
        self.ok(f"the machine restarted, without a network: work of the ledger runs; told then: {now['lastExit']}")
