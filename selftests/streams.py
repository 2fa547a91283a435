#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Datagrams one way, for the selftests: their payload is that of traffic.py, and says whether they came through whole.

send, sink      numbered UDP datagrams: what got lost, doubled, broken
crowd           UDP from some addresses, from each by some flows
wave            one datagram on each of many flows, as raw frames
zipf            the same, for a while, on few flows much and on many little
"""
import json
import random
import signal
import socket
import struct
import time

from traffic import check_datagram, datagram, dual, family
from commands import Commands


# ------------------------------------------------------------------ many flows

class Frames:
    """UDP datagrams of many flows as raw frames: of 20 flows 10 are IPv4, unless only those are wanted."""

    def __init__(self, dev, router):
        self.s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.s.bind((dev, 0))
        dst = bytes(int(x, 16) for x in router.split(":"))
        mac = self.s.getsockname()[4]
        self.eth = {4: dst + mac + b"\x08\x00", 6: dst + mac + b"\x86\xdd"}
        self.d4, self.d6 = socket.inet_aton("10.0.2.2"), socket.inet_pton(socket.AF_INET6, "fd00:2::2")

    @staticmethod
    def fold(data):
        n = sum(struct.unpack(f"!{len(data) // 2}H", data))
        while n >> 16:
            n = (n & 0xffff) + (n >> 16)
        return n

    def make(self, i, body, v4=False):
        sport, dport = 1024 + i // 20 % 60000, 7000 + i % 10
        udp = struct.pack("!HHHH", sport, dport, 8 + len(body), 0)
        if v4 or i % 20 < 10:
            src = socket.inet_aton(f"10.1.{i // 250 % 250}.{1 + i % 250}")
            ps = src + self.d4 + struct.pack("!HH", 17, len(udp + body))
            ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp + body), i & 0xffff, 0x4000, 64, 17, 0) + src + self.d4
            ip = ip[:10] + struct.pack("!H", ~self.fold(ip) & 0xffff) + ip[12:]
            kind = 4
        else:
            src = socket.inet_pton(socket.AF_INET6, f"fd00:11::{i >> 16:x}:{i & 0xffff:x}")
            ps = src + self.d6 + struct.pack("!HH", 17, len(udp + body))
            ip = struct.pack("!IHBB", 6 << 28, len(udp + body), 17, 64) + src + self.d6
            kind = 6
        check = ~self.fold(ps + udp + body) & 0xffff or 0xffff
        return self.eth[kind] + ip + udp[:6] + struct.pack("!H", check) + body

    def send(self, frame):
        while True:
            try:
                self.s.send(frame)
                return
            except OSError:
                time.sleep(0.001)


def wave(a):
    """--repeat datagrams on each of --flows flows, as raw frames, in random order."""
    frames = Frames(a.dev, a.mac)
    order = list(range(a.flows))
    random.Random(a.seed).shuffle(order)
    body = a.seed.to_bytes(4, "big") * 4
    for i in order:
        frame = frames.make(i, body)
        for _ in range(a.repeat):
            frames.send(frame)


def zipf(a):
    """--rate datagrams a second on --flows flows, the k-th heaviest of which gets a share as 1/k^--exponent.
    A line for each second: its number; what was sent; what of it was of the --best flows that sent most;
    and by how much the number in --watch (name in FILE) has grown. With --shift other flows are the heavy
    ones after so many seconds."""
    frames = Frames(a.dev, a.mac)
    ready = [frames.make(i, bytes(a.size), v4=True) for i in range(a.flows)]
    rng = random.Random(a.seed)
    rng.shuffle(ready)
    sums, total = [], 0.0
    for k in range(a.flows):
        total += (k + 1) ** -a.exponent
        sums.append(total)
    name, path = a.watch.split("@")

    def watched():
        with open(path) as f:
            return next(int(line.split()[1]) for line in f if line.startswith(name + " "))
    start, seconds, ranks, n = time.monotonic(), [], range(a.flows), 0
    seen = watched()
    for second in range(a.seconds):
        shift = second // a.shift * 1000 if a.shift else 0
        counts = {}
        sent = 0
        while time.monotonic() < start + second + 1:
            for k in rng.choices(ranks, cum_weights=sums, k=50):
                i = (k + shift) % a.flows
                frames.send(ready[i])
                counts[i] = counts.get(i, 0) + 1
            sent += 50
            n += 50
            ahead = start + n / a.rate - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)
        now = watched()
        seconds.append((shift, sent, counts, now - seen))
        seen = now
    for shift in sorted({s[0] for s in seconds}):
        sums = {}
        for _, _, counts, _ in (s for s in seconds if s[0] == shift):
            for i, c in counts.items():
                sums[i] = sums.get(i, 0) + c
        best = set(sorted(sums, key=sums.get)[-a.best:])
        for at, (s, sent, counts, grown) in enumerate(seconds):
            if s == shift:
                print(at, sent, sum(c for i, c in counts.items() if i in best), grown)


# ------------------------------------------------------------------ one way

def send(a):
    """Until --count datagrams are sent or the process is ended."""
    s = socket.socket(family(a.addr), socket.SOCK_DGRAM)
    if a.sport:
        s.bind(("", a.sport))
    s.connect((a.addr, a.port))
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    seq, start, errors = 0, time.monotonic(), 0
    while not stopped and (not a.count or seq < a.count):
        seq += 1
        try:
            s.send(datagram(seq, a.size))
        except OSError:
            errors += 1
        ahead = start + seq / a.rate - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)
    if a.out:
        with open(a.out, "w") as f:
            json.dump({"sent": seq, "errors": errors}, f)


def crowd(a):
    """All flows at the same rate, until the process is ended."""
    socks = []
    for host in a.hosts:
        src, n, port = host.split("#")
        for _ in range(int(n)):
            s = socket.socket(family(a.addr), socket.SOCK_DGRAM)
            s.bind((src, 0))
            s.connect((a.addr, int(port)))
            s.setblocking(False)
            socks.append(s)
    seq, start = 0, time.monotonic()
    while True:
        seq += 1
        for s in socks:
            try:
                s.send(datagram(seq, a.size))
            except OSError:
                pass
        ahead = start + seq / a.rate - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)


def sink(a):
    """Counts until ended, then writes what it saw to --out."""
    s = dual(socket.SOCK_DGRAM, a.port)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    s.settimeout(0.2)
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    if a.ready:
        open(a.ready, "w").close()
    seen, bad, double, late, top, gap, gap_time = set(), 0, 0, 0, 0, 0, 0.0
    last = None
    while True:
        try:
            data = s.recv(65535)
        except OSError:
            if stopped:
                break
            continue
        now = time.monotonic()
        seq = check_datagram(data)
        if seq is None:
            bad += 1
            continue
        double += seq in seen
        late += seq < top
        if top and seq > top:
            gap = max(gap, seq - top - 1)
        if last is not None:
            gap_time = max(gap_time, now - last)
        last, top = now, max(top, seq)
        seen.add(seq)
    with open(a.out, "w") as f:
        json.dump({"received": len(seen), "bad": bad, "double": double, "reordered": late,
                   "lost": (top - min(seen) + 1 - len(seen)) if seen else 0,
                   "first": min(seen, default=0), "last": top,
                   "gap": gap, "gap_ms": round(gap_time * 1000)}, f)


def tap(a):
    """Counts the UDP datagrams to a port that leave by a device, or by all of them, as a capture sees them."""
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    if a.dev != "any":
        s.bind((a.dev, 3))
    s.settimeout(0.05)
    seen, over = 0, []
    signal.signal(signal.SIGTERM, lambda *_: over.append(1))
    open(a.ready, "w").close()
    while True:
        try:
            frame, (_, _, kind, *_) = s.recvfrom(2048)
        except TimeoutError:
            if over:
                break
            continue
        at = 18 if frame[12:14] == b"\x81\0" else 14
        if kind == 4 and frame[at - 2:at] == b"\x08\0" and frame[at + 9] == 17:  # PACKET_OUTGOING
            seen += frame[at + 22:at + 24] == a.port.to_bytes(2, "big")
    with open(a.out, "w") as f:
        print(seen, file=f)


def main():
    sub = Commands(__doc__)
    q = sub.add_parser("wave")
    q.add_argument("dev")
    q.add_argument("mac", help="of the router")
    q.add_argument("--flows", type=int, default=20000)
    q.add_argument("--seed", type=int, default=1)
    q.add_argument("--repeat", type=int, default=1)
    q = sub.add_parser("zipf")
    q.add_argument("dev")
    q.add_argument("mac", help="of the router")
    q.add_argument("watch", metavar="NAME@FILE")
    q.add_argument("--flows", type=int, default=10000)
    q.add_argument("--exponent", type=float, default=1.1)
    q.add_argument("--best", type=int, default=64)
    q.add_argument("--rate", type=float, default=8000)
    q.add_argument("--size", type=int, default=1000)
    q.add_argument("--seconds", type=int, default=60)
    q.add_argument("--shift", type=int, default=0)
    q.add_argument("--seed", type=int, default=1)
    q = sub.add_parser("send")
    q.add_argument("addr")
    q.add_argument("port", type=int)
    q.add_argument("--sport", type=int, default=0)
    q.add_argument("--rate", type=float, default=200, help="datagrams per second")
    q.add_argument("--count", type=int, default=0)
    q.add_argument("--size", type=int, default=100)
    q.add_argument("--out")
    q = sub.add_parser("crowd")
    q.add_argument("addr")
    q.add_argument("hosts", nargs="+", metavar="ADDR#FLOWS#PORT")
    q.add_argument("--rate", type=float, default=100, help="datagrams per second and flow")
    q.add_argument("--size", type=int, default=1000)
    q = sub.add_parser("tap")
    q.add_argument("dev", help="or any")
    q.add_argument("port", type=int)
    q.add_argument("--ready", required=True)
    q.add_argument("--out", required=True)
    q = sub.add_parser("sink")
    q.add_argument("--port", type=int, required=True)
    q.add_argument("--ready")
    q.add_argument("--out", required=True)
    a = sub.parser.parse_args()
    globals()[a.what](a)


if __name__ == "__main__":
    main()
