"""chat.py - weft chat on a terminal: a turn, Ctrl-C during an answer and at the prompt, commands, history.

usage: chat.py WEFT MODEL FOLDER"""
import os
import pty
import select
import signal
import sys
import time

weft, model, folder = sys.argv[1:]


def start(*options):
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm", XDG_STATE_HOME=folder)
        os.execv(weft, [weft, "chat", "-m", model, "--chat-template", "chatml", "--temp", "0", *options])
    return pid, fd


def until(fd, text, seconds=20):
    seen, end = b"", time.time() + seconds
    while time.time() < end:
        if select.select([fd], [], [], 0.1)[0]:
            try:
                seen += os.read(fd, 65536)
            except OSError:
                break
            if text in seen:
                return seen
    raise SystemExit(f"expected {text!r}, found {seen!r}")


def ends(pid, code=0):
    status = os.waitpid(pid, 0)[1]
    assert os.waitstatus_to_exitcode(status) == code, status


# a turn, then Ctrl-C stops an endless answer and the program goes on
pid, fd = start("--ignore-eos", "-c", "400")
until(fd, b"> ")
os.write(fd, b"Hello\r")
time.sleep(0.05)
os.write(fd, b"\x03")
until(fd, b"> ")
os.write(fd, b"half a line\x03")
until(fd, b"/exit leaves)")
os.write(fd, b"/help\r")
until(fd, b"/reset starts anew")
os.write(fd, b"/reset\r")
until(fd, b"> ")
os.write(fd, b"/exit\r")
ends(pid)

# Ctrl-D leaves; what was typed is remembered
pid, fd = start("-n", "2")
until(fd, b"> ")
os.write(fd, b"\x10\x10\x10\x10")
until(fd, b"Hello")
os.write(fd, b"\x15\x04")
ends(pid)
assert "Hello" in open(folder + "/weft/history").read()
assert os.stat(folder + "/weft/history").st_mode & 0o77 == 0

# Ctrl-C during run: the text so far, exit code 130
pid = os.fork()
if pid == 0:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.execv(weft, [weft, "run", "-m", model, "-p", "Once", "--ignore-eos", "-c", "200000"])
time.sleep(1)
os.kill(pid, signal.SIGINT)
ends(pid, 130)
