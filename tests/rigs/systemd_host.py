"""One host in a box with Ostler installed as a package would install it.

What is assumed of other parts of the project is here and nowhere else: the flags of `ostler setup`,
the folders it writes (`Layout`), and where each of its files goes on a host
(`Host.install_configuration`). Everything else about the host is in systemd/ and in `systemd-box`.
"""

import json
import os
import pathlib
import shutil
import subprocess
import time

RIGS = pathlib.Path(__file__).resolve().parent
UNITS = ["ostler-nats", "ostler-controller", "ostler-holder", "ostler-workload-stop", "ostler-agent"]
NODE = "h1"
# Whom `ostler setup` makes when it is told of nobody.
CONTEXT = "OSTLER_CONTEXT=/root/admin/context.json"
# Nothing here takes longer than a few seconds on an idle machine; a loaded one gets this long.
PATIENCE_S = 60


class Miss(Exception):
    """A check did not hold; the text names it."""


def until(what, probe, seconds=PATIENCE_S):
    """Waits for the state `probe` describes, and returns what it returned."""
    deadline = time.monotonic() + seconds
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > deadline:
            raise Miss(f"not so after {seconds} s: {what}")
        time.sleep(0.05)


class Layout:
    """What `ostler setup` writes below its --out folder."""

    def __init__(self, programs, out, *words):
        """A first run for one node; with `words`, a later one that adds what they say."""
        self.out = out
        done = subprocess.run([programs / "ostler", "setup", "--out", out, *(words or ("--node", NODE))],
                              capture_output=True, text=True)
        if done.returncode != 0:
            raise Miss(f"ostler setup: {done.stderr}")
        self.controller = out / "controller"
        self.node = out / "nodes" / NODE
        self.server = self._only(out / "nats", "*.conf")

    @staticmethod
    def _only(folder, pattern):
        found = sorted(folder.glob(pattern))
        if not found:
            raise Miss(f"ostler setup wrote no {pattern} in {folder}")
        return found[0]

    def files(self):
        """(file, place on the host) of everything a host of all roles needs."""
        yield self.server, "/etc/ostler/nats.conf"
        for part in sorted(p for p in (self.server.parent / "tls").rglob("*") if p.is_file()):
            yield part, f"/etc/ostler/tls/{part.relative_to(self.server.parent / 'tls')}"
        # The settings name their keys relative to their own folder, so all go beside them.
        for part in sorted(self.controller.iterdir()) + sorted(self.node.iterdir()):
            yield part, f"/etc/ostler/{part.name}"
        for operator in sorted((self.out / "operators").iterdir()):
            for part in sorted(operator.iterdir()):
                yield part, f"/root/{operator.name}/{part.name}"


class Host:
    """The box: `with Host(programs, nats_server, scratch) as host`. Of our programs it has those named in `bound`."""

    def __init__(self, programs, nats_server, scratch, bound=("ostler", "ostler-agent", "ostler-controller")):
        self.name = f"t{os.getpid()}-{NODE}"
        self.programs = programs
        self.bound = bound
        self.scratch = scratch
        self.nats_server = nats_server
        # Kept outside, so that the shutdown can be read afterwards.
        self.journal = scratch / "journal"
        self.seen = scratch / "seen"
        self.root = None
        self.journal.mkdir()
        self.seen.mkdir()
        self.seen.chmod(0o1777)

    def __enter__(self):
        binds = [f"--bind={self.journal}:/var/log/journal", f"--bind={self.seen}:/seen"]
        binds += [f"--bind-ro={self.programs / p}:/usr/bin/{p}" for p in self.bound]
        binds += [f"--bind-ro={self.nats_server}:/usr/bin/nats-server"]
        self._box("up", *binds)
        # The box's own view of its files and of /proc, from outside.
        self.root = pathlib.Path("/proc", self._box("pid", capture_output=True).stdout.strip(), "root")
        return self

    def __exit__(self, *_):
        self._box("kill", check=False)

    def _box(self, act, *arguments, check=True, **options):
        command = [RIGS / "systemd-box", act, self.name, *arguments]
        return subprocess.run(command, check=check, text=True, **options)

    def run(self, *command, check=True):
        """Runs inside, returns stdout without the last line end; stderr is kept with it if it fails."""
        done = self._box("exec", *command, check=False, capture_output=True)
        if check and done.returncode != 0:
            raise Miss(f"`{' '.join(map(str, command))}` ended with {done.returncode}: {done.stdout}{done.stderr}".strip())
        return done.stdout.rstrip("\n")

    def succeeds(self, *command):
        return self._box("exec", *command, check=False, capture_output=True).returncode == 0

    def ostler(self, *words):
        return self.run("env", CONTEXT, "ostler", *words)

    def put(self, source, place):
        self._box("put", str(source), str(place))

    def write(self, text, place):
        part = self.scratch / "part"
        part.write_text(text)
        self.put(part, place)

    # Installation, in the order of a package: files, users, folders, presets; then the admin's part.

    def install_units(self):
        version = self.run("systemctl", "--version").split()[1]
        subprocess.run([RIGS / "install-units", self.root], check=True, stdout=subprocess.DEVNULL,
                       env={**os.environ, "SYSTEMD_VERSION": version})
        self.write(STANDS_FOR_NETWORK, "/etc/systemd/system/rig-network.service")
        self.run("systemd-sysusers")
        self.run("systemctl", "daemon-reload")
        self.run("systemctl", "start", "rig-network.service")

    def install_configuration(self, *added):
        layout = Layout(self.programs, self.scratch / "setup", *added)
        for source, place in layout.files():
            self.put(source, place)
        self.run("systemd-tmpfiles", "--create", "ostler.conf")

    # What systemd says.

    def show(self, unit, prop):
        return self.run("systemctl", "show", "--value", "--property", prop, unit)

    def active(self, unit):
        return self.show(unit, "ActiveState") == "active"

    def main_pid(self, unit):
        return int(self.show(unit, "MainPID"))

    def signal(self, name, pid):
        """`pid` as numbered inside. The shell's own kill: small systems have no other."""
        self.run("sh", "-c", f"kill -{name} {pid}")

    def journal_of(self, unit):
        return self.run("journalctl", "--no-pager", "--output", "cat", "--unit", unit, check=False)

    # What runs.

    def work(self, marker):
        """{pid inside: start time} of the processes that have the word `marker` on their command line."""
        found = {}
        for folder in (self.root / "proc").glob("[0-9]*"):
            try:
                if marker.encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                    # Field 22 of stat; the name before it may hold blanks, so count from its end.
                    found[int(folder.name)] = (folder / "stat").read_text().rsplit(")", 1)[1].split()[19]
            except (FileNotFoundError, ProcessLookupError):
                pass  # It ended while being read.
        return found

    def objects(self, *words):
        return json.loads(self.ostler("get", *words, "-o", "json"))["items"]

    def shut_down(self):
        """Orderly poweroff; returns the journal's messages of the whole life, oldest first."""
        self._box("down")
        shown = subprocess.run(
            ["journalctl", "--no-pager", "--directory", self.journal, "--output", "json"],
            check=True, text=True, capture_output=True,
        )
        return [json.loads(line) for line in shown.stdout.splitlines()]


# A network of the box's own would do nothing at shutdown; this marks when a real one would go.
STANDS_FOR_NETWORK = """\
[Unit]
Description=The network of this host
Wants=network.target
Before=network.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
ExecStop=/bin/true
"""


def scratch_folder():
    """A folder of this run's own; the caller removes it."""
    folder = pathlib.Path(os.environ.get("TMPDIR", "/tmp")) / f"ostler-systemd-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o755)
    return folder
