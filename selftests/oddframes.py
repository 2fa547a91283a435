# SPDX-License-Identifier: GPL-2.0
"""Frames of a connection, and the ways in which they can be unusual, for differential.py.

An example is plain data: family, what the router does to the connection, protocol, and steps; a
step is a direction, a size and a few ways, each a name and a value. strategy() tells Hypothesis
how to draw one, Flow and build() make frames of it.
"""
import struct

import slowpath as raw
from slowpath import aton, csum

MAC = {"cl": "020000000102", "lan": "020000000101", "wan": "020000000201", "sv": "020000000202"}
MAC = {name: bytes.fromhex(a) for name, a in MAC.items()}
FIRST_PORT, PORTS = 10000, 1024
# stands behind a received frame whose checksum is to be completed
UNFINISHED = b" checksum to be completed"
# destination port on the LAN side: what the ruleset does with it
KINDS = {"routed": 7100, "SNAT": 7200, "masquerade": 7300, "DNAT": 7400}


# ------------------------------------------------------------------ the flow of an example

class Flow:
    """Addresses and ports of an example's connection, as either end sees them."""

    def __init__(self, ex, port, serial=0):
        self.serial = serial
        v4, tagged = ex["fam"] == 4, ex["vlan"]
        host = "10.0.%d.%d" if v4 else "fd00:%d::%d"
        kind = ex["kind"]
        self.fam, self.proto = ex["fam"], ex["proto"]
        self.v4 = v4
        self.l4 = raw.udp if self.proto == "udp" else raw.tcp
        self.tags = {"cl": [(0x8100, 10)] if tagged else [], "sv": [(0x8100, 30)] if tagged else []}
        sport, dport = FIRST_PORT + port, KINDS[kind]
        cl = host % (4 if tagged else 1, 2)
        sv = host % (3 if tagged else 2, 2)
        me = host % (3 if tagged else 2, 1)
        if kind == "DNAT":
            dport += tagged
            self.fore = (cl, host % (4 if tagged else 1, 1), sport, dport)
            out = (cl, sv, sport, 7101)
        elif kind == "SNAT":
            self.fore = (cl, sv, sport, dport)
            out = (me, sv, sport + 20000, dport)
        else:
            self.fore = (cl, sv, sport, dport)
            out = (me if kind == "masquerade" else cl, sv, sport, dport)
        self.aft = (out[1], out[0], out[3], out[2])
        # what a packet looks like that has gone through
        self.through = {False: out, True: (self.fore[1], self.fore[0], self.fore[3], self.fore[2])}

    def way(self, back):
        return self.aft if back else self.fore

    def seqs(self, back):
        return (9000, 1041) if back else (1041, 9000)

    def l2(self, back, tags=None):
        """Destination, source and tags of a frame."""
        end, dev = ("sv", "wan") if back else ("cl", "lan")
        return MAC[dev] + MAC[end] + b"".join(struct.pack("!HH", *t) for t in (self.tags[end] if tags is None else tags))

    def plain(self, back, body, flags=0x18, seq=None, ack=None):
        src, dst, sport, dport = self.way(back)
        s, a = self.seqs(back)
        if self.proto == "udp":
            seg, number = raw.udp(src, dst, sport, dport, body), 17
        else:
            seg, number = raw.tcp(src, dst, sport, dport, s if seq is None else seq, a if ack is None else ack, flags, body), 6
        ip = raw.ip4(src, dst, number, seg) if self.v4 else raw.ip6(src, dst, number, seg)
        return self.l2(back) + (b"\x08\x00" if self.v4 else b"\x86\xdd") + ip

    def handshake(self):
        """Frames that make the connection established, then offloaded."""
        if self.proto == "tcp":
            yield False, self.plain(False, b"", 0x02, 1000, 0)
            yield True, self.plain(True, b"", 0x12, 8999, 1001)
            yield False, self.plain(False, b"", 0x10, 1001, 9000)
        for i in range(3):
            yield False, self.plain(False, b"fore%d" % i)
            yield True, self.plain(True, b"back%d" % i)

    def sum_right(self, frame, back):
        """Is the transport checksum of an ordinary frame of the flow right?"""
        if frame.vnet:
            return True
        ip = frame[14 + 4 * len(self.tags["sv" if back else "cl"]):]
        size = 20 if self.v4 else 40
        seg = ip[size:struct.unpack_from("!H", ip, 2)[0] if self.v4 else 40 + struct.unpack_from("!H", ip, 4)[0]]
        if self.proto == "udp" and seg[6:8] == b"\0\0":
            return self.v4
        src, dst = self.way(back)[:2]
        return csum(raw.pseudo(src, dst, 17 if self.proto == "udp" else 6, len(seg)) + seg) == 0

    def facts(self, frame, back):
        """What is wrong with a frame."""
        facts = set()
        at = 14 + 4 * len(self.tags["sv" if back else "cl"])
        ip, size = frame[at:], 20 if self.v4 else 40
        if frame[:6] != MAC["wan" if back else "lan"]:
            facts.add("foreign")
        if len(ip) < size:
            return facts | {"short"}
        total = struct.unpack_from("!H", ip, 2)[0] if self.v4 else 40 + struct.unpack_from("!H", ip, 4)[0]
        if ip[0] >> 4 != self.fam:
            facts.add("version")
        if self.v4 and csum(ip[:20]):
            facts.add("sum")
        if total > len(ip) or total < size + (8 if self.proto == "udp" else 20):
            facts.add("short")
        elif total < len(ip):
            facts.add("padded")
        seg = ip[size:total]
        if self.proto == "udp" and len(seg) >= 8 and not 8 <= struct.unpack_from("!H", seg, 4)[0] <= len(seg):
            facts.add("l4")
        if self.proto == "tcp" and len(seg) >= 20:
            if not 20 <= (seg[12] >> 4) * 4 <= len(seg):
                facts.add("l4")
            if seg[13] & 0x07:
                facts.add("control")
            # what conntrack takes for valid, see tcp_valid_flags
            if seg[13] & 0x37 not in (0x02, 0x22, 0x12, 0x04, 0x14, 0x11, 0x31, 0x10, 0x30):
                facts.add("flags")
        return facts

    def translate(self, frame, back):
        """What becomes of an ordinary frame of the flow; None for one that is not."""
        end = "sv" if back else "cl"
        head = 12 + 4 * len(self.tags[end])
        kind = b"\x08\x00" if self.v4 else b"\x86\xdd"
        size = 20 if self.v4 else 40
        p = bytearray(frame[head + 2:])
        if frame[12:head + 2] != self.l2(back)[12:] + kind or len(p) < size + (8 if self.proto == "udp" else 20):
            return None
        src, dst, sport, dport = self.way(back)
        nsrc, ndst, nsport, ndport = self.through[back]
        old, new = aton(src) + aton(dst), aton(nsrc) + aton(ndst)
        ports = struct.pack("!HH", sport, dport), struct.pack("!HH", nsport, ndport)
        at = 12 if self.v4 else 8
        if p[at:size] != old or p[size:size + 4] != ports[0]:
            return None
        del p[struct.unpack_from("!H", p, 2)[0] if self.v4 else struct.unpack_from("!H", p, 4)[0] + 40:]
        if len(p) < size + (8 if self.proto == "udp" else 20):
            return None
        ttl = 8 if self.v4 else 7
        p[ttl] = p[ttl] - 1 & 0xff
        p[at:size], p[size:size + 4] = new, ports[1]
        if self.v4:
            p[10:12] = b"\0\0"
            p[10:12] = struct.pack("!H", csum(bytes(p[:20])))
        c = size + (6 if self.proto == "udp" else 16)
        check = struct.unpack_from("!H", p, c)[0]
        if (check or self.proto == "tcp") and (old, ports[0]) != (new, ports[1]):
            partial = bool(getattr(frame, "vnet", b""))  # the sum of the pseudo header, as it is
            was, now = (struct.unpack(f"!{len(b) // 2}H", b) for b in
                        ((new, old) if partial else (old + ports[0], new + ports[1])))
            s = (~check & 0xffff) + sum(~w & 0xffff for w in was) + sum(now)
            while s >> 16:
                s = (s & 0xffff) + (s >> 16)
            check = ~s & 0xffff
            if self.proto == "udp" and not partial:
                check = check or 0xffff
            struct.pack_into("!H", p, c, check)
        far, dev = ("cl", "lan") if back else ("sv", "wan")
        tags = b"".join(struct.pack("!HH", *t) for t in self.tags[far])
        return MAC[far] + MAC[dev] + tags + kind + bytes(p) + (UNFINISHED if getattr(frame, "vnet", b"") else b"")


