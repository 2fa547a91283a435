# SPDX-License-Identifier: GPL-2.0
"""screen.py [-t SECONDS] [-o FILE] WIDTHxHEIGHT STEP... -- PROGRAM ARG...: a program on a terminal.

Steps, one after the other:
  see=REGEX   until a line of the screen matches
  not=REGEX   until none does
  key=TEXT    keys that are pressed; \\e, \\r and \\xNN are such
  term        SIGTERM
  end=STATUS  the program ends with this status, and the terminal is as it was

What the program has written is in FILE then. The terminal knows what ratatui and crossterm send: a place,
text, clearing, and the other screen; what they send beside that changes no text.
"""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time

ESCAPE = re.compile(rb"\x1b(?:\[([?>=]?)([0-9;]*)([@-~])|[()][0-9A-B]|[=>78cM])")


class Screen:
    def __init__(self, width, height):
        self.width, self.height = width, height
        self.other = False
        self.pending = b""
        self.clear()

    def clear(self):
        self.lines = [[" "] * self.width for _ in range(self.height)]
        self.x = self.y = 0

    def feed(self, data):
        data = self.pending + data
        at = 0
        while at < len(data):
            byte = data[at]
            if byte == 0x1B:
                m = ESCAPE.match(data, at)
                if not m:
                    if len(data) - at > 40:
                        raise SystemExit(f"unknown: {data[at:at + 40]!r}")
                    break
                self.escape(*(m.group(n) for n in (1, 2, 3)))
                at = m.end()
                continue
            if byte < 0x20:
                if byte == 0x0D:
                    self.x = 0
                elif byte == 0x0A:
                    self.y = min(self.y + 1, self.height - 1)
                at += 1
                continue
            n = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            if at + n > len(data):
                break
            if self.x < self.width:
                self.lines[self.y][self.x] = data[at:at + n].decode()
                self.x += 1
            at += n
        self.pending = data[at:]

    def escape(self, mark, numbers, what):
        if what is None:
            return
        n = [int(n or 0) for n in numbers.split(b";")]
        if what == b"H":
            row, column = (n + [1, 1])[:2] if numbers else (1, 1)
            self.y, self.x = min(row, self.height) - 1, min(column, self.width) - 1
        elif what == b"J":
            place = self.x, self.y
            self.clear()
            self.x, self.y = place
        elif what == b"K":
            self.lines[self.y][self.x:] = [" "] * (self.width - self.x)
        elif mark == b"?" and n == [1049]:
            self.other = what == b"h"
            self.clear()

    def text(self):
        return ["".join(line).rstrip() for line in self.lines]


def main():
    args = sys.argv[1:]
    seconds, raw = 20.0, None
    while args[0].startswith("-"):
        if args[0] == "-t":
            seconds = float(args[1])
        else:
            raw = args[1]
        del args[:2]
    width, height = map(int, args[0].split("x"))
    split = args.index("--")
    steps, program = args[1:split], args[split + 1:]
    screen, written = Screen(width, height), bytearray()
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    before = termios.tcgetattr(theirs)
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        os.login_tty(theirs) if hasattr(os, "login_tty") else login(theirs)
        os.execvp(program[0], program)

    def read(patience):
        if select.select([ours], [], [], patience)[0]:
            data = os.read(ours, 65536)
            written.extend(data)
            screen.feed(data)

    def fail(step):
        print(f"{step}, but the screen is:")
        print("\n".join(screen.text()))
        os.kill(pid, signal.SIGKILL)
        if raw:
            open(raw, "wb").write(written)
        sys.exit(1)

    for step in steps:
        what, _, value = step.partition("=")
        limit = time.monotonic() + seconds
        if what == "key":
            keys = value.replace("\\e", "\\x1b").encode().decode("unicode_escape")
            os.write(ours, keys.encode())
        elif what == "term":
            os.kill(pid, signal.SIGTERM)
        elif what in ("see", "not"):
            pattern = re.compile(value)
            while any(map(pattern.search, screen.text())) != (what == "see") or not screen.other:
                if time.monotonic() > limit:
                    fail(step)
                read(0.2)
        elif what == "end":
            while True:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    break
                if time.monotonic() > limit:
                    fail(step)
                read(0.1)
            read(0.1)
            status = os.waitstatus_to_exitcode(status)
            if status != int(value):
                print(f"the status is {status}, and not {value}")
                sys.exit(1)
            if screen.other or b"\x1b[?1049h" not in written:
                print("the other screen is still shown, or never was")
                sys.exit(1)
            if termios.tcgetattr(theirs) != before:
                print("the terminal is not as it was")
                sys.exit(1)
    if raw:
        open(raw, "wb").write(written)
    print("ok")


def login(fd):
    os.setsid()
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
    for n in range(3):
        os.dup2(fd, n)
    if fd > 2:
        os.close(fd)


if __name__ == "__main__":
    main()
