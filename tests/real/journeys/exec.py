"""A person at a terminal: `ostler exec -it`, driven through a pseudo-terminal. Prints `done` when all was as it should be."""

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time

OSTLER, TARGET, AGENT = sys.argv[1], sys.argv[2], int(sys.argv[3])
LIMIT = 60


def start():
    pid, master = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm-256color"
        os.execv(OSTLER, [OSTLER, "exec", "-it", TARGET, "--", "/bin/sh"])
    return pid, master


def size(master, rows, columns):
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def until(master, text):
    heard, end = b"", time.monotonic() + LIMIT
    while text not in heard:
        if time.monotonic() > end:
            sys.exit(f"waited in vain for {text!r}: {heard!r}")
        if select.select([master], [], [], 0.1)[0]:
            try:
                heard += os.read(master, 65536)
            except OSError:
                sys.exit(f"it ended before {text!r}: {heard!r}")
    return heard


def prompt(master):
    """Something that ends as the prompts of shells do: keys typed before could be taken by the wrong mode."""
    heard, end = b"", time.monotonic() + LIMIT
    while not heard.endswith((b"# ", b"$ ")):
        if time.monotonic() > end:
            sys.exit(f"no prompt: {heard!r}")
        if select.select([master], [], [], 0.1)[0]:
            heard += os.read(master, 65536)


def ends(pid, master, code):
    found = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert found == code, f"exit code {found}, not {code}"
    mode = termios.tcgetattr(master)[3]
    assert mode & termios.ECHO and mode & termios.ICANON, "the terminal is not as it was"


pid, master = start()
prompt(master)
os.write(master, b"echo be''gun $TERM\r")
until(master, b"begun xterm-256color")
size(master, 41, 123)
# The new size travels by itself: it is asked for until it is there.
for _ in range(LIMIT):
    os.write(master, b"stty size; echo as''ked\r")
    if b"41 123" in until(master, b"asked"):
        break
else:
    sys.exit("the size did not arrive")
os.write(master, b"sh -c 'echo as''leep; exec sleep 1000'\r")
until(master, b"asleep")
os.write(master, b"\x03")
until(master, b"^C")
os.write(master, b"echo co''de $?\r")
until(master, b"code 130")
os.write(master, b"exit 42\r")
ends(pid, master, 42)

pid, master = start()
prompt(master)
os.write(master, b"echo be''gun\r")
until(master, b"begun")
os.kill(AGENT, signal.SIGKILL)
until(master, b"error: ")
ends(pid, master, 1)
print("done")
