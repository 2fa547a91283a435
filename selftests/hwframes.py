#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The same frames through a router, and what comes out at the other side.

send DEV ROUTER-MAC SRC DST SPORT DPORT   UDP frames of several shapes, as raw frames
catch DEV DPORT COUNT --ready FILE        prints those that arrive, sorted, one a line
"""
import argparse
import os
import socket
import struct
import sys
import time


def csum(data):
    data += b"\0" * (len(data) & 1)
    s = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while s >> 16:
        s = (s & 0xffff) + (s >> 16)
    return ~s & 0xffff


def aton(a):
    return socket.inet_pton(socket.AF_INET6 if ":" in a else socket.AF_INET, a)


def frames(a):
    """Numbered UDP packets: sizes, TTL, TOS, no checksum, wrong checksum, padding."""
    v6 = ":" in a.src
    shapes = [(n, 64, 0, "ok") for n in (0, 1, 2, 17, 18, 19, 100, 1000, 1400)]
    shapes += [(100, ttl, 0, "ok") for ttl in (2, 3, 128, 255)]
    shapes += [(100, 64, tos, "ok") for tos in (1, 0x28, 0xb8, 0xff)]
    shapes += [(100, 64, 0, "bad"), (64, 64, 0, "pad")] + ([] if v6 else [(100, 64, 0, "none")])
    for i, (size, ttl, tos, kind) in enumerate(shapes):
        body = bytes((i, len(shapes))) + bytes((7 * j + i) & 255 for j in range(size))
        h = struct.pack("!HHHH", a.sport, a.dport, 8 + len(body), 0)
        if v6:
            pseudo = aton(a.src) + aton(a.dst) + struct.pack("!IHBB", len(h + body), 0, 0, 17)
        else:
            pseudo = aton(a.src) + aton(a.dst) + struct.pack("!BBH", 0, 17, len(h + body))
        c = csum(pseudo + h + body) or 0xffff
        c = {"bad": c ^ 0x5555, "none": 0}.get(kind, c)
        u = h[:6] + struct.pack("!H", c) + body
        if v6:
            ip = struct.pack("!IHBB", 6 << 28 | tos << 20 | 0x12345, len(u), 17, ttl) + aton(a.src) + aton(a.dst)
            p = 0x86dd
        else:
            ip = struct.pack("!BBHHHBBH", 0x45, tos, 20 + len(u), 0x4242 + i, 0x4000, ttl, 17, 0) + aton(a.src) + aton(a.dst)
            ip = ip[:10] + struct.pack("!H", csum(ip)) + ip[12:]
            p = 0x0800
        yield p, ip + u + (b"\xee" * 11 if kind == "pad" else b"")


def send(a):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    s.bind((a.dev, 0))
    me = s.getsockname()[4][:6]
    for proto, packet in frames(a):
        s.send(bytes.fromhex(a.mac.replace(":", "")) + me + struct.pack("!H", proto) + packet)
        time.sleep(0.002)


def payload(frame):
    """UDP payload and destination port of a frame, whatever tags it has."""
    at, proto = 14, struct.unpack_from("!H", frame, 12)[0]
    while proto in (0x8100, 0x88a8):
        proto, at = struct.unpack_from("!H", frame, at + 2)[0], at + 4
    if proto == 0x8864:
        proto, at = {0x21: 0x0800, 0x57: 0x86dd}.get(struct.unpack_from("!H", frame, at + 6)[0]), at + 8
    at += {0x0800: 20, 0x86dd: 40}.get(proto, len(frame))
    if len(frame) < at + 10:
        return None, b""
    return struct.unpack_from("!H", frame, at + 2)[0], frame[at + 8:]


def catch(a):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    s.bind((a.dev, 3))
    s.setsockopt(263, 8, 1)  # PACKET_AUXDATA: tags that the device has taken off
    open(a.ready, "w").close()
    s.settimeout(0.2)
    got, last, end = {}, time.time(), time.time() + a.timeout
    while len(got) < a.count and time.time() < end and (not got or time.time() - last < 4):
        try:
            frame, anc, _, addr = s.recvmsg(4096, 256)
        except socket.timeout:
            continue
        for _, kind, data in anc:
            status, _, _, _, _, tci, tpid = struct.unpack("IIIHHHH", data[:20])
            if kind == 8 and status & 0x10:
                frame = frame[:12] + struct.pack("!HH", tpid if status & 0x40 else 0x8100, tci) + frame[12:]
        if addr[2] == 4:  # outgoing
            continue
        port, body = payload(frame)
        if port == a.dport and len(body) > 1 and body[1] == a.count:
            got[body[0]] = frame.hex()
            last = time.time()
    for i in sorted(got):
        print(i, got[i])


ap = argparse.ArgumentParser()
sub = ap.add_subparsers(dest="cmd", required=True)
q = sub.add_parser("send")
for n in ("dev", "mac", "src", "dst"):
    q.add_argument(n)
q.add_argument("sport", type=int)
q.add_argument("dport", type=int)
q = sub.add_parser("catch")
q.add_argument("dev")
q.add_argument("dport", type=int)
q.add_argument("count", type=int)
q.add_argument("--ready", required=True)
q.add_argument("--timeout", type=float, default=15)
a = ap.parse_args()
sys.exit({"send": send, "catch": catch}[a.cmd](a))
