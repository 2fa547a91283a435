#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""TCP connections whose both ends are made up here, frame by frame, so that every number is known, and
what conntrack makes of segments that somebody else throws in.

run CL RT SV --out FILE
    opens thousands of connections from 10.0.1.77 in CL to 10.0.2.77 in SV (IPv6: fd00:1::77, fd00:2::77)
    through RT, throws in segments by a grid of offsets, and writes what conntrack in RT says of each
    connection once it has all of them back. Without a flowtable it has them all the time.
compare PLAIN FILE
    says what made-up segments did that they do not do without a flowtable. Less is allowed.
"""
import json
import os
import re
import socket
import struct
import subprocess
import sys
import time

from commands import Commands

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
DATA = 100
OFFSETS = [0] + [sign * n for n in (1, 1000, 100000, 4000000, 1 << 24, 1 << 30) for sign in (1, -1)]
# Window field by scale: windows that no offset is near.
WINDOW = {0: 60000, 7: 4000, 14: 40}
STATES = ["NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2"]
# What is thrown in: flags, and bytes of data, each segment starting where the one before has ended.
MADE_UP = {
    "R": [(RST, 0)], "RA": [(RST | ACK, 0)], "F": [(FIN | ACK, 0)], "S": [(SYN, 0)], "SA": [(SYN | ACK, 0)],
    "D": [(PSH | ACK, DATA)], "D,R": [(PSH | ACK, DATA), (RST, 0)], "D,F": [(PSH | ACK, DATA), (FIN | ACK, 0)],
    "S,R": [(SYN, 0), (RST, 0)], "F,F": [(FIN | ACK, 0)] * 2,
}
PHASES = ["idle", "live", "back"]


def enter(ns):
    with open(f"/run/netns/{ns}", encoding="ascii") as f:
        os.setns(f.fileno(), os.CLONE_NEWNET)


def fold(data):
    n = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while n >> 16:
        n = (n & 0xffff) + (n >> 16)
    return ~n & 0xffff


class Side:
    """One end: its frames leave by eth0 of a namespace, for the router."""

    def __init__(self, ns, mac, src, dst):
        enter(ns)
        self.s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.s.bind(("eth0", 0))
        self.v6 = ":" in src
        fam = socket.AF_INET6 if self.v6 else socket.AF_INET
        self.src, self.dst = socket.inet_pton(fam, src), socket.inet_pton(fam, dst)
        self.eth = bytes.fromhex(mac.replace(":", "")) + self.s.getsockname()[4] + (b"\x86\xdd" if self.v6 else b"\x08\x00")
        self.heads = {}

    def head(self, n, odd):
        """Everything before the TCP header: of a packet with n bytes from there. An odd one has options, so that
        the fast path does not look at it."""
        if (n, odd) not in self.heads:
            if self.v6:
                pad = b"\x06\0\x01\x04\0\0\0\0" if odd else b""
                ip = struct.pack("!IHBB", 6 << 28, len(pad) + n, 0 if odd else 6, 64) + self.src + self.dst + pad
            else:
                pad = b"\x01" * 4 if odd else b""
                ip = struct.pack("!BBHHHBBH", 0x45 + odd, 0, 20 + len(pad) + n, 7, 0x4000, 64, 6, 0) + self.src + self.dst + pad
                ip = ip[:10] + struct.pack("!H", fold(ip)) + ip[12:]
            self.heads[n, odd] = self.eth + ip
        return self.heads[n, odd]

    def send(self, sport, dport, seq, ack, flags, window, body=b"", options=b"", odd=False):
        # The router does not check the checksum.
        tcp = struct.pack("!HHIIBBHHH", sport, dport, seq & 0xffffffff, ack & 0xffffffff if flags & ACK else 0,
                          (20 + len(options)) << 2, flags, window, 0, 0) + options + body
        self.s.send(self.head(len(tcp), odd) + tcp)

    def listen(self):
        self.s.close()
        self.s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.s.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        self.s.bind(("eth0", 0x86dd if self.v6 else 0x800))
        self.s.settimeout(0.3)

    def heard(self):
        """The client's ports of what has arrived for this end."""
        ports, n = set(), 54 if self.v6 else 34
        try:
            while True:
                frame, where = self.s.recvfrom(128)
                if where[2] == socket.PACKET_OUTGOING or len(frame) < n + 20 or frame[n - (16 if self.v6 else 4):n] != self.src:
                    continue
                ports.update(struct.unpack_from("!HH", frame, n))
        except TimeoutError:
            return ports


