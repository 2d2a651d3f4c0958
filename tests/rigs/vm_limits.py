"""Checks of vm-test: what a running process is limited to, and limits that change under it."""

import re

from systemd_host import NODE
from vm_checks import MIB, Checks, until
from vm_work import TAKE, WAIT, limits, manifest, process, python, sh

# What runs beside the one that takes too much, before and after it.
BESIDE = "sleep 100001"
# Every limit of a group, what it becomes, and what the kernel's files say then. The last one is without any.
EVERY = [
    ({"resources": limits(memory="64Mi", cpu="500m"), "memoryMin": "8Mi", "memoryHigh": "48Mi", "memorySwapMax": "16Mi",
      "tasksMax": 20, "cpuWeight": 50, "ioWeight": 50, "ioReadBandwidthMax": "2Mi", "ioWriteBandwidthMax": "3Mi",
      "allowedCPUs": "0"},
     {"memory.max": str(64 * MIB), "memory.min": str(8 * MIB), "memory.high": str(48 * MIB), "memory.swap.max": str(16 * MIB),
      "pids.max": "20", "cpu.max": "50000 100000", "cpu.weight": "50", "io.weight": "default 50",
      "io.max": f"rbps={2 * MIB} wbps={3 * MIB} ", "cpuset.cpus": "0"}),
    ({"resources": limits(memory="80Mi", cpu="700m"), "memoryMin": "4Mi", "memoryHigh": "56Mi", "memorySwapMax": "0",
      "tasksMax": 30, "cpuWeight": 70, "ioWeight": 200, "ioReadBandwidthMax": "5Mi", "allowedCPUs": "0-1"},
     {"memory.max": str(80 * MIB), "memory.min": str(4 * MIB), "memory.high": str(56 * MIB), "memory.swap.max": "0",
      "pids.max": "30", "cpu.max": "70000 100000", "cpu.weight": "70", "io.weight": "default 200",
      "io.max": f"rbps={5 * MIB} wbps=max ", "cpuset.cpus": "0-1"}),
    ({},
     {"memory.max": "max", "memory.min": "0", "memory.high": "max", "memory.swap.max": "max", "pids.max": "4096",
      "cpu.max": "max 100000", "cpu.weight": "100", "io.weight": "default 100", "io.max": "", "cpuset.cpus.effective": "0-1"}),
]


def first_figures(text):
    """`io.max` and its like name the disk first; one that is left out has no limit."""
    return re.sub(r"(?m)^\d+:\d+ ", "", text or "")


