#!/usr/bin/env python3
"""Ostler's main job on real input: three agents, a config file, a server that reads it, a host lost, a bus killed.

Everything runs on this machine as the user who calls it, in a temporary folder that is removed at the end. Every step is
verified; a miss is named and the exit status is 1. Uses nothing but the standard library and the binaries in --bin.
"""
import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
PATIENCE = 30.0  # seconds that a step may take before it counts as missed


class Miss(Exception):
    """A step did not show what it should."""


def say(text=""):
    print(text, flush=True)


def step(title):
    say(f"\n== {title}")


class Demo:
    def __init__(self, bin_dir, work):
        self.ostler = os.path.join(bin_dir, "ostler")
        self.work = work
        self.dir = os.path.join(work, "dev")
        self.env = dict(os.environ, XDG_CONFIG_HOME=os.path.join(work, "config"), NO_COLOR="1")
        self.dev = None

    # -- the tools a person would use ------------------------------------------------------------------------------
    def run(self, *words, check=True, show=True):
        """Runs `ostler …` and shows command and output as a terminal would."""
        if show:
            say("$ ostler " + " ".join(words))
        done = subprocess.run([self.ostler, *words], env=self.env, capture_output=True, text=True, timeout=PATIENCE * 2)
        if show:
            for line in (done.stdout + done.stderr).splitlines():
                say("  " + line)
        if check and done.returncode != 0:
            raise Miss(f"`ostler {' '.join(words)}` ended with {done.returncode}: {done.stderr.strip()}")
        return done

    def get(self, kind, *more):
        done = self.run("get", kind, *more, "-o", "json", show=False)
        data = json.loads(done.stdout or "{}")
        return data["items"] if data.get("kind") == "List" else [data]

    def until(self, what, probe, patience=PATIENCE):
        """Waits until `probe` returns something true; returns it and the seconds it took."""
        begin = time.monotonic()
        last = None
        while time.monotonic() - begin < patience:
            try:
                last = probe()
                if last:
                    return last, time.monotonic() - begin
            except (Miss, OSError, ValueError, KeyError, IndexError, subprocess.TimeoutExpired) as error:
                last = error
            time.sleep(0.05)
        raise Miss(f"{what}: not within {patience:.0f} s (last seen: {last})")

    # -- facts -----------------------------------------------------------------------------------------------------
    def state(self):
        with open(os.path.join(self.work, "ready.json"), encoding="utf-8") as file:
            return json.load(file)

    def hosts(self):
        return {host["name"]: host for host in self.state()["hosts"]}

    def conf(self, node):
        return os.path.join(self.hosts()[node]["root"], "etc", "app.conf")

    def contents(self):
        found = {}
        for node in self.hosts():
            try:
                with open(self.conf(node), encoding="utf-8") as file:
                    found[node] = file.read()
            except OSError:
                found[node] = None
        return found

    def running(self):
        """Processes whose goal is to run and that are ready: name -> status."""
        items = self.get("processes")
        return {
            p["metadata"]["name"]: p["status"]
            for p in items
            if p["status"]["goal"] == "run" and p["status"].get("ready") and p["status"].get("pid")
        }

    def answers(self):
        """What each process answers over HTTP: name -> text."""
        found = {}
        for name, status in self.running().items():
            url = f"http://127.0.0.1:{status['ports']['http']}/"
            with urllib.request.urlopen(url, timeout=2) as answer:
                found[name] = answer.read().decode()
        return found

    def children(self, program):
        """Live children of `ostler dev` that run a program."""
        pids = []
        for task in os.listdir(f"/proc/{self.dev.pid}/task"):
            with open(f"/proc/{self.dev.pid}/task/{task}/children", encoding="ascii") as file:
                pids += [int(pid) for pid in file.read().split()]
        found = []
        for pid in pids:
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    words = file.read().split(b"\0")
                if os.path.basename(words[0]).decode() == program:
                    found.append((pid, [w.decode() for w in words]))
            except OSError:
                pass
        return found

    # -- the story -------------------------------------------------------------------------------------------------
    def start(self):
        step("ostler dev: a bus, a controller, three agents, on this machine")
        begin = time.monotonic()
        log = open(os.path.join(self.work, "dev.log"), "wb")
        words = [self.ostler, "dev", "--agents", "3", "--dir", self.dir, "--ready-file", os.path.join(self.work, "ready.json")]
        self.dev = subprocess.Popen(words, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.until("ostler dev is ready", lambda: self.dev_is_ready())
        say(f"ready after {time.monotonic() - begin:.1f} s")
        self.until("three nodes are Ready", lambda: self.phases() == ["Ready"] * 3)
        self.run("get", "nodes")

    def dev_is_ready(self):
        if self.dev.poll() is not None:
            with open(os.path.join(self.work, "dev.log"), encoding="utf-8", errors="replace") as file:
                raise SystemExit("ostler dev ended:\n" + file.read()[-4000:])
        return bool(self.state())

    def phases(self):
        return sorted(node["status"]["phase"] for node in self.get("nodes"))

    def push(self, version, text):
        path = os.path.join(self.work, f"app.conf.v{version}")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        where = ["--path", "/etc/app.conf", "--all-nodes"] if version == 1 else []
        words = ["config", "push", "app-conf", "--file", path, *where, "--bake", "0s", "--reason", f"demo v{version}", "--wait"]
        _, seconds = self.until("the push is done", lambda: self.run(*words))
        self.until(f"version {version} is on three hosts", lambda: list(self.contents().values()) == [text] * 3)
        say(f"three acknowledgements of version {version}, command included, after {seconds:.2f} s")

    def deploy(self):
        step("a Deployment: three copies of a real web server that reads /etc/app.conf")
        manifest = os.path.join(self.work, "web.yaml")
        python = os.path.realpath(sys.executable)
        with open(manifest, "w", encoding="utf-8") as file:
            file.write(
                f"""apiVersion: ostler/v1
kind: Deployment
metadata: {{name: web, labels: {{app: web}}}}
spec:
  replicas: 3
  rollout: {{bake: 1s}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      command: ["{python}", "{HERE}/server.py"]
      args: ["$(OSTLER_PORT_HTTP)", "$(OSTLER_ROOT)/etc/app.conf"]
      ports: [{{name: http, port: 0}}]
      needs: [configfile/app-conf]
      readinessProbe: {{httpGet: {{path: /, port: http, host: 127.0.0.1}}, period: 1s}}
"""
            )
        begin = time.monotonic()
        self.run("apply", "-f", manifest)
        self.until("three processes are ready", lambda: len(self.running()) == 3)
        say(f"apply -> three ready: {time.monotonic() - begin:.2f} s")
        self.run("get", "processes")
        self.served("workers = 4")

    def served(self, line):
        texts, _ = self.until(f"all serve {line!r}", lambda: self.all_serve(line))
        for text in sorted(texts.values()):
            say(f"  {text.splitlines()[0]}: {line}")

    def all_serve(self, line):
        texts = self.answers()
        return texts if len(texts) == 3 and all(line in t.splitlines() for t in texts.values()) else None

    def spoil(self):
        step("somebody edits /etc/app.conf on node-2 by hand")
        path, good = self.conf("node-2"), self.contents()["node-2"]
        with open(path, "a", encoding="utf-8") as file:
            file.write("workers = 400 # just trying\n")
        _, seconds = self.until("the file is put back", lambda: self.contents()["node-2"] == good)
        say(f"put back after {seconds * 1000:.0f} ms")
        self.until("the drift is reported", lambda: "DriftRepaired" in self.run("events", show=False).stdout)
        self.run("config", "status", "app-conf")

    def lose_host(self):
        step("node-3 dies: its agent, its holder and all its processes are killed at once")
        before = self.running()
        moved = {name for name, status in before.items() if status["node"] == "node-3"}
        if not moved:
            raise Miss("no process runs on node-3")
        host = self.hosts()["node-3"]
        begin = time.monotonic()
        for pid in [host["agent"], host["holder"], *(before[name]["pid"] for name in moved)]:
            os.kill(pid, signal.SIGKILL)
        lost, _ = self.until("node-3 is Lost", lambda: "Lost" in self.phases())
        say(f"  {time.monotonic() - begin:4.1f} s  node-3 is Lost")

        def healed():
            now = self.running()
            ok = len(now) == 3 and all(status["node"] != "node-3" for status in now.values())
            return now if ok else None

        now, _ = self.until("replacements run elsewhere", healed)
        seconds = time.monotonic() - begin
        for name in sorted(set(now) - set(before)):
            say(f"  {seconds:4.1f} s  {name} runs on {now[name]['node']} in place of {', '.join(sorted(moved))}")
        if seconds > 6.0:
            say(f"  note: slower than the bar of 6 s on this machine now: {seconds:.1f} s")
        self.run("get", "nodes")
        return seconds

    def kill_control_plane(self):
        step("controller and bus are killed, and killed again for five seconds")
        before = self.running()
        files = {node: os.stat(self.conf(node)) for node in self.hosts() if node != "node-3"}
        evictions = self.count("Evicted")
        deadline, kills = time.monotonic() + 5.0, 0
        while time.monotonic() < deadline:
            for program in ("nats-server", "ostler-controller"):
                for pid, _ in self.children(program):
                    try:
                        os.kill(pid, signal.SIGKILL)
                        kills += 1
                    except ProcessLookupError:
                        pass
            time.sleep(0.02)
        for name, status in before.items():
            if not os.path.exists(f"/proc/{status['pid']}"):
                raise Miss(f"{name} (pid {status['pid']}) did not survive")
        say(f"  {kills} kills; all {len(before)} processes still run")
        after, seconds = self.until("the control plane is back", lambda: self.running() if len(self.running()) == 3 else None)
        say(f"  back after {seconds:.1f} s")
        # One more change proves that it works and not only answers.
        self.run("scale", "deployment/web", "--replicas", "4")
        self.until("four are ready", lambda: len(self.running()) == 4)
        for name, status in before.items():
            if after[name]["pid"] != status["pid"] or after[name]["restarts"] != status["restarts"]:
                raise Miss(f"{name} was restarted")
        for node, stat in files.items():
            now = os.stat(self.conf(node))
            if (now.st_ino, now.st_mtime_ns) != (stat.st_ino, stat.st_mtime_ns):
                raise Miss(f"/etc/app.conf of {node} was written again")
        if self.count("Evicted") != evictions:
            raise Miss("something was evicted")
        say("  0 restarts, 0 file changes, 0 evictions")

    def count(self, reason):
        done = self.run("events", "-o", "json", show=False)
        return sum(1 for event in json.loads(done.stdout)["items"] if event["reason"] == reason)

    def story(self):
        step("the story, from the event stream")
        self.run("events")

    def stop(self):
        if self.dev is None:
            return
        self.dev.send_signal(signal.SIGINT)
        try:
            self.dev.wait(20)
        except subprocess.TimeoutExpired:
            self.dev.kill()
            raise Miss("ostler dev did not stop within 20 s")


def left_behind(work):
    """Processes that still have something of the demo's folder on their command line."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().replace(b"\0", b" ").decode(errors="replace")
            if work in words and int(pid) != os.getpid():
                found.append(f"{pid}: {words}")
        except OSError:
            pass
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default="target/debug", help="folder of ostler, ostler-controller, ostler-agent")
    parser.add_argument("--keep", action="store_true", help="keep the temporary folder, with all logs")
    args = parser.parse_args()
    begin = time.monotonic()
    work = tempfile.mkdtemp(prefix="ostler-demo-")
    demo = Demo(os.path.abspath(args.bin), work)
    code = 0
    try:
        demo.start()
        step("config push: version 1 of app.conf to every node")
        demo.push(1, "workers = 4\n")
        demo.deploy()
        step("config push: version 2")
        demo.push(2, "workers = 8\n")
        demo.served("workers = 8")
        demo.spoil()
        healed = demo.lose_host()
        demo.kill_control_plane()
        demo.story()
        say(f"\nHost lost -> replacements ready: {healed:.1f} s. All steps verified in {time.monotonic() - begin:.0f} s.")
    except Miss as miss:
        say(f"\nMISSED: {miss}")
        code = 1
    except KeyboardInterrupt:
        say("\nstopped")
        code = 130
    finally:
        try:
            demo.stop()
        except Miss as miss:
            say(f"MISSED: {miss}")
            code = code or 1
        left = left_behind(work)
        if left:
            say("MISSED: left behind:\n  " + "\n  ".join(left))
            code = code or 1
        if args.keep or code:
            say(f"logs are in {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