class Connection:
    def __init__(self, ends, key):
        self.ends, self.key = ends, key
        self.name, self.side, self.offset, self.ack, self.scale, self.phase = key
        self.window = WINDOW[self.scale]
        self.port = 0
        # A round number would hide a mistake at the wrap.
        self.seq = [0xffffff00, 0x7fffff00]

    def send(self, side, flags, body=b"", seq=0, ack=0, window=None, options=b"", odd=False):
        ports = (self.port, 80) if side == 0 else (80, self.port)
        self.ends[side].send(*ports, self.seq[side] + seq, self.seq[1 - side] + ack, flags,
                             self.window if window is None else window, body, options, odd)

    def open(self):
        scale = bytes([3, 3, self.scale, 1])
        self.send(0, SYN, window=60000, options=scale)
        self.seq[0] += 1
        self.send(1, SYN | ACK, window=60000, options=scale)
        self.seq[1] += 1
        self.send(0, ACK)

    def exchange(self):
        """Both say something, and all of it is acknowledged."""
        for side in (0, 1):
            self.send(side, PSH | ACK, bytes(DATA))
            self.seq[side] += DATA
            self.send(1 - side, ACK)

    def throw(self, odd):
        at = self.offset
        for flags, n in MADE_UP[self.name]:
            self.send(self.side, flags, bytes(n), seq=at, ack=self.ack, window=min(self.window, 28672), odd=odd)
            at += n


# ------------------------------------------------------------------ conntrack

def entries(v6):
    """Port of the client -> (offloaded, state, seconds, checks are relaxed)."""
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    s.bind((0, 0))
    family = socket.AF_INET6 if v6 else socket.AF_INET
    s.send(struct.pack("=IHHIIBBH", 20, 1 << 8 | 1, 0x301, 1, 0, family, 0, 0))

    def attributes(data):
        out, at = {}, 0
        while at + 4 <= len(data):
            n, kind = struct.unpack_from("=HH", data, at)
            out[kind & 0x3fff] = data[at + 4:at + n]
            at += n + 3 & ~3
        return out
    found = {}
    while True:
        data, at = s.recv(1 << 18), 0
        while at < len(data):
            n, kind = struct.unpack_from("=IH", data, at)
            if kind == 3:
                s.close()
                return found
            a = attributes(data[at + 20:at + n])
            at += n + 3 & ~3
            proto = attributes(attributes(a[1])[2])
            if proto[1][0] != 6:
                continue
            tcp = attributes(attributes(a.get(4, b"")).get(1, b""))
            seconds = int.from_bytes(a[7], "big") if 7 in a else None
            status = int.from_bytes(a[3], "big")
            found[int.from_bytes(proto[2], "big")] = (
                bool(status & 1 << 14), STATES[tcp[1][0]] if 1 in tcp else None, seconds,
                bool((tcp.get(4, b"\0")[0] | tcp.get(5, b"\0")[0]) & 8))


def grid(quick):
    for scale in WINDOW:
        for phase in PHASES:
            for side in (0, 1):
                for name in MADE_UP:
                    # An acknowledgement that is right, of what was never sent, of what is long past.
                    for ack in (0, 200000, -4000000):
                        if ack and (name in ("R", "S", "S,R") or quick):
                            continue
                        for offset in OFFSETS:
                            # Who has the number does not need a detour.
                            if not (ack and offset == 0 and name.startswith("D,")):
                                yield name, side, offset, ack, scale, phase


