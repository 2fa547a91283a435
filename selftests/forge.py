#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""TCP segments that somebody else than the two ends makes up.

record DEV PORT --ready FILE --out FILE
    until told to stop (SIGTERM), remembers the latest frame of a connection from or to PORT that
    left by DEV, and writes it to a file
send DEV FILE --flags S --seq N,N,... [--ack N] [--data N] [--gap S]
    sends segments like that frame, with other flags (of SAFRP) and with sequence numbers so far
    after its last byte
session DEV MAC PEER SESSION SOURCE@PORT DESTINATION@PORT [--more N] [--pad N] [--count N] [--size N]
    sends datagrams in frames of a PPPoE session, from PEER to MAC; --more is added to the length that
    the frames say, --pad is behind the packet
scan ADDRESS PORT COUNT [--times N]
    sends a datagram, or some, to each of so many ports, from a port of its own each time
"""
import signal
import socket
import struct
import sys
import time

import slowpath
from commands import Commands

ETH_P_ALL = 3
BITS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16}


def split(frame):
    """Ethernet header, addresses, ports, seq, ack, flags, payload length; None if it is not TCP."""
    if frame[12:14] == b"\x08\x00" and frame[23] == 6:
        n, src, dst = 14 + (frame[14] & 15) * 4, frame[26:30], frame[30:34]
        end, fam = 14 + int.from_bytes(frame[16:18], "big"), socket.AF_INET
    elif frame[12:14] == b"\x86\xdd" and frame[20] == 6:
        n, src, dst = 54, frame[22:38], frame[38:54]
        end, fam = 54 + int.from_bytes(frame[18:20], "big"), socket.AF_INET6
    else:
        return None
    sport, dport, seq, ack, doff, flags = struct.unpack_from("!HHIIBB", frame, n)
    src, dst = socket.inet_ntop(fam, src), socket.inet_ntop(fam, dst)
    return frame[:14], src, dst, sport, dport, seq, ack, flags, end - n - (doff >> 4) * 4


def record(a):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    s.bind((a.dev, ETH_P_ALL))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    last, end = None, None

    def done(*_):
        with open(a.out, "w", encoding="ascii") as f:
            f.write(last.hex() if last else "")
        sys.exit(0)
    signal.signal(signal.SIGTERM, done)
    open(a.ready, "w").close()
    while True:
        frame, where = s.recvfrom(256)  # headers are enough
        t = split(frame) if where[2] == socket.PACKET_OUTGOING else None
        if not t or a.port not in (t[3], t[4]) or t[7] & 7:
            continue
        if last is None or (t[5] + t[8] - end) & 0x80000000 == 0:
            last, end = frame, t[5] + t[8]


def send(a):
    with open(a.file, encoding="ascii") as f:
        frame = bytes.fromhex(f.read())
    t = split(frame) if frame else None
    if not t:
        sys.exit("nothing was recorded")
    eth, src, dst, sport, dport, seq, ack, _, length = t
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    s.bind((a.dev, 0))
    flags = sum(BITS[c] for c in a.flags)
    for off in a.seq.split(","):
        seg = slowpath.tcp(src, dst, sport, dport, seq + length + int(off), ack + a.ack if flags & 16 else 0, flags, bytes(a.data))
        ip = slowpath.ip6 if ":" in src else slowpath.ip4
        s.send(eth + ip(src, dst, 6, seg))
        time.sleep(a.gap)


def session(a):
    (src, sport), (dst, dport) = (x.rsplit("@", 1) for x in (a.source, a.destination))
    v6 = ":" in src
    packet = (slowpath.ip6 if v6 else slowpath.ip4)(src, dst, 17, slowpath.udp(src, dst, int(sport), int(dport), bytes(a.size)))
    mac, peer = (bytes(int(x, 16) for x in m.split(":")) for m in (a.mac, a.peer))
    head = struct.pack("!HBBHHH", 0x8864, 0x11, 0, a.session, (len(packet) + 2 + a.more) & 0xffff, 0x57 if v6 else 0x21)
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    s.bind((a.dev, 0))
    for _ in range(a.count):
        s.send(mac + peer + head + packet + bytes(a.pad))
        time.sleep(0.001)
def scan(a):
    fam = socket.AF_INET6 if ":" in a.address else socket.AF_INET
    for n in range(a.count):
        s = socket.socket(fam, socket.SOCK_DGRAM)
        s.connect((a.address, a.port + n))
        for _ in range(a.times):
            try:
                s.send(b"scan")
            except OSError:
                pass
        s.close()
        if n % 20 == 0:
            time.sleep(0.002)


def main():
    sub = Commands(__doc__)
    r = sub.add_parser("record")
    r.set_defaults(run=record)
    r.add_argument("dev")
    r.add_argument("port", type=int)
    r.add_argument("--ready", required=True)
    r.add_argument("--out", required=True)
    r = sub.add_parser("send")
    r.set_defaults(run=send)
    r.add_argument("dev")
    r.add_argument("file")
    r.add_argument("--flags", required=True)
    r.add_argument("--seq", required=True)
    r.add_argument("--ack", type=int, default=0)
    r.add_argument("--data", type=int, default=0)
    r.add_argument("--gap", type=float, default=0.002)
    r = sub.add_parser("session")
    r.set_defaults(run=session)
    for what in "dev", "mac", "peer":
        r.add_argument(what)
    r.add_argument("session", type=int)
    r.add_argument("source")
    r.add_argument("destination")
    for what, default in ("more", 0), ("pad", 0), ("count", 20), ("size", 100):
        r.add_argument("--" + what, type=int, default=default)
    r = sub.add_parser("scan")
    r.set_defaults(run=scan)
    r.add_argument("address")
    r.add_argument("port", type=int)
    r.add_argument("count", type=int)
    r.add_argument("--times", type=int, default=1)
    a = sub.parser.parse_args()
    a.run(a)


if __name__ == "__main__":
    main()