# ------------------------------------------------------------------ frames

def scapy():
    """Late: it takes a second to load."""
    import logging
    logging.getLogger("scapy").setLevel(logging.ERROR)
    from scapy.config import conf
    conf.ipv6_enabled = True
    import scapy.layers.inet as v4
    import scapy.layers.inet6 as v6
    return v4, v6


class Frame(bytes):
    """With what a sender leaves to the device: a struct virtio_net_hdr."""
    vnet = b""


class Packet:
    """A frame in the making: layers of scapy, then bytes that are changed in place."""

    def __init__(self, flow, back, size, n):
        v4, v6 = scapy()
        self.flow, self.back = flow, back
        src, dst, sport, dport = flow.way(back)
        self.dst, self.src = MAC["wan" if back else "lan"], MAC["sv" if back else "cl"]
        self.tags = list(flow.tags["sv" if back else "cl"])
        self.type = 0x0800 if flow.v4 else 0x86dd
        if flow.v4:
            self.ip = v4.IP(src=src, dst=dst, id=self.ident(n), flags="DF")
        else:
            self.ip = v6.IPv6(src=src, dst=dst)
        if flow.proto == "udp":
            self.l4 = v4.UDP(sport=sport, dport=dport)
        else:
            seq, ack = flow.seqs(back)
            self.l4 = v4.TCP(sport=sport, dport=dport, flags="PA", seq=seq, ack=ack, window=0x7000)
        self.body = (b"step%04d" % n + bytes((i * 7 + n) & 0xff for i in range(size)))[:size]
        self.ext = []       # IPv6 extension headers: number, bytes behind "next header"
        self.later = []     # what is done to the bytes of the IP packet
        self.outside = []   # what is done to the frame
        self.split = None
        self.device = None  # what is left to the device: the size of segments, 0 for the checksum alone
        self.n = n

    def ident(self, n):
        """No two packets to be reassembled have the same."""
        return (self.flow.serial * 8 + n) & 0xffff

    def packet(self):
        b = bytearray(bytes(self.ip / self.l4 / self.body))
        if self.ext:
            number, head, tail = b[6], b[:40], bytes(b[40:])
            for kind, data in reversed(self.ext):
                tail, number = bytes([number]) + data + tail, kind
            head[6] = number
            head[4:6] = struct.pack("!H", min(len(tail), 0xffff))
            b = head + tail
        for f in self.later:
            b = f(b) or b
        return bytes(b)

    def frames(self):
        b = self.packet()
        parts = [b]
        if self.split:
            parts = fragments(b, self.flow.v4, *self.split)
        tags = b"".join(struct.pack("!HH", *t) for t in self.tags)
        out = []
        for part in parts:
            f = bytearray(self.dst + self.src + tags + struct.pack("!H", self.type) + part)
            for g in self.outside:
                f = g(f) or f
            # shorter than an Ethernet header cannot be sent
            f = Frame(f.ljust(14, b"\0"))
            # nobody leaves the checksum of a fragment to a device
            if self.device is not None and not self.split:
                f.vnet = self.vnet()
            out.append(f)
        return out

    def vnet(self):
        udp = self.flow.proto == "udp"
        start = 14 + 4 * len(self.tags) + (len(bytes(self.ip)) if self.flow.v4 else 40 + sum(1 + len(d) for _, d in self.ext))
        kind = 0 if not self.device else 5 if udp else 1 if self.flow.v4 else 4
        return struct.pack("=BBHHHH", 1, kind, start + (8 if udp else 20), self.device, start, 6 if udp else 16)


