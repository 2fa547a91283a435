#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Crafted packets through an offloaded flow, compared with plain forwarding.

list                     one line per probe: name, flags, description
run CL RT SV --out DIR   send every probe from namespace CL through RT to SV,
                         write what came out at either end to DIR/NAME.json
judge CLASSIC OFFLOAD    write DIR/NAME.bad for each probe that differs

A probe is one or more frames sent into a flow that is already offloaded. Flags:
f  must go the fast way       r  only where nothing is translated
n  sent twice: the first one may pass the ruleset, which has seen none like it
x  known defect of the in-tree code   m  the same, only where something is translated
"""
import json
import os
import socket
import struct
import time

from commands import Commands

CL4, SV4, RT4 = "10.0.1.2", "10.0.2.2", "10.0.2.1"
CL6, SV6 = "fd00:1::2", "fd00:2::2"
SPORT, DPORT = 7000, 7100
STATS = "/sys/kernel/debug/nft_offload/stats"
NOP4 = b"\x01\x01\x01\x00"
ROUTER_ALERT = b"\x94\x04\x00\x00"


def csum(data):
    data += b"\0" * (len(data) & 1)
    s = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while s >> 16:
        s = (s & 0xffff) + (s >> 16)
    return ~s & 0xffff


def aton(a):
    return socket.inet_pton(socket.AF_INET6 if ":" in a else socket.AF_INET, a)


def pseudo(src, dst, proto, length):
    if ":" in src:
        return aton(src) + aton(dst) + struct.pack("!IHBB", length, 0, 0, proto)
    return aton(src) + aton(dst) + struct.pack("!BBH", 0, proto, length)


def udp(src, dst, sport, dport, body, length=None, check=None):
    h = struct.pack("!HHHH", sport, dport, length or 8 + len(body), 0)
    c = csum(pseudo(src, dst, 17, len(h + body)) + h + body) or 0xffff
    return h[:6] + struct.pack("!H", c if check is None else check) + body


def tcp(src, dst, sport, dport, seq, ack, flags, body=b"", doff=5):
    h = struct.pack("!HHIIBBHHH", sport, dport, seq & 0xffffffff, ack & 0xffffffff, doff << 4, flags, 0x7000, 0, 0)
    c = csum(pseudo(src, dst, 6, len(h + body)) + h + body)
    return h[:16] + struct.pack("!H", c) + h[18:] + body


def ip4(src, dst, proto, body, ttl=64, options=b"", tot=None, ihl=None, frag=0x4000, version=4, check=None, ident=0x1234, tos=0):
    n = 20 + len(options)
    h = struct.pack("!BBHHHBBH4s4s", version << 4 | (n // 4 if ihl is None else ihl), tos,
                    n + len(body) if tot is None else tot, ident, frag, ttl, proto, 0, aton(src), aton(dst)) + options
    c = csum(h) if check is None else check
    return h[:10] + struct.pack("!H", c) + h[12:] + body


def ip6(src, dst, proto, body, hops=64, length=None, version=6, tclass=0, label=0):
    return struct.pack("!IHBB", version << 28 | tclass << 20 | label, len(body) if length is None else length, proto, hops) + aton(src) + aton(dst) + body


# ------------------------------------------------------------------ probes

PROBES = {}


def probe(name, desc, flags="", reason=(), proto="udp", fam=4, back=False):
    def add(f):
        PROBES[name] = {"desc": desc, "flags": flags, "reason": (reason,) if isinstance(reason, str) else reason,
                        "proto": proto, "fam": fam, "back": back, "make": f}
        return f
    return add


def u4(p, ip=None, l4=None, body=b"x" * 32):
    """A UDP datagram of the flow with some fields changed."""
    return p.eth(ip4(p.src, p.dst, 17, udp(p.src, p.dst, p.sport, p.dport, body, **(l4 or {})), **(ip or {})))


def u6(p, ip=None, l4=None, body=b"x" * 32, ext=None):
    seg = udp(p.src, p.dst, p.sport, p.dport, body, **(l4 or {}))
    if ext:
        return p.eth(ip6(p.src, p.dst, ext[0], ext[1] + seg, **(ip or {})))
    return p.eth(ip6(p.src, p.dst, 17, seg, **(ip or {})))


def simple(name, desc, flags="", reason=(), fam=4, back=False, **kw):
    probe(name, desc, flags, reason, fam=fam, back=back)(lambda p: [(u4 if fam == 4 else u6)(p, **kw)] * (1 + ("n" in flags)))


def cut(name, desc, reason, fam, keep, flags="", **kw):
    """The frame ends after `keep` bytes of IP packet; its length field is as given."""
    def make(p):
        return [(u4 if fam == 4 else u6)(p, **kw)[:14 + keep]]
    probe(name, desc, flags, reason, fam=fam)(make)


simple("plain", "IPv4 plain datagram", "f")
simple("reply", "IPv4 plain datagram, reply direction", "f", back=True)
simple("tos", "IPv4 with DSCP and ECN bits", "fn", ip={"tos": 0xb9})
simple("nodf", "IPv4 without DF", "f", ip={"frag": 0})
simple("ttl2", "IPv4 TTL 2 leaves with TTL 1", "f", ip={"ttl": 2})
simple("csum0", "IPv4 UDP checksum 0", "f", l4={"check": 0})
simple("ttl1", "IPv4 TTL 1: time exceeded", "", "ttl_expiring", ip={"ttl": 1})
simple("ttl0", "IPv4 TTL 0", "", "ttl_expiring", ip={"ttl": 0})
simple("ttl1_reply", "IPv4 TTL 1, reply direction", "", "ttl_expiring", back=True, ip={"ttl": 1})
simple("options", "IPv4 options: NOP", "", "ip_options", ip={"options": NOP4})
simple("alert", "IPv4 options: router alert", "", "ip_options", ip={"options": ROUTER_ALERT})
simple("options_bad", "IPv4 options: length beyond the header", "", "ip_options", ip={"options": b"\x07\x40\x04\x00"})
simple("bad_csum", "IPv4 wrong header checksum", "x", "bad_checksum", ip={"check": 0x1234})
simple("bad_version", "IPv4 frame with version 6", "x", ("bad_version", "not_ip"), ip={"version": 6})
simple("ihl4", "IPv4 header length 4", "", ("truncated", "bad_version", "ip_options"), ip={"ihl": 4})
simple("ihl15", "IPv4 header length 15, beyond the packet", "", ("truncated", "ip_options"), body=b"", ip={"ihl": 15})
simple("long", "IPv4 total length beyond the frame", "x", "truncated", ip={"tot": 200})
simple("tot_tiny", "IPv4 total length below the header", "x", "truncated", ip={"tot": 10})
simple("tot_l4", "IPv4 total length ends in the UDP header", "rx", "truncated", ip={"tot": 24})
simple("udp_long", "IPv4 UDP length beyond the packet", "r", l4={"length": 500})
simple("udp_short", "IPv4 UDP length below its header", "r", l4={"length": 4})
simple("udp_csum", "IPv4 wrong UDP checksum", "r", l4={"check": 0x1111})
cut("cut_ip", "IPv4 frame cut in the IP header", ("truncated", "no_mem"), 4, 12)
cut("cut_udp", "IPv4 frame cut in the UDP header", ("truncated", "no_mem"), 4, 24)
cut("cut_body", "IPv4 frame cut in the payload", "truncated", 4, 40, "x")


@probe("padded", "IPv4 short datagram padded to 60 bytes: no padding on the next hop", "fx")
def _(p):
    return [u4(p, body=b"abc").ljust(60, b"\xee")]


@probe("padded_odd", "IPv4 padding of one byte", "fx")
def _(p):
    return [u4(p, body=b"x" * 100) + b"\xee"]


@probe("frag_first", "IPv4 first fragment alone", "", "fragment")
def _(p):
    return [u4(p, ip={"frag": 0x2000, "ident": p.ident()})]


@probe("frag_later", "IPv4 later fragment alone", "", "fragment")
def _(p):
    return [u4(p, ip={"frag": 0x0004, "ident": p.ident()})]


@probe("frag_pair", "IPv4 datagram in two fragments", "", "fragment")
def _(p):
    seg, ident = udp(p.src, p.dst, p.sport, p.dport, bytes(range(200))), p.ident()
    return [p.eth(ip4(p.src, p.dst, 17, seg[:104], frag=0x2000, ident=ident)),
            p.eth(ip4(p.src, p.dst, 17, seg[104:], frag=104 // 8, ident=ident))]


def mac_probe(name, desc, fam, dst):
    @probe(name, desc, "x", ("not_for_us", "no_entry"), fam=fam)
    def _(p):
        return [bytes.fromhex(dst) + (u4 if fam == 4 else u6)(p)[6:]]


for fam in (4, 6):
    mac_probe(f"broadcast{fam}", f"IPv{fam} to the broadcast MAC", fam, "ffffffffffff")
    mac_probe(f"multicast{fam}", f"IPv{fam} to a multicast MAC", fam, "01005e000005")
    mac_probe(f"foreign{fam}", f"IPv{fam} to another host's MAC", fam, "02dead000001")


@probe("vlan", "IPv4 in an unexpected 802.1Q tag", "", ("no_entry", "encap", "not_for_us"))
def _(p):
    f = u4(p)
    return [f[:12] + b"\x81\x00\x00\x05" + f[12:]]


@probe("ethertype", "IPv4 packet under another EtherType", "", ("not_ip", "bad_version"))
def _(p):
    return [u4(p)[:12] + b"\x88\xb5" + u4(p)[14:]]


@probe("wrong_family", "IPv4 packet under the EtherType of IPv6", "", ("bad_version", "truncated"))
def _(p):
    return [u4(p)[:12] + b"\x86\xdd" + u4(p)[14:]]


def tprobe(name, desc, flags="", reason=(), keep=None, fam=4, **kw):
    @probe(name, desc, flags, reason, proto="tcp", fam=fam)
    def _(p):
        ip = {k: kw[k] for k in ("tot", "ttl") if k in kw}
        seg = tcp(p.src, p.dst, p.sport, p.dport, p.seq, p.ack, kw.get("fl", 0x18), kw.get("body", b"y" * 40), kw.get("doff", 5))
        if fam == 4:
            f = p.eth(ip4(p.src, p.dst, 6, seg[:keep], **ip))
        else:
            f = p.eth(ip6(p.src, p.dst, 6, seg[:keep]))
        return [f]


for fam in (4, 6):
    t = "" if fam == 4 else "6"
    tprobe("tcp" + t, f"IPv{fam} TCP segment", "f", fam=fam)
    tprobe("tcp_psh" + t, f"IPv{fam} TCP pure ACK", "f", fam=fam, body=b"", fl=0x10)
    tprobe("tcp_doff4" + t, f"IPv{fam} TCP data offset below 5", "r", doff=4, fam=fam)
    tprobe("tcp_doff15" + t, f"IPv{fam} TCP data offset beyond the segment", "r", doff=15, body=b"z" * 8, fam=fam)
    tprobe("tcp_cut" + t, f"IPv{fam} TCP header cut short", "r", "truncated", keep=12, fam=fam)
tprobe("tcp_null", "IPv4 TCP segment without any flag", "m", "tcp_flags", fl=0)
tprobe("tcp_null6", "IPv6 TCP segment without any flag", "m", "tcp_flags", fam=6, fl=0)
tprobe("tcp_ttl1", "IPv4 TCP TTL 1: time exceeded", "", "ttl_expiring", ttl=1)
tprobe("tcp_long", "IPv4 TCP total length beyond the frame", "x", "truncated", tot=400)

simple("plain6", "IPv6 plain datagram", "f", fam=6)
simple("reply6", "IPv6 plain datagram, reply direction", "f", fam=6, back=True)
simple("class6", "IPv6 with traffic class and flow label", "fn", fam=6, ip={"tclass": 0xb9, "label": 0x54321})
simple("hop2", "IPv6 hop limit 2 leaves with 1", "f", fam=6, ip={"hops": 2})
simple("hop1", "IPv6 hop limit 1: time exceeded", "", "ttl_expiring", fam=6, ip={"hops": 1})
simple("hop0", "IPv6 hop limit 0", "", "ttl_expiring", fam=6, ip={"hops": 0})
simple("hop1_reply", "IPv6 hop limit 1, reply direction", "", "ttl_expiring", fam=6, back=True, ip={"hops": 1})
simple("hbh", "IPv6 hop-by-hop options", "", "ext_header", fam=6, ext=(0, b"\x11\x00\x01\x04\0\0\0\0"))
simple("dstopt", "IPv6 destination options", "", "ext_header", fam=6, ext=(60, b"\x11\x00\x01\x04\0\0\0\0"))
simple("routing", "IPv6 routing header, no segments left", "", "ext_header", fam=6, ext=(43, b"\x11\x00\x04\x00\0\0\0\0"))
simple("atomic", "IPv6 atomic fragment", "", "ext_header", fam=6, ext=(44, b"\x11\x00\x00\x00\0\0\0\x07"))
simple("frag6_first", "IPv6 first fragment alone", "", "ext_header", fam=6, ext=(44, b"\x11\x00\x00\x01\0\0\0\x08"))
simple("csum0_6", "IPv6 UDP checksum 0", "r", fam=6, l4={"check": 0})
simple("bad_version6", "IPv6 frame with version 4", "x", ("bad_version", "not_ip"), fam=6, ip={"version": 4})
simple("long6", "IPv6 payload length beyond the frame", "x", "truncated", fam=6, ip={"length": 200})
simple("short6", "IPv6 payload length ends in the UDP header", "rx", "truncated", fam=6, ip={"length": 4})
simple("zero6", "IPv6 payload length 0", "x", ("jumbogram", "truncated"), fam=6, ip={"length": 0})
cut("cut_ip6", "IPv6 frame cut in the IP header", ("truncated", "no_mem"), 6, 30)
cut("cut_udp6", "IPv6 frame cut in the UDP header", ("truncated", "no_mem"), 6, 44)


@probe("frag6_pair", "IPv6 datagram in two fragments", "", "ext_header", fam=6)
def _(p):
    seg, ident = udp(p.src, p.dst, p.sport, p.dport, bytes(range(200))), struct.pack("!I", p.ident())
    return [p.eth(ip6(p.src, p.dst, 44, b"\x11\x00\x00\x01" + ident + seg[:104])),
            p.eth(ip6(p.src, p.dst, 44, b"\x11\x00" + struct.pack("!H", 104) + ident + seg[104:]))]


@probe("padded6", "IPv6 datagram with padding: none on the next hop", "fx", fam=6)
def _(p):
    return [u6(p, body=b"abc") + b"\xee" * 6]


# ------------------------------------------------------------------ running

class Port:
    """A device in a namespace: raw frames in and out."""

    def __init__(self, ns, dev):
        with Inside(ns):
            self.s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            self.s.bind((dev, 3))
        self.mac = self.s.getsockname()[4]

    def send(self, frame):
        self.s.send(frame)

    def recv(self, timeout):
        self.s.settimeout(timeout)
        try:
            data, addr = self.s.recvfrom(65535)
        except TimeoutError:
            return None
        # not what this end sent itself
        return b"" if addr[2] == socket.PACKET_OUTGOING else data


class Netfilter:
    """The two requests needed from nfnetlink; starting nft for each is slow."""

    def __init__(self, ns):
        with Inside(ns):
            self.s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
        self.s.settimeout(5)

    def ask(self, kind, flags, family, attrs):
        body = struct.pack("!BBH", family, 0, 0)
        for t, v in attrs:
            body += struct.pack("=HH", 4 + len(v), t) + v + b"\0" * (-len(v) % 4)
        self.s.send(struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body)
        return self.s.recv(65535)

    def counter(self, name="forwarded"):
        # NFT_MSG_GETOBJ, NFPROTO_INET; table, name, type NFT_OBJECT_COUNTER
        r = self.ask(10 << 8 | 19, 1, 1, ((1, b"watch\0"), (2, name.encode() + b"\0"), (3, struct.pack("!I", 1))))
        if struct.unpack_from("=H", r, 4)[0] == 2:
            raise OSError(-struct.unpack_from("=i", r, 16)[0], "NFT_MSG_GETOBJ")
        data = attrs(r[20:])[4]
        return struct.unpack("!Q", attrs(data)[2])[0]

    def flush(self):
        # IPCTNL_MSG_CT_DELETE without an address is a flush; with NLM_F_ACK
        self.ask(1 << 8 | 2, 5, 0, ())


def attrs(data):
    out = {}
    while len(data) >= 4:
        n, t = struct.unpack_from("=HH", data)
        out[t & 0x3fff] = data[4:n]
        data = data[n + -n % 4:]
    return out


class Inside:
    """Sockets made here belong to the namespace."""

    def __init__(self, ns):
        self.ns = ns

    def __enter__(self):
        self.home = os.open("/proc/self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.ns}", os.O_RDONLY)
        os.setns(there, os.CLONE_NEWNET)
        os.close(there)

    def __exit__(self, *_):
        os.setns(self.home, os.CLONE_NEWNET)
        os.close(self.home)


class Flow:
    """Addresses and ports of one direction, as the sender sees them."""

    def __init__(self, run, fam, proto, back):
        a, b = (CL4, SV4) if fam == 4 else (CL6, SV6)
        self.fam, self.n = fam, 0x3000
        self.sport, self.dport = (DPORT, run.sport) if back else (run.sport, DPORT)
        self.seq, self.ack = (9000, 1041) if back else (1041, 9000)
        self.src, self.dst = (b, a) if back else (a, b)
        if back and run.masq:
            self.dst = "10.0.2.1" if fam == 4 else "fd00:2::1"
        self.out = run.sv if back else run.cl
        self.to = run.mac["wan" if back else "lan"]

    def eth(self, packet):
        return self.to + self.out.mac + (b"\x08\x00" if self.fam == 4 else b"\x86\xdd") + packet

    def ident(self):
        self.n += 1
        return self.n


class Run:
    def __init__(self, a):
        self.a, self.masq = a, a.masq
        self.cl, self.sv = Port(a.cl, "eth0"), Port(a.sv, "eth0")
        self.mac = {d: Port(a.rt, d).mac for d in ("lan", "wan")}
        self.nl = Netfilter(a.rt)
        self.serial, self.sport = 0, SPORT

    def nft(self):
        """Packets that the forward chain has counted."""
        return self.nl.counter()

    @staticmethod
    def stats():
        try:
            with open(STATS) as f:
                return {k: int(v) for k, v in (line.split() for line in f)}
        except OSError:
            return {}

    def frame(self, flow, proto, body):
        """A packet of the flow without anything unusual."""
        if proto == "udp":
            return (u4 if flow.fam == 4 else u6)(flow, body=body)
        seg = tcp(flow.src, flow.dst, flow.sport, flow.dport, flow.seq, flow.ack, 0x18, body)
        return flow.eth((ip4 if flow.fam == 4 else ip6)(flow.src, flow.dst, 6, seg))

    def collect(self, port, marker, timeout=3.0):
        """Frames from the router until one has the marker."""
        got, end = [], time.monotonic() + timeout
        while (left := end - time.monotonic()) > 0:
            f = port.recv(left)
            if f is None:
                break
            if not f or f[6:12] not in self.mac.values() or chatter(f):
                continue
            if marker in f:
                return got, True
            got.append(f)
        return got, False

    def marked(self, flow, proto):
        self.serial += 1
        marker = b"marker%06d" % self.serial
        return self.frame(flow, proto, marker), marker

    def through(self, flow, proto, far):
        """One ordinary packet; has it arrived?"""
        f, m = self.marked(flow, proto)
        flow.out.send(f)
        return self.collect(far, m)[1]

    def prime(self, fam, proto):
        """Makes the flow established, both directions seen, and offloaded."""
        o, r = Flow(self, fam, proto, False), Flow(self, fam, proto, True)
        if proto == "tcp":
            ip = ip4 if fam == 4 else ip6
            for f, fl, seq, ack, far in ((o, 2, 1000, 0, self.sv), (r, 0x12, 8999, 1001, self.cl), (o, 0x10, 1001, 9000, self.sv)):
                self.serial += 1
                # data in the handshake serves as marker only
                m = b"marker%06d" % self.serial
                f.out.send(f.eth(ip(f.src, f.dst, 6, tcp(f.src, f.dst, f.sport, f.dport, seq, ack, fl, m if fl == 0x10 else b""))))
                if fl == 0x10:
                    self.collect(far, m)
                else:
                    self.wait_tcp(far, fl)
        for _ in range(2):
            self.through(o, proto, self.sv)
            self.through(r, proto, self.cl)

    def wait_tcp(self, port, flags):
        end = time.monotonic() + 3
        while time.monotonic() < end:
            f = port.recv(0.5)
            if f and f[6:12] in self.mac.values() and len(f) >= 54:
                off = 14 + 20 if f[12:14] == b"\x08\x00" else 14 + 40
                if len(f) > off + 13 and f[off + 13] == flags:
                    return

    def one(self, p):
        fam, proto = p["fam"], p["proto"]
        # ports of its own: nothing of an earlier probe is in the way
        self.sport += 1
        self.nl.flush()
        self.prime(fam, proto)
        flow = Flow(self, fam, proto, p["back"])
        far = self.cl if p["back"] else self.sv
        # the other end may still have something queued
        for port in (self.cl, self.sv):
            while port.recv(0.001) is not None:
                pass
        res = {"slow_before": None, "frames": [], "back": []}
        f0 = self.nft()
        res["primed"] = self.through(flow, proto, far)
        f1 = self.nft()
        res["slow_before"] = f1 - f0
        s1 = self.stats()
        frames = p["make"](flow)
        for f in frames:
            flow.out.send(f)
        g, m = self.marked(flow, proto)
        flow.out.send(g)
        got, res["marker"] = self.collect(far, m)
        f2, s2 = self.nft(), self.stats()
        res["sent"] = len(frames)
        res["frames"] = [norm(f) for f in got]
        # ICMP errors come back to the sender
        near = flow.out
        while (f := near.recv(0.02)) is not None:
            if f and f[6:12] in self.mac.values() and not chatter(f):
                res["back"].append(norm(f))
        res["slow"] = f2 - f1
        res["stats"] = {k: v - s1.get(k, 0) for k, v in s2.items() if v != s1.get(k, 0)}
        res["after"] = self.through(flow, proto, far)
        res["slow_after"] = self.nft() - f2
        return res


def chatter(f):
    """ARP, neighbour discovery, multicast listener reports."""
    return f[12:14] == b"\x08\x06" or f[12:14] == b"\x86\xdd" and (f[20] == 0 and f[54] == 58 or f[20] == 58 and f[54] >= 130)


def norm(f):
    """A frame as text, without what differs from run to run."""
    f = bytearray(f)
    if f[12:14] == b"\x08\x00" and f[23:24] == b"\x01":  # ICMP of the router
        f[18:20] = f[24:26] = b"\0\0"
    if f[12:14] == b"\x86\xdd" and f[20:21] == b"\x2c":  # IPv6 fragment: new identification
        f[58:62] = b"\0\0\0\0"
    return bytes(f[:6]).hex() + " " + bytes(f[12:]).hex()


def run(a):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.makedirs(a.out, exist_ok=True)
    r = Run(a)
    for name, p in PROBES.items():
        if a.masq and "r" in p["flags"]:
            continue
        with open(f"{a.out}/{name}.json", "w") as f:
            json.dump(r.one(p), f)


def judge(a):
    for name, p in PROBES.items():
        try:
            c, o = (json.load(open(f"{d}/{name}.json")) for d in (a.classic, a.offload))
        except FileNotFoundError:
            continue
        bad = []
        if not o["primed"] or o["slow_before"]:
            bad.append(f"flow was not offloaded before: arrived {o['primed']}, in forward chain {o['slow_before']}")
        for what in ("frames", "back"):
            if c[what] != o[what]:
                bad.append(f"{what} without flowtable: {c[what]}")
                bad.append(f"{what} with flowtable:    {o[what]}")
        if not o["marker"]:
            bad.append("the next packet of the flow did not arrive")
        if not o["after"] or o["slow_after"]:
            bad.append(f"flow is not fast afterwards: arrived {o['after']}, in forward chain {o['slow_after']}")
        st = o["stats"]
        if "f" in p["flags"]:
            if len(c["frames"]) != c["sent"]:
                bad.append(f"plain forwarding let {len(c['frames'])} of {c['sent']} through")
            new = 1 if "n" in p["flags"] else 0
            if o["slow"] > new:
                bad.append(f"seen by the forward chain: {o['slow']}")
            if a.ours and st.get("packets_fast", 0) != o["sent"] + 1 - new:
                bad.append(f"packets_fast rose by {st.get('packets_fast', 0)}, expected {o['sent'] + 1 - new}")
        elif p["reason"] and a.ours:
            if not any(st.get("miss." + x, 0) for x in p["reason"]):
                bad.append(f"no miss.{' or miss.'.join(p['reason'])} counted, but {st}")
            if st.get("packets_fast", 0) != 1:
                bad.append(f"packets_fast rose by {st.get('packets_fast', 0)}, expected 1 for the next packet")
        with open(f"{a.offload}/{name}.bad", "w") as f:
            f.write("\n".join(bad))


def main():
    sub = Commands(__doc__)
    sub.add_parser("list")
    q = sub.add_parser("run")
    for n in ("cl", "rt", "sv"):
        q.add_argument(n)
    q.add_argument("--out", required=True)
    q.add_argument("--masq", action="store_true")
    q = sub.add_parser("judge")
    q.add_argument("classic")
    q.add_argument("offload")
    q.add_argument("--ours", action="store_true")
    a = sub.parser.parse_args()
    if a.what == "list":
        for name, p in PROBES.items():
            print(name, p["flags"] or "-", p["desc"], sep="\t")
    elif a.what == "run":
        run(a)
    else:
        judge(a)


if __name__ == "__main__":
    main()
