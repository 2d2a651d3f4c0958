"""A host in a virtual machine, and the control plane outside of it.

The machine is slow (its processor is emulated), so only what must see its kernel runs inside: holder, agent and work,
installed as a package would install them. Servers, controller, a second host and the command line run beside it as
ordinary programs, on loopback; the machine reaches them through its emulated network card.

    with Plane(programs, nats_server, scratch) as plane:
        with Guest(plane, image) as guest: ...

Everything that was started ends with the blocks, in whichever way these are left.
"""

import base64
import json
import os
import shutil
import socket
import subprocess
import tarfile

from systemd_host import NODE, RIGS, Miss, until

# The host beside the machine, where what must leave can go.
OTHER = "h2"
# One more in the machine: agent and holder without any rights.
UNPRIVILEGED = "h3"
# Which address the machine has for loopback of where it runs.
OUTSIDE = "10.0.2.2"
# One answer of the machine: a service that starts or stops under load.
ANSWER_S = int(os.environ.get("OSTLER_VM_PATIENCE_S", "120"))
# Booting takes 7 s of an idle processor.
BOOT_S = 2 * ANSWER_S
# How a holder ends where none can run.
NOT_HERE = 78
# What the machine says when it has started.
UP = b"@up"
# Logs of work have a small file system of their own, which can be filled.
LOGS = "tmpfs /var/log/ostler tmpfs size=16m,mode=0755 0 0"

# The agent speaks to the server's own address, so that its certificate holds.
FORWARD_SOCKET = """\
[Socket]
ListenStream=127.0.0.1:{port}
[Install]
WantedBy=sockets.target
"""
FORWARD_SERVICE = """\
[Unit]
Requires=rig-bus.socket
[Service]
ExecStart=/usr/lib/systemd/systemd-socket-proxyd {outside}:{port}
OOMScoreAdjust=-900
"""
# An emulated processor beside other work is now and then slower than any real host that is well.
PATIENT = "[Service]\nWatchdogSec=60s\nTimeoutAbortSec=30s\nTimeoutStartSec=120s\n"


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


# A unit's own group is left for one below it at once, as newer versions of systemd do themselves (DelegateSubgroup=):
# only then can the groups beside that one have limits.
UNPRIVILEGED_START = """\
set -e
group=/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)
mkdir "$group/holder"
echo $$ > "$group/holder/cgroup.procs"
state=$STATE_DIRECTORY
mkdir -p "$RUNTIME_DIRECTORY/holder"
ostler-agent holder --dir "$RUNTIME_DIRECTORY/holder" &
until [ -S "$RUNTIME_DIRECTORY/holder/holder.sock" ]; do sleep 0.1; done
exec ostler-agent --config "$state/etc/agent.toml" --root "$state/root" --state-dir "$state/agent" \
    --run-dir "$RUNTIME_DIRECTORY" --log-dir "$state/log"
"""
UNPRIVILEGED_UNIT = """\
[Unit]
Requires=rig-bus.socket
[Service]
ExecStart=/bin/sh /usr/local/lib/rig-unprivileged
DynamicUser=yes
Delegate=yes
StateDirectory=rig-unprivileged
RuntimeDirectory=rig-unprivileged
"""


def _identity(folder):
    """A host below a folder has these of its own."""
    for file in ("machine-id", "boot-id"):
        (folder / file).write_text(os.urandom(16).hex() + "\n")


