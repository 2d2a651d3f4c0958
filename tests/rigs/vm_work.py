"""The work that vm-test runs in its machine: manifests, and the programs in them.

Programs are sh, or python3 where sh cannot. Each does one thing and then waits, so that it can be looked at.
"""

import json

# What the emulated processor does slowly must not look like a failure: a host that is late is waited for.
LATE = [{"key": "ostler/lost", "operator": "Exists"}]

WAIT = "exec sleep 100000"
# Takes so many MiB for good.
TAKE = "import time\nx = bytearray({0} << 20)\nfor i in range(0, len(x), 4096): x[i] = 1\nprint('took {0} MiB', flush=True)\ntime.sleep(100000)\n"
# Takes memory until so many parts of 100 are left of the machine's.
FILL = """\
import sys, time
def left():
    facts = dict(line.split(":") for line in open("/proc/meminfo"))
    return int(facts["MemAvailable"].split()[0]) * 100 // int(facts["MemTotal"].split()[0])
taken = []
while True:
    if left() > {0}:
        part = bytearray(4 << 20)
        for i in range(0, len(part), 4096): part[i] = 1
        taken.append(part)
    else:
        time.sleep(0.2)
"""
FORKS = """\
import errno, os, time
made = 0
while True:
    try:
        if os.fork() == 0:
            time.sleep(100000)
        made += 1
    except OSError as error:
        print("after", made, errno.errorcode[error.errno], flush=True)
        break
time.sleep(100000)
"""
# Forks until a child of its has the number that it is told; that one stays, and its command line ends on a word of its own.
REUSE = """\
import os, sys, time
wanted = int(sys.argv[1])
while (pid := os.fork()) != wanted:
    if pid == 0:
        if os.getpid() == wanted:
            os.execv("/bin/sleep", ["sleep", "100002"])
        os._exit(0)
    os.waitpid(pid, 0)
time.sleep(100000)
"""
# So many threads, which take numbers as processes do.
MANY = """\
import threading, time
for _ in range({0}):
    threading.Thread(target=time.sleep, args=(100000,)).start()
"""
# Wants more than it may have, again and again.
THRASH = """\
x = bytearray({0} << 20)
while True:
    for i in range(0, len(x), 4096): x[i] = 1
"""
BINDS = """\
import errno, socket, time
try:
    s = socket.socket()
    s.bind(("127.0.0.1", 443))
    print("bound 443", flush=True)
except OSError as error:
    print("refused", errno.errorcode[error.errno], flush=True)
time.sleep(100000)
"""
# An emulated disk has room for this.
WRITES = "while :; do dd if=/dev/zero of=$STATE_DIRECTORY/part bs=64k count=64 oflag=direct 2>/dev/null; done"
READS = ("dd if=/dev/zero of=$STATE_DIRECTORY/part bs=64k count=64 2>/dev/null; sync; "
         "while :; do dd if=$STATE_DIRECTORY/part of=/dev/null bs=64k iflag=direct 2>/dev/null; done")
SPINS = "while :; do :; done & while :; do :; done"


def sh(script):
    return ["/bin/sh", "-c", script]


def python(script):
    return ["/usr/bin/python3", "-c", script]


def spec(command, node, **fields):
    """A template: bound to a node, and patient with it."""
    return {"command": command, "nodeSelector": {"ostler/node": node}, "tolerations": LATE, "timeoutStopSec": "2s", **fields}


def process(name, command, node, **fields):
    return {"apiVersion": "ostler/v1", "kind": "Process", "metadata": {"name": name},
            "spec": spec(command, node, **fields)}


def deployment(name, command, node, **fields):
    return {"apiVersion": "ostler/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": {"replicas": 1, "template": {"metadata": {"labels": {"app": name}}, "spec": spec(command, node, **fields)}}}


def limits(**amounts):
    return {"limits": amounts, "requests": {"cpu": "10m", "memory": "4Mi"}}


def manifest(*objects):
    """JSON is YAML."""
    return "\n---\n".join(json.dumps(each) for each in objects) + "\n"