class Limits(Checks):
    def memory(self):
        exit_ = self.ended("hog")
        status = self.status("hog")
        text = f"{exit_} {status.get('reason')} {status.get('message')}"
        self.expect("the end of what took too much is OutOfMemory", "OutOfMemory" in text, text)
        left = self.guest.done("pgrep", "-fx", BESIDE)[1].split()
        self.expect("its whole tree is gone", not left, left)
        until("there is an event that says so", lambda: "OutOfMemory" in self.events("process/hog"))
        self.ok("memory: a child took more than the limit, the whole tree ended, OutOfMemory")

    def pids(self):
        line = self.said("forks", "after").strip()
        self.expect("fork fails with EAGAIN", "EAGAIN" in line, line)
        group = self.group("forks")
        found = [self.value(group, "pids.max"), self.value(group, "pids.current")]
        self.expect("eight and no more", found == ["8", "8"], found)
        self.ok(f"tasksMax 8: {line[line.index('after'):]}")

    def cpu(self):
        group = self.group("spins")
        first, begin = self.figures(group, "cpu.stat")
        last, end = until("five seconds of the machine's clock are over", lambda: (
            lambda found: found if found[1] - begin >= 5 else None)(self.figures(group, "cpu.stat")))
        share = (last["usage_usec"] - first["usage_usec"]) / 1e6 / (end - begin)
        throttled = last["nr_throttled"] - first["nr_throttled"]
        self.expect("it is throttled", throttled > 0, last)
        # Two loops would take two cores; the limit is a fifth of one.
        self.expect("it uses about its limit of 200m", 0.08 <= share <= 0.26, f"{share * 1000:.0f}m")
        self.ok(f"cpu 200m: two busy loops used {share * 1000:.0f}m, throttled {throttled} times in {end - begin:.1f} s")

    def disk(self):
        for name, setting, word in (("writes", "wbps", "wbytes"), ("reads", "rbps", "rbytes")):
            group = self.group(name)
            self.expect(f"io.max of {name} has it", f"{setting}=1048576" in self.value(group, "io.max"), self.value(group, "io.max"))
            def moved(group=group, word=word):
                text, clock = self.guest.read(f"{group}/io.stat", "/proc/uptime")
                return max((int(n) for n in re.findall(word + r"=(\d+)", text or "")), default=0), float(clock.split()[0])
            first, begin = until(f"{name} does", lambda: (lambda found: found[0] > 0 and found)(moved()))
            last, end = until("six seconds of the machine's clock are over", lambda: (
                lambda found: found if found[1] - begin >= 6 else None)(moved()))
            rate = (last - first) / (end - begin)
            self.expect(f"{name} goes on, at most 1 MiB/s and a burst", 0 < rate < 1.6 * MIB, f"{rate / MIB:.2f} MiB/s")
            self.ok(f"{name}: at most 1Mi asked, {rate / MIB:.2f} MiB/s past the cache")

    def in_place(self):
        before, group = self.running("plain"), self.group("plain")
        incarnation = self.status("plain")["incarnation"]
        self.expect("memory.max is the limit", self.value(group, "memory.max") == str(64 * MIB), self.value(group, "memory.max"))
        self.plane.apply(manifest(process("plain", sh(WAIT), NODE, resources=limits(memory="96Mi", cpu="1500m"), cpuWeight=300,
                                          limitNOFILE=4096)))
        for file, wanted in (("memory.max", str(96 * MIB)), ("cpu.weight", "300"), ("cpu.max", "150000 100000")):
            until(f"{file} is {wanted}", lambda f=file, w=wanted: self.value(group, f) == w)
        until("open files are 4096", lambda: self.line_of(self.proc("plain", "limits"), "Max open files").split()[3:5] == ["4096", "4096"])
        self.expect("the process is the same one", self.guest.group_of(before) == group and self.running("plain") == before)
        self.expect("it was not restarted", self.status("plain")["incarnation"] == incarnation, self.status("plain"))
        self.ok(f"memory, cpu, cpuWeight and limitNOFILE changed in place: pid {before} as before")

    def cpuset(self):
        group = self.group("second")
        found = self.value(group, "cpuset.cpus.effective"), self.line_of(self.proc("second", "status"), "Cpus_allowed_list").split()[1]
        self.expect("it runs on core 1 alone", found == ("1", "1"), found)
        self.ok("allowedCPUs 1: core 1 alone")

    def every_in_place(self):
        """Each limit of a group, set, changed and lifted under one process."""
        pid = None
        for fields, files in EVERY:
            self.plane.apply(manifest(process("every", sh(WAIT), NODE, **fields)))
            pid = pid or self.running("every")
            group = self.group("every")
            for file, wanted in files.items():
                exact = file != "io.max" or wanted == ""
                until(f"{file} is {wanted!r} with {fields}", lambda f=file, w=wanted, e=exact: (
                    lambda found: found.strip() == w.strip() if e else w in found)(first_figures(self.guest.read(f"{group}/{f}"))))
            self.expect("same process", self.running("every") == pid)
        self.expect("it was not restarted", self.status("every")["incarnation"] == 1, self.status("every"))
        self.ok(f"each of {len(EVERY[0][1])} limits set, changed and lifted in place: pid {pid} as before")

    def memory_high(self):
        """Above memoryHigh it is slowed and not killed; with a higher one it gets on."""
        def soft(high):
            self.plane.apply(manifest(process("soft", python(TAKE.format(60)), NODE, resources=limits(memory="96Mi"),
                                              memoryHigh=high, memorySwapMax="0")))
        soft("24Mi")
        group = self.group("soft")
        until("it is slowed", lambda: self.figures(group, "memory.events")[0].get("high", 0) > 0)
        self.expect("it has not got what it wants", "took" not in self.plane.cli("logs", "process/soft").stdout)
        soft("90Mi")
        self.said("soft", "took 60 MiB")
        kills = self.figures(group, "memory.events")[0]["oom_kill"]
        self.expect("nothing was killed", kills == 0 and self.status("soft")["incarnation"] == 1, self.status("soft"))
        self.plane.ostler("delete", "process/soft", "--wait=false")
        self.ok("memoryHigh: slowed above it, not killed; raised in place, it gets on")