class Plane:
    """Server, controller and a second host, in a folder of their own. `wrap` are words before the commands of that host,
    `cgroup` is where its work gets groups."""

    def __init__(self, programs, nats_server, scratch, wrap=(), cgroup="none"):
        self.wrap, self.cgroup = wrap, cgroup
        self.programs, self.nats_server, self.scratch = programs, nats_server, scratch
        self.out = scratch / "setup"
        self.port, self.cluster = free_ports(2)
        self.children = []

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.children:
            self._run("ostler-agent", "holder", "--dir", self.scratch / OTHER / "run/holder", "--stop-all", "2000")
        for child in reversed(self.children):
            child.terminate()
        for child in reversed(self.children):
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def _run(self, program, *words):
        return subprocess.run([self.programs / program, *words], text=True, capture_output=True)

    def _child(self, name, *words, cwd=None):
        with open(self.scratch / f"{name}.log", "ab") as log:
            self.children.append(subprocess.Popen(
                [str(w) for w in words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=cwd or self.scratch))
        return self.children[-1]

    def all_live(self):
        """True, or a miss that names what has ended."""
        for child in self.children:
            if child.poll() not in (None, NOT_HERE):
                logs = "\n".join(self.log_of(path.stem, 3) for path in sorted(self.scratch.glob("*.log")))
                raise Miss(f"{' '.join(child.args)} ended with {child.returncode}: {logs}")
        return True

    def _start(self):
        done = self._run("ostler", "setup", "--out", self.out, "--server", f"nats-1=127.0.0.1:{self.port}:{self.cluster}",
                         *(w for node in (NODE, OTHER, UNPRIVILEGED) for w in ("--node", node)))
        if done.returncode != 0:
            raise Miss(f"ostler setup: {done.stderr}")
        conf = self.out / "nats/nats-1.conf"
        text = conf.read_text().replace("/var/lib/ostler/nats", str(self.scratch / "store")).replace("0.0.0.0", "127.0.0.1")
        conf.write_text(text)
        # It takes its certificates from where it is started.
        self._child("nats", self.nats_server, "-c", conf, cwd=conf.parent)
        self._child("controller", self.programs / "ostler-controller", "--config", self.out / "controller/controller.toml",
                    "--http", "")
        host = self.scratch / OTHER
        (host / "run/holder").mkdir(parents=True)
        (host / "root/etc").mkdir(parents=True)
        _identity(host / "root/etc")
        self._holder()
        until("the second host's holder listens", lambda: (
            (host / "run/holder/holder.sock").exists() or self.holder.poll() is not None))
        self._child(OTHER, *self.wrap, self.programs / "ostler-agent", "--config", self.out / "nodes" / OTHER / "agent.toml", "--root", host / "root",
                    "--state-dir", host / "state", "--run-dir", host / "run", "--log-dir", host / "log")
        until("the API answers", lambda: self.all_live() and self.cli("get", "nodes").returncode == 0)

    def _holder(self):
        self.holder = self._child(f"{OTHER}-holder", *self.wrap, self.programs / "ostler-agent", "holder", "--dir",
                                  self.scratch / OTHER / "run/holder", "--cgroup", self.cgroup)

    def restart_holder(self):
        """The second host's holder is killed, and another one started."""
        self.holder.kill()
        self.holder.wait()
        self.children.remove(self.holder)
        self._holder()

    # What the control plane says.

    def cli(self, *words):
        environment = {**os.environ, "OSTLER_CONTEXT": str(self.out / "operators/admin/context.json")}
        return subprocess.run([self.programs / "ostler", *words], text=True, capture_output=True, env=environment)

    def ostler(self, *words):
        done = self.cli(*words)
        if done.returncode != 0:
            raise Miss(f"`ostler {' '.join(map(str, words))}` ended with {done.returncode}: {done.stdout}{done.stderr}".strip())
        return done.stdout

    def apply(self, manifest):
        # A controller makes it once it leads, which may be after a host has registered.
        until("the namespace is there", lambda: self.object("namespace/default"))
        path = self.scratch / "manifest.yaml"
        path.write_text(manifest)
        self.ostler("apply", "-f", path)

    def objects(self, *words):
        return json.loads(self.ostler("get", *words, "-o", "json"))["items"]

    def object(self, *words):
        """One object, or None."""
        done = self.cli("get", *words, "-o", "json")
        return json.loads(done.stdout) if done.returncode == 0 else None

    def log_of(self, name, lines=15):
        path = self.scratch / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""


class Guest:
    """The machine: everything that is done inside goes through one line of talk."""

    def __init__(self, plane, image, agent_settings):
        self.plane, self.image, self.settings = plane, image, agent_settings
        self.folder = plane.scratch / "vm"
        self.folder.mkdir()
        self.qemu = self.talk = self.line = None
        self.asked = 0

    def __enter__(self):
        try:
            self._pack()
            self._boot()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.line:
            self.line.close()
        if self.qemu:
            self.qemu.kill()
            self.qemu.wait()

    def _pack(self):
        """What a package and the admin put on the host, as one tar."""
        root = self.folder / "root"
        version = "0"  # The drop-in for newer ones is added inside, where the version is known.
        subprocess.run([RIGS / "install-units", root], check=True, stdout=subprocess.DEVNULL,
                       env={**os.environ, "SYSTEMD_VERSION": version})
        for part in sorted((self.plane.out / "nodes" / NODE).iterdir()):
            place = root / "etc/ostler" / part.name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(part, place)
        with open(root / "etc/ostler/agent.toml", "a") as file:
            file.write(self.settings)
        state = root / "var/lib/private/rig-unprivileged"
        shutil.copytree(self.plane.out / "nodes" / UNPRIVILEGED, state / "etc")
        (state / "root/etc").mkdir(parents=True)
        _identity(state / "root/etc")
        script = root / "usr/local/lib/rig-unprivileged"
        script.parent.mkdir(parents=True)
        script.write_text(UNPRIVILEGED_START)
        binary = root / "usr/bin/ostler-agent"
        binary.parent.mkdir(parents=True)
        subprocess.run(["strip", "-o", binary, self.plane.programs / "ostler-agent"], check=True)
        units = root / "etc/systemd/system"
        (units / "ostler-agent.service.d").mkdir(parents=True)
        (units / "ostler-agent.service.d/patient.conf").write_text(PATIENT)
        words = {"port": self.plane.port, "outside": OUTSIDE}
        (units / "rig-bus.socket").write_text(FORWARD_SOCKET.format(**words))
        (units / "rig-bus.service").write_text(FORWARD_SERVICE.format(**words))
        (units / "rig-unprivileged.service").write_text(UNPRIVILEGED_UNIT)
        with tarfile.open(self.folder / "tar", "w") as tar:
            for part in sorted(root.rglob("*")):
                if not part.is_dir():
                    tar.add(part, part.relative_to(root))

    def _boot(self):
        line = self.folder / "line"
        command = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-smp", "2", "-cpu", "max", "-m", "640",
                   "-nodefaults", "-nographic",
                   "-kernel", self.image / "kernel", "-initrd", self.image / "initrd",
                   "-append", "console=ttyS0 quiet panic=-1 no_timer_check mitigations=off psi=1 systemd.unit=multi-user.target",
                   "-drive", f"file={self.image}/root.ext4,format=raw,if=virtio,snapshot=on",
                   "-drive", f"file={self.folder}/tar,format=raw,if=virtio,readonly=on",
                   "-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n,romfile=",
                   "-serial", f"file:{self.folder}/console", "-serial", f"unix:{line},server=on,wait=off"]
        with open(self.folder / "qemu", "wb") as log:
            # Its own session: an interrupt of the rig is the rig's to answer. TMPDIR takes what the machine writes.
            self.qemu = subprocess.Popen([str(w) for w in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                         start_new_session=True, env={**os.environ, "TMPDIR": str(self.folder)})
        until("qemu listens", lambda: line.exists() or self._gone())
        talk = socket.socket(socket.AF_UNIX)
        talk.connect(str(line))
        self.talk, self.line = talk, talk.makefile("rwb", buffering=0)
        self._up()

    def _up(self):
        self.talk.settimeout(BOOT_S)
        try:
            while UP not in (read := self.line.readline()):
                if not read:
                    self._gone(True)
        except TimeoutError:
            raise Miss(f"the machine did not start in {BOOT_S} s: {self.console()}") from None
        self.talk.settimeout(ANSWER_S)

    def reboot(self):
        """At once, as by a power cut: nothing is asked to end. What was written to its disk is there afterwards."""
        self.line.write(b" ".join(base64.b64encode(w) for w in (b"0", b"run", b"sh", b"-c", b"echo b > /proc/sysrq-trigger")) + b"\n")
        self._up()

    def _gone(self, surely=False):
        if surely or self.qemu.poll() is not None:
            raise Miss(f"the machine is gone: {self.console()}")
        return False

    def console(self):
        texts = [path.read_text(errors="replace").splitlines()[-15:] for path in (self.folder / "console", self.folder / "qemu")
                 if path.exists()]
        return "\n".join(line for text in texts for line in text)

    # The talk.

    def _ask(self, *words):
        self.asked += 1
        words = [str(self.asked), *map(str, words)]
        self.line.write(b" ".join(base64.b64encode(w.encode()) for w in words) + b"\n")
        while True:
            try:
                answer = self.line.readline()
            except TimeoutError:
                raise Miss(f"no answer in {ANSWER_S} s to {words[1:]}: {self.console()}") from None
            if not answer:
                self._gone(True)
            if UP in answer:
                raise Miss(f"the machine restarted by itself: {self.console()}")
            found = answer.split(b" ")
            if found[0] == b"@" + words[0].encode():
                return int(found[1]), found[2], found[3].strip()

    @staticmethod
    def _text(part):
        return "" if part == b"=" else base64.b64decode(part).decode(errors="replace")

    def done(self, *command):
        """(exit status, output, errors) of a command inside."""
        code, out, errors = self._ask("run", *command)
        return code, self._text(out), self._text(errors)

    def run(self, *command):
        code, out, errors = self.done(*command)
        if code != 0:
            raise Miss(f"`{' '.join(map(str, command))}` ended with {code}: {out}{errors}".strip())
        return out.rstrip("\n")

    def sh(self, script):
        return self.run("sh", "-c", script)

    def read(self, *paths):
        """The text of files, None for one that cannot be read; of one file, that."""
        _, answer, _ = self._ask("read", *paths)
        texts = [None if w == b"!" else self._text(w) for w in base64.b64decode(answer).split(b" ")]
        return texts[0] if len(paths) == 1 else texts

    # systemd inside.

    def show(self, unit, prop):
        return self.run("systemctl", "show", "--value", "--property", prop, unit)

    def active(self, unit):
        return self.show(unit, "ActiveState") == "active"

    def main_pid(self, unit):
        return int(self.show(unit, "MainPID"))

    def journal_of(self, unit, lines=20):
        return self.done("journalctl", "--no-pager", "--output", "cat", "--lines", lines, "--unit", unit)[1]

    def network(self):
        self.run("modprobe", "virtio_net")
        self.sh("until d=$(ls /sys/class/net | grep -v lo); do sleep 0.1; done; "
                "ip addr add 10.0.2.15/24 dev $d; ip link set $d up")

    def install(self):
        """As a package does it: users, folders, units; and the network."""
        self.network()
        self.sh(f"echo '{LOGS}' >> /etc/fstab; mkdir -p /var/log/ostler; mount /var/log/ostler")
        version = int(self.run("systemctl", "--version").split()[1])
        if version >= 254:
            name = "ostler-holder.service.d/50-subgroup.conf"
            text = (RIGS.parent.parent / "systemd/drop-ins/systemd-254" / name).read_text()
            self.sh(f"mkdir -p /usr/lib/systemd/system/ostler-holder.service.d; cat > /usr/lib/systemd/system/{name} <<'E'\n{text}\nE")
        self.run("systemd-sysusers")
        self.run("systemd-tmpfiles", "--create", "ostler.conf")
        self.run("systemctl", "daemon-reload")
        return version

    # What runs inside.

    def group_of(self, pid):
        """The folder of a process's group."""
        for line in (self.read(f"/proc/{pid}/cgroup") or "").splitlines():
            if line.startswith("0::"):
                return "/sys/fs/cgroup" + line[3:]
        return None