def fragments(b, v4, n, order, seed):
    """The packet in n fragments."""
    if v4:
        size = (b[0] & 15) * 4
        head, data = bytearray(b[:size]), b[size:]
    else:
        size = 40
        head, data = bytearray(b[:40]), b[40:]
    if size < 20 or not data:
        return [b]
    if v4:
        head[6] &= ~0x40
    step = max(8, (len(data) // n) & ~7)
    parts = [(at, data[at:at + step]) for at in range(0, len(data), step)]
    if order == "overlap" and len(parts) > 1:
        parts[1] = (parts[1][0] - 8, parts[0][1][-8:] + parts[1][1])
    if order == "missing":
        parts = parts[1:] or parts
    if order == "reverse":
        parts.reverse()
    if order == "twice":
        parts = parts[:1] + parts
    out = []
    for at, part in parts:
        more = at + len(part) < len(data)
        h = bytearray(head)
        if v4:
            h[2:4] = struct.pack("!H", len(h) + len(part))
            h[6:8] = struct.pack("!H", struct.unpack_from("!H", h, 6)[0] & 0xc000 | more << 13 | at >> 3)
            fix(h)
            out.append(bytes(h) + part)
        else:
            f = struct.pack("!BBHI", h[6], 0, at | more, seed)
            h[6] = 44
            h[4:6] = struct.pack("!H", len(f + part))
            out.append(bytes(h) + f + part)
    return out


def fix(b):
    """The checksum of an IPv4 header, over as much as there is."""
    size = min(max((b[0] & 15) * 4, 20), len(b))
    b[10:12] = b"\0\0"
    b[10:12] = struct.pack("!H", csum(bytes(b[:size])))


# ------------------------------------------------------------------ ways to be unusual
# Each is a name, where it applies and a function of the packet and of what was drawn for it.

WAYS = {}


def way(name, draw=lambda st: st.none(), fam=(4, 6), proto=("tcp", "udp")):
    def add(f):
        WAYS[name] = (draw, fam, proto, f)
        return f
    return add


def one(*values):
    return lambda st: st.sampled_from(values)


def number(low, high):
    return lambda st: st.integers(low, high)


def later(p, f):
    p.later.append(f)


def word(b, at, value):
    if at + 2 <= len(b):
        b[at:at + 2] = struct.pack("!H", value & 0xffff)


@way("ttl", one(1, 0, 2, 3, 255))
def _(p, v):
    setattr(p.ip, "ttl" if p.flow.v4 else "hlim", v)


@way("tos", number(0, 255))
def _(p, v):
    setattr(p.ip, "tos" if p.flow.v4 else "tc", v)


@way("label", number(0, 0xfffff), fam=(6,))
def _(p, v):
    p.ip.fl = v


@way("flags", one("", "evil", "evil+DF", "MF", "MF+DF"), fam=(4,))
def _(p, v):
    p.ip.flags = v


@way("offset", one(1, 2, 185, 8191), fam=(4,))
def _(p, v):
    p.ip.frag, p.ip.flags = v, ""


@way("id", one(0, 0xffff, 0x8000), fam=(4,))
def _(p, v):
    p.ip.id = v


@way("ipsum", one(0, 1, 0xffff, 0x1234), fam=(4,))
def _(p, v):
    """A wrong header checksum: the right one, and something more."""
    later(p, lambda b: word(b, 10, (struct.unpack_from("!H", b, 10)[0] + (v or 0x100))))


@way("ipedge", one("before", "after"), fam=(4,))
def _(p, when):
    """A header checksum of zero, before or after forwarding."""
    def f(b):
        h = bytearray(b[:(b[0] & 15) * 4])
        h[10:12] = h[4:6] = b"\0\0"
        if when == "after":
            h[8] = h[8] - 1 & 0xff
            src, dst = p.flow.through[p.back][:2]
            h[12:20] = aton(src) + aton(dst)
        b[4:6] = struct.pack("!H", csum(bytes(h)))
        fix(b)
    later(p, f)


@way("iplen", one(-1, 1, -8, 8, -20, 20, -10000, 10000))
def _(p, v):
    """A length field that is not that of the packet."""
    def f(b):
        at = 2 if p.flow.v4 else 4
        word(b, at, max(0, struct.unpack_from("!H", b, at)[0] + v))
        if p.flow.v4:
            fix(b)
    later(p, f)


@way("version", number(0, 15))
def _(p, v):
    def f(b):
        b[0] = b[0] & 15 | v << 4
        if p.flow.v4:
            fix(b)
    later(p, f)


@way("ihl", number(0, 15), fam=(4,))
def _(p, v):
    def f(b):
        b[0] = b[0] & 0xf0 | v
        fix(b)
    later(p, f)


@way("proto", one(0, 1, 2, 4, 6, 17, 33, 41, 44, 47, 50, 51, 58, 59, 60, 89, 132, 136, 255))
def _(p, v):
    def f(b):
        b[9 if p.flow.v4 else 6] = v
        if p.flow.v4:
            fix(b)
    later(p, f)


@way("options", one("nop", "end", "rr", "alert", "lsrr", "ssrr", "stream", "bad", "full"), fam=(4,))
def _(p, v):
    v4, _ = scapy()
    p.ip.options = {
        "nop": [v4.IPOption_NOP()] * 4,
        "end": [v4.IPOption_EOL()],
        "rr": [v4.IPOption_RR(routers=["0.0.0.0"])],
        "alert": [v4.IPOption_Router_Alert()],
        "lsrr": [v4.IPOption_LSRR(routers=[p.ip.dst])],
        "ssrr": [v4.IPOption_SSRR(routers=[p.ip.dst])],
        "stream": [v4.IPOption_Stream_Id()],
        "bad": [v4.IPOption_RR(length=64, routers=[])],
        "full": [v4.IPOption_NOP()] * 40,
    }[v]


@way("ext", lambda st: st.lists(st.sampled_from((
    "hbh", "dst", "hbh-alert", "hbh-jumbo", "hbh-bad", "routing0", "routing-done", "atomic", "none", "ah", "mobility", "long")),
    min_size=1, max_size=4), fam=(6,))
def _(p, v):
    pad = b"\0\x01\x04\0\0\0\0"
    kinds = {
        "hbh": (0, pad), "dst": (60, pad), "hbh-alert": (0, b"\0\x05\x02\0\0\x01\0"),
        "hbh-jumbo": (0, b"\0\xc2\x04\0\x01\0\0"), "hbh-bad": (0, b"\0\xff\x04\0\0\0\0"),
        "routing0": (43, b"\x02\0\x01\0\0\0\0" + aton("fd00:2::2")), "routing-done": (43, b"\0\x04\0\0\0\0\0"),
        "atomic": (44, b"\0\0\0\0\0\0\x07"), "none": (59, pad), "ah": (51, b"\x04" + b"\0" * 22),
        "mobility": (135, b"\0\0\0\0\0\0\0"), "long": (60, b"\x1f\x01\xfd" + b"\0" * 253),
    }
    p.ext = [kinds[k] for k in v]


@way("fragments", lambda st: st.tuples(st.integers(2, 4), st.sampled_from(("", "reverse", "missing", "overlap", "twice"))))
def _(p, v):
    if p.flow.v4:
        p.ip.id = p.ident(p.n)
    p.split = (*v, p.ident(p.n))


@way("l4sum", one(1, 0x100, 0xffff))
def _(p, v):
    """A wrong transport checksum."""
    def f(b):
        at = offset(p, b, 6, 16)
        if at + 2 <= len(b):
            word(b, at, struct.unpack_from("!H", b, at)[0] ^ v or 1)
    later(p, f)


def offset(p, b, udp, tcp):
    """Where a field of the transport header lies."""
    start = (b[0] & 15) * 4 if p.flow.v4 else 40 + sum(1 + len(d) for _, d in p.ext)
    return start + (udp if p.flow.proto == "udp" else tcp)


@way("l4edge", one("before", "after", "ffff"))
def _(p, when):
    """A transport checksum of zero, before or after translation; or 0xffff, which means the same."""
    if len(p.body) < 10:
        p.body = p.body.ljust(10, b"-")
    p.body = p.body[:8] + b"\0\0" + p.body[10:]
    src, dst, sport, dport = p.flow.through[p.back] if when == "after" else p.flow.way(p.back)
    number = 17 if p.flow.proto == "udp" else 6
    seg = bytearray(bytes(p.ip / p.l4 / p.body)[len(bytes(p.ip)):])
    at = 6 if number == 17 else 16
    seg[0:4], seg[at:at + 2] = struct.pack("!HH", sport, dport), b"\0\0"
    value = csum(raw.pseudo(src, dst, number, len(seg)) + bytes(seg))
    p.body = p.body[:8] + struct.pack("!H", value) + p.body[10:]
    if when == "ffff":
        later(p, lambda b: word(b, offset(p, b, 6, 16), 0xffff))


@way("udp0", proto=("udp",))
def _(p, _v):
    """No checksum."""
    later(p, lambda b: word(b, offset(p, b, 6, 6), 0))


@way("udplen", one(-1, 1, -8, 8, -100, 100, 30000), proto=("udp",))
def _(p, v):
    def f(b):
        at = offset(p, b, 4, 4)
        if at + 2 <= len(b):
            word(b, at, max(0, struct.unpack_from("!H", b, at)[0] + v))
    later(p, f)


@way("tcpflags", number(0, 511), proto=("tcp",))
def _(p, v):
    p.l4.flags = v


@way("seq", one(1, -1, 39, 1000, 20000, 28000, 29000, 100000, 1 << 31, -1000, -100000), proto=("tcp",))
def _(p, v):
    p.l4.seq = (p.l4.seq + v) & 0xffffffff


@way("ack", one(1, -1, 39, 1000, 20000, 29000, 100000, 1 << 31, -1000, -100000), proto=("tcp",))
def _(p, v):
    p.l4.ack = (p.l4.ack + v) & 0xffffffff


@way("window", one(0, 1, 0xffff), proto=("tcp",))
def _(p, v):
    p.l4.window = v


@way("urgent", one(1, 0xffff), proto=("tcp",))
def _(p, v):
    p.l4.urgptr = v


@way("doff", number(0, 15), proto=("tcp",))
def _(p, v):
    p.l4.dataofs = v


@way("tcpoptions", one("nop", "mss", "ts", "sack", "wscale", "md5", "full", "bad"), proto=("tcp",))
def _(p, v):
    p.l4.options = {
        "nop": [("NOP", None)] * 4, "mss": [("MSS", 536)], "ts": [("Timestamp", (1, 2)), ("NOP", None), ("NOP", None)],
        "sack": [("SAck", (9000, 9100))], "wscale": [("WScale", 14)], "md5": [(19, b"m" * 16)],
        "full": [("NOP", None)] * 40, "bad": [(30, b"x" * 30)],
    }[v]


@way("device", one(0, 100, 536, 1440, 1441, 1460, 1461, 1472, 1473))
def _(p, v):
    """Checksum, and with a size segmentation, are left to the device, as local senders and GRO do."""
    p.device = v
    if v:
        p.body = p.body.ljust(v + 1, b"=")

    def f(b):
        at, size = offset(p, b, 6, 16), 20 if p.flow.v4 else 40
        src, dst = p.flow.way(p.back)[:2]
        word(b, at, ~csum(raw.pseudo(src, dst, 17 if p.flow.proto == "udp" else 6, max(0, len(b) - size))))
    later(p, f)


# ---- the frame

@way("to", one("other", "broadcast", "multicast4", "multicast6", "zero", "wan", "lan"))
def _(p, v):
    p.dst = {"other": bytes.fromhex("02dead000001"), "broadcast": b"\xff" * 6, "multicast4": bytes.fromhex("01005e000005"),
             "multicast6": bytes.fromhex("333300000001"), "zero": bytes(6), "wan": MAC["wan"], "lan": MAC["lan"]}[v]


@way("from", one("other", "multicast", "router", "zero"))
def _(p, v):
    p.src = {"other": bytes.fromhex("02dead000001"), "multicast": bytes.fromhex("01005e000005"), "router": p.dst, "zero": bytes(6)}[v]


@way("pcp", number(1, 15))
def _(p, v):
    """Priority and drop-eligible bit of the tag; a tag of VLAN 0 where there is none."""
    first = p.tags[0] if p.tags else (0x8100, 0)
    p.tags[:1] = [(first[0], first[1] | v << 12)]


@way("tag", lambda st: st.tuples(st.sampled_from((0x8100, 0x88a8, 0x9100)), st.sampled_from((0, 1, 10, 30, 4095)), st.booleans()))
def _(p, v):
    """One tag more, outside or inside."""
    p.tags.insert(0 if v[2] else len(p.tags), (v[0], v[1]))


@way("untagged")
def _(p, _v):
    p.tags = []


@way("ethertype", one(0x0800, 0x86dd, 0x0806, 0x8863, 0x8864, 0x8100, 0x88a8, 0x8847, 0x88cc, 0x6003, 0x05dc, 0x0003, 0))
def _(p, v):
    p.type = v


@way("pppoe", one(b"\x00\x21".hex(), b"\x00\x57".hex(), b"\xc0\x21".hex(), "21"))
def _(p, v):
    """A PPPoE session header where there is no session."""
    v = bytes.fromhex(v)
    later(p, lambda b: bytearray(struct.pack("!BBHH", 0x11, 0, 1, len(b) + len(v)) + v + b))
    p.type = 0x8864


@way("inside", one("ipip", "6in4", "gre", "udp"))
def _(p, v):
    """The packet in one more IP header of the same addresses."""
    def f(b):
        src, dst, sport, dport = p.flow.way(p.back)
        ip = raw.ip4 if p.flow.v4 else raw.ip6
        body = bytes(b)
        if v == "gre":
            return bytearray(ip(src, dst, 47, b"\0\0" + (b"\x08\0" if p.flow.v4 else b"\x86\xdd") + body))
        if v == "udp":
            return bytearray(ip(src, dst, 17, raw.udp(src, dst, sport, dport, body)))
        return bytearray(ip(src, dst, 4 if p.flow.v4 else 41, body))
    later(p, f)


@way("icmp", one("unreachable", "too big", "expired", "echo", "reply"))
def _(p, v):
    """An ICMP error about a packet of the flow, or something like it."""
    def f(b):
        src, dst = p.flow.way(p.back)[:2]
        quoted = p.flow.plain(not p.back, b"quoted")
        quoted = Flow.translate(p.flow, quoted, not p.back) or quoted
        quoted = quoted[-len(quoted) + 14 + 4 * len(p.flow.tags["sv" if p.back else "cl"]):]
        if p.flow.v4:
            kind = {"unreachable": (3, 3), "too big": (3, 4), "expired": (11, 0), "echo": (8, 0), "reply": (0, 0)}[v]
            body = struct.pack("!BBHHH", *kind, 0, 0, 1400) + (quoted if kind[0] in (3, 11) else bytes(b)[:40])
            body = body[:2] + struct.pack("!H", csum(body)) + body[4:]
            return bytearray(raw.ip4(src, dst, 1, body, frag=0))
        kind = {"unreachable": (1, 4), "too big": (2, 0), "expired": (3, 0), "echo": (128, 0), "reply": (129, 0)}[v]
        body = struct.pack("!BBHI", *kind, 0, 1400) + (quoted if kind[0] < 128 else bytes(b)[:40])
        body = body[:2] + struct.pack("!H", csum(raw.pseudo(src, dst, 58, len(body)) + body)) + body[4:]
        return bytearray(raw.ip6(src, dst, 58, body))
    later(p, f)


@way("arp", one(1, 2, 3))
def _(p, v):
    """An ARP packet instead, for the router."""
    def f(_b):
        src = MAC["sv" if p.back else "cl"]
        net = 2 if p.back else 1
        return bytearray(struct.pack("!HHBBH", 1, 0x0800, 6, 4, v) + src + aton(f"10.0.{net}.2") + bytes(6) + aton(f"10.0.{net}.1"))
    later(p, f)
    p.type, p.tags = 0x0806, []


@way("pad", one(1, 2, 3, 6, 18, 100))
def _(p, v):
    """Something behind the packet."""
    p.outside.append(lambda f: f + bytes((0xe0 + i & 0xff) for i in range(v)))


@way("cut", number(14, 110))
def _(p, v):
    """The frame ends early."""
    p.outside.append(lambda f: f[:v])


@way("flip", number(0, 900))
def _(p, v):
    """One bit is wrong; not of an IPv6 address, which would have the router look for somebody."""
    def g(f):
        at, bit = divmod(v, 8)
        start = 14 + 4 * len(p.tags)
        if at < len(f) and (p.flow.v4 or not start + 8 <= at < start + 40):
            f[at] ^= 1 << bit
    p.outside.append(g)


SIZES = (16, 0, 1, 2, 3, 7, 8, 17, 18, 19, 64, 101, 500, 1400, 1431, 1432, 1433, 1452, 1453, 1460, 1461, 1472, 1473, 2000, 3001, 8000)


def strategy(st, group):
    """What Hypothesis draws an example of a group from."""
    fam, kinds, vlan = GROUPS[group]

    def steps(proto):
        ways = [st.tuples(st.just(n), draw(st)) for n, (draw, f, pr, _) in WAYS.items() if fam in f and proto in pr]
        step = st.fixed_dictionaries({
            "back": st.booleans(),
            "size": st.sampled_from(SIZES),
            "ways": st.lists(st.one_of(ways), max_size=3),
        })
        return st.fixed_dictionaries({
            "fam": st.just(fam), "kind": st.sampled_from(kinds), "vlan": st.just(vlan), "proto": st.just(proto),
            "strict": st.booleans(), "steps": st.lists(step, min_size=1, max_size=8),
        })
    return st.sampled_from(("udp", "tcp")).flatmap(steps)


GROUPS = {f"IPv{fam} {kind}": (fam, (kind,), False) for fam in (4, 6) for kind in KINDS}
GROUPS |= {f"IPv{fam} VLAN": (fam, tuple(KINDS), True) for fam in (4, 6)}


ORDER = {name: i for i, name in enumerate(WAYS)}


def build(flow, step, n):
    p = Packet(flow, step["back"], step["size"], n)
    # the order they are in here: fields first, then what is put around the packet, then the frame
    for name, value in sorted(step["ways"], key=lambda w: ORDER[w[0]]):
        WAYS[name][3](p, value)
    return p.frames()
