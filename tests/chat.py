"""chat.py - weft chat on a terminal: a turn, Ctrl-C during an answer and at the prompt, commands, history.

usage: chat.py WEFT MODEL FOLDER"""
import os
import pty
import random
import select
import signal
import sys
import termios
import time

weft, model, folder = sys.argv[1:]


def start(*options, state=folder, home=folder):
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm", LC_ALL="C.UTF-8", XDG_STATE_HOME=state, HOME=home)
        os.execv(weft, [weft, "chat", "-m", model, "--chat-template", "chatml", "--temp", "0", *options])
    return pid, fd


rest = {}    # what a terminal printed past the text that was waited for


def until(fd, text, seconds=20):
    seen, end = rest.pop(fd, b""), time.time() + seconds
    while text not in seen:
        if time.time() > end:
            raise SystemExit(f"expected {text!r}, found {seen!r}")
        if select.select([fd], [], [], 0.1)[0]:
            try:
                seen += os.read(fd, 65536)
            except OSError:
                end = 0
    rest[fd] = seen[seen.index(text) + len(text):]


def editing(fd, seconds=20):
    """The prompt is printed before the terminal is the editor's: what is typed in between is the terminal's to edit."""
    end = time.time() + seconds
    while termios.tcgetattr(fd)[3] & termios.ICANON:
        if time.time() > end:
            raise SystemExit("expected a terminal without lines of its own")
        time.sleep(0.001)


def ends(pid, code=0, seconds=20):
    signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, signal.SIGKILL))
    signal.alarm(seconds)
    status = os.waitpid(pid, 0)[1]
    signal.alarm(0)
    assert os.waitstatus_to_exitcode(status) == code, status


def stopped(fd, line, echo):
    """A turn whose answer is stopped once a word of it is there."""
    os.write(fd, line)
    until(fd, echo)
    until(fd, b" ")
    os.write(fd, b"\x03")
    until(fd, b"\n> ")


# a turn, then Ctrl-C stops an endless answer and the program goes on
pid, fd = start("--ignore-eos", "-c", "400")
until(fd, b"> ")
stopped(fd, b"Hello\r", b"Hello\r\n")
editing(fd)
os.write(fd, b"half a line\x03")
until(fd, b"/exit leaves)")

# at whatever moment it comes: before the line is read, as the answer begins, between two words of it
moment = random.Random(1)
for _ in range(40):
    os.write(fd, b"Hello\r")
    time.sleep(moment.uniform(0, 0.03))
    os.write(fd, b"\x03")
    os.write(fd, b"/help\r")
    until(fd, b"/reset starts anew")
    until(fd, b"> ")
    os.write(fd, b"/reset\r")
    until(fd, b"\n> ")
editing(fd)
stopped(fd, b"\xc3\xa9t\xc3\xa9\x7f\xc3\xa8 \r", b"\n")
os.write(fd, b"/exit\r")
ends(pid)
assert "étè" in open(folder + "/weft/history", encoding="utf-8").read()

# Ctrl-D leaves; what was typed is remembered
pid, fd = start("-n", "2")
until(fd, b"> ")
editing(fd)
os.write(fd, b"\x10" * 5)
until(fd, b"Hello")
os.write(fd, b"\x15\x04")
ends(pid)
assert "Hello" in open(folder + "/weft/history").read()
assert os.stat(folder + "/weft/history").st_mode & 0o77 == 0

# a home that is not there is not made
pid, fd = start("-n", "2", state="", home=folder + "/nonexistent")
until(fd, b"> ")
os.write(fd, b"/exit\r")
ends(pid)
assert not os.path.exists(folder + "/nonexistent")

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