def run(a):
    ips = ["fd00:1::77", "fd00:2::77"] if a.v6 else ["10.0.1.77", "10.0.2.77"]
    enter(a.rt)
    macs = []
    for dev in ("lan", "wan"):
        out = subprocess.run(["ip", "-o", "link", "show", "dev", dev], capture_output=True, text=True, check=True).stdout
        macs.append(re.search(r"link/ether (\S+)", out)[1])
    ends = [Side(a.cl, macs[0], *ips), Side(a.sv, macs[1], *ips[::-1])]
    enter(a.rt)
    for dev, ip, end in zip(("lan", "wan"), ips, ends):
        mac = ":".join(f"{b:02x}" for b in end.eth[6:12])
        subprocess.run(["ip", "neigh", "replace", ip, "lladdr", mac, "nud", "permanent", "dev", dev], check=True)

    def sysctl(name, value):
        with open(f"/proc/sys/net/netfilter/{name}", "w", encoding="ascii") as f:
            f.write(str(value))
    conns = [Connection(ends, key) for key in grid(a.quick)]
    for n, c in enumerate(conns):
        c.port = 1025 + n
    sysctl("nf_flowtable_tcp_timeout", 300)
    for c in conns:
        c.open()
        c.exchange()
        c.exchange()
    time.sleep(0.8)
    for c in conns:
        c.exchange()
    time.sleep(2)
    before = entries(a.v6)
    offloaded = sum(before.get(c.port, (False,))[0] for c in conns)

    def throw(phase):
        for c in conns:
            if c.phase != phase:
                continue
            if phase == "live":
                c.exchange()
            c.throw(a.odd)
    throw("idle")
    throw("live")
    time.sleep(0.05)
    for c in conns:
        if c.phase == "live":
            c.exchange()

    def given_back():
        sysctl("nf_flowtable_tcp_timeout", 1)
        end = time.monotonic() + 30
        while time.monotonic() < end:
            time.sleep(0.3)
            now = entries(a.v6)
            if not any(e[0] for e in now.values()):
                sysctl("nf_flowtable_tcp_timeout", 300)
                return now
        sys.exit(f"{sum(e[0] for e in now.values())} are still offloaded")
    now = given_back()
    throw("back")
    time.sleep(0.1)
    later = given_back()
    for ns, e in zip((a.cl, a.sv), ends):
        enter(ns)
        e.listen()
    # Those that are to go on do so.
    for side in (0, 1):
        for c in conns:
            c.send(side, PSH | ACK, bytes(1))
    heard = [e.heard() for e in ends]
    result = {}
    for c in conns:
        _, state, seconds, liberal = (later if c.phase == "back" else now).get(c.port, (0, "gone", 0, False))
        result[" ".join(map(str, c.key))] = [state, seconds, liberal, c.port in heard[1], c.port in heard[0]]
    with open(a.out, "w", encoding="ascii") as f:
        json.dump({"offloaded": offloaded, "of": len(conns), "result": result}, f)
    print(f"{len(conns)} connections, {offloaded} offloaded")


def same(a, b):
    """Two timeouts, one of which was read some seconds later."""
    return abs(a - b) <= 20


def compare(a):
    plain, ours = [json.load(open(f, encoding="ascii")) for f in (a.plain, a.file)]
    if plain["offloaded"] or ours["offloaded"] < ours["of"]:
        print(f"offloaded: {plain['offloaded']} without a flowtable, {ours['offloaded']} of {ours['of']} with one")
    bad, equal, less = [], 0, 0
    long = max(r[1] for r in plain["result"].values())
    for key, p in plain["result"].items():
        o = ours["result"][key]
        untouched = o[0] == "ESTABLISHED" and same(o[1], long)
        if o[0] == p[0] and same(o[1], p[1]) and o[2] == p[2]:
            equal += 1
        elif untouched and o[2] == p[2] and not (p[0] == "CLOSE" and key.split()[2] == "0"):
            less += 1
        else:
            bad.append(f"{key}: {o[:3]}, without a flowtable {p[:3]}")
            continue
        # What is believed to go on must be able to.
        if p[0] == "ESTABLISHED" and o[3:] != p[3:] and o[3:] != [True, True]:
            bad.append(f"{key}: goes on {o[3:]}, without a flowtable {p[3:]}")
    print(f"{equal} equal, {less} less, {len(bad)} bad")
    for line in bad[:a.show]:
        print(line)
    sys.exit(bool(bad) or plain["offloaded"] > 0 or ours["offloaded"] < ours["of"])


def main():
    sub = Commands(__doc__)
    r = sub.add_parser("run")
    r.set_defaults(run=run)
    r.add_argument("cl")
    r.add_argument("rt")
    r.add_argument("sv")
    r.add_argument("--v6", action="store_true")
    r.add_argument("--odd", action="store_true", help="what is thrown in has IP options")
    r.add_argument("--quick", action="store_true", help="right acknowledgements only")
    r.add_argument("--out", required=True)
    r = sub.add_parser("compare")
    r.set_defaults(run=compare)
    r.add_argument("plain")
    r.add_argument("file")
    r.add_argument("--show", type=int, default=20)
    a = sub.parser.parse_args()
    a.run(a)


if __name__ == "__main__":
    main()
