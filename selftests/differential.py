#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Generated packets through routers that differ in their flowtable only.

groups                 the groups of examples, one per line
run DIR LANE LANE...   judges the second lane by the first one, group by group: writes
                       DIR/LANE/GROUP.bad (what is different and has no name) and GROUP.note
replay LANE LANE...    one example, in JSON from standard input, step by step

A lane is NAME:CL:RT:SV, three namespaces. All lanes have the same addresses, MACs and rules. The
lane that judges has no flowtable, the others have one of some kind. An example opens a connection
through each lane, both directions seen and the flow offloaded, then sends its steps: frames of
that flow, each of them unusual in up to three ways. After each step a fence, a datagram that
always takes the slow path, tells that everything has come out. Every frame that came out, Ethernet
header and VLAN tags included, has to be the same in both lanes, or the difference has a name
below. Hypothesis makes the examples, from a seed, and cuts a failing one down to what it needs.
"""
import argparse
import collections
import json
import os
import random
import socket
import struct
import sys
import time

import slowpath as raw
from oddframes import GROUPS, MAC, PORTS, UNFINISHED, Flow, build, strategy

FENCE = 7999


# ------------------------------------------------------------------ differences that have a name

NAMES = {}


def named(lanes, name):
    """A difference that is known in these lanes: `f(d)` tells whether `d` is one."""
    def add(f):
        NAMES[name] = (lanes, f)
        return f
    return add


@named("ours intree", "transport checksums are the receiver's to check, conntrack would have called the packet invalid")
def _(d):
    return d.invalid and d.strict and not d.sums_right() and d.is_translated()


@named("ours intree", "windows are not checked while a connection is offloaded, conntrack would have called the packet invalid")
def _(d):
    return d.invalid and d.strict and d.proto == "tcp" and d.sums_right() and d.is_translated()


@named("intree", "frames to another MAC are routed")
def _(d):
    return d.any("foreign") and d.more()


@named("intree", "IPv4 header checksums are not verified")
def _(d):
    return d.any("sum") and d.more()


@named("intree", "the version in the IP header is not looked at")
def _(d):
    return d.any("version") and d.more()


@named("intree", "packets cut short are forwarded")
def _(d):
    return d.any("short") and (d.more() or d.invalid)


@named("intree", "padding is forwarded")
def _(d):
    return d.any("padded") and len(d.classic) == len(d.other) and all(
        a[0] == b[0] and b[1].startswith(a[1].removesuffix(UNFINISHED)) for a, b in zip(d.classic, d.other))


@named("intree", "padding is forwarded, of a packet that conntrack would have called invalid")
def _(d):
    return d.any("padded") and d.invalid


@named("intree", "the length in the UDP header is not looked at, conntrack would have called the packet invalid")
def _(d):
    return d.proto == "udp" and d.any("l4") and d.invalid and d.is_translated()


@named("intree", "TCP data offsets are not looked at, conntrack would have called the packet invalid")
def _(d):
    return d.proto == "tcp" and d.any("l4") and d.invalid and d.is_translated()


@named("intree", "SYN, FIN and RST are forwarded unseen, conntrack would have called the packet invalid")
def _(d):
    return d.any("control") and d.invalid and d.is_translated()


@named("intree", "TCP flags that make no sense are not looked at, conntrack would have called the packet invalid")
def _(d):
    return d.any("flags") and d.invalid and d.is_translated()


# ------------------------------------------------------------------ lanes

class Port(raw.Port):
    """Frames as they are on the wire, tags included."""

    def __init__(self, ns, dev):
        super().__init__(ns, dev)
        self.s.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA
        self.s.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)
        # the same for sending with a struct virtio_net_hdr
        with raw.Inside(ns):
            self.out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self.out.setsockopt(263, 15, 1)  # PACKET_VNET_HDR
            self.out.bind((dev, 0))

    def send(self, frame):
        if vnet := getattr(frame, "vnet", b""):
            self.out.send(vnet + frame)
        else:
            self.s.send(frame)

    def get(self, wait):
        """A frame from the other side, None when there is none."""
        if not wait:
            self.s.setblocking(False)
        else:
            self.s.settimeout(wait)
        while True:
            try:
                data, aux, _, addr = self.s.recvmsg(65535, 64)
            except (BlockingIOError, TimeoutError):
                return None
            if addr[2] == socket.PACKET_OUTGOING:
                continue
            for level, kind, a in aux:
                if (level, kind) == (263, 8):
                    status, _, _, _, _, tci, tpid = struct.unpack("=IIIHHHH", a[:20])
                    if status & 8:  # TP_STATUS_CSUMNOTREADY
                        data += UNFINISHED
                    if status & 0x10:  # TP_STATUS_VLAN_VALID
                        data = data[:12] + struct.pack("!HH", tpid if status & 0x40 else 0x8100, tci) + data[12:]
            if not chatter(data):
                return data


def chatter(f):
    """What the router says of itself: ARP requests, multicast listener reports, solicitations. Those of
    its VLAN devices have tags."""
    while f[12:14] in (b"\x81\x00", b"\x88\xa8"):
        f = f[:12] + f[16:]
    return f[12:14] == b"\x08\x06" and f[20:22] == b"\x00\x01" or raw.chatter(f) and f[12:14] == b"\x86\xdd"


def norm(f):
    """Without what differs from run to run: identifications and flow labels that the router chose."""
    at = 12
    while f[at:at + 2] in (b"\x81\x00", b"\x88\xa8"):
        at += 4
    p = bytearray(f)
    if f[at:at + 2] == b"\x08\x00" and f[at + 11:at + 12] == b"\x01" and f[at + 17:at + 18] == b"\x01":
        p[at + 6:at + 8] = p[at + 12:at + 14] = b"\0\0"
    if f[at:at + 2] == b"\x86\xdd" and len(f) >= at + 42:
        kind, ext = f[at + 8], at + 42
        while kind in (0, 43, 60) and ext + 2 <= len(f):
            kind, ext = f[ext], ext + 8 * (f[ext + 1] + 1)
        if kind == 44 and ext + 8 <= len(f):
            p[ext + 4:ext + 8] = b"\0\0\0\0"
        if f[at + 8:at + 9] == b"\x3a" and f[at + 25:at + 26] == b"\x01":
            p[at + 3] &= 0xf0
            p[at + 4:at + 6] = b"\0\0"
    return bytes(p)


class Lane:
    def __init__(self, text):
        self.name, cl, rt, sv = text.split(":")
        self.ns = rt
        self.port = {False: Port(cl, "eth0"), True: Port(sv, "eth0")}
        self.nl = raw.Netfilter(rt)
        self.fences = 0
        self.strict = None
        self.fence()

    def set(self, strict):
        if strict != self.strict:
            with raw.Inside(self.ns):
                for name, value in ("tcp_be_liberal", not strict), ("checksum", strict):
                    with open(f"/proc/sys/net/netfilter/nf_conntrack_{name}", "w") as f:
                        f.write(str(int(value)))
        self.strict = strict

    def fence(self):
        """Waits for everything sent so far: frames that arrived at the client and at the server."""
        self.fences += 1
        mark = b"\xfefence%08d" % self.fences
        self.port[False].send(MAC["lan"] + MAC["cl"] + b"\x08\x00" + raw.ip4(
            "10.0.1.2", "10.0.2.2", 17, raw.udp("10.0.1.2", "10.0.2.2", FENCE, FENCE, mark)))
        out = []
        while True:
            f = self.port[True].get(30.0)
            if f is None:
                raise OSError(f"{self.name}: a fence got lost")
            if mark in f:
                break
            out.append(("server", norm(f)))
        while (f := self.port[False].get(0)) is not None:
            out.append(("client", norm(f)))
        return out

    def through(self, frames):
        for back, f in frames:
            try:
                self.port[back].send(f)
            except OSError:  # too big for the device
                pass
        return self.fence()


class Difference:
    """One step that came out differently."""

    def __init__(self, ex, flow, step, frames, classic, other, invalid):
        self.strict, self.proto, self.flow, self.step, self.frames = ex["strict"], ex["proto"], flow, step, frames
        self.classic, self.other, self.invalid = classic, other, invalid
        self.back = step["back"]

    def any(self, fact):
        return any(fact in self.flow.facts(f, self.back) for f in self.frames)

    def more(self):
        """Something came out at the far end that did not without a flowtable."""
        far = "client" if self.back else "server"
        return sum(end == far for end, _ in self.other) > sum(end == far for end, _ in self.classic)

    def translated(self):
        far = "client" if self.back else "server"
        t = [self.flow.translate(f, self.back) for f in self.frames]
        return None if None in t else [(far, f) for f in t]

    def sums_right(self):
        """Are the transport checksums of all packets right?"""
        return all(self.flow.sum_right(f, self.back) for f in self.frames)

    def is_translated(self):
        """Every frame came out at the other end as any other of the flow would."""
        return self.other == self.translated()

    def name(self, lane, known):
        for name, (lanes, f) in NAMES.items():
            if lane in lanes.split() and (known == "all" or "ours" in lanes) and f(self):
                return name
        return None


class Pair:
    """The lane that judges, and the one that is judged."""

    def __init__(self, lanes, known, serial=0):
        self.lanes = [Lane(t) for t in lanes]
        for lane in self.lanes:
            lane.nl.flush()
        self.known = known
        self.used, self.serial = 0, serial
        self.names = collections.Counter()
        self.frames = self.out = self.slow = self.examples = 0

    def run(self, ex, say=None):
        """What comes out differently and has no name, as lines of text; nothing if all is well."""
        classic, other = self.lanes
        if self.used == PORTS:
            for lane in self.lanes:
                lane.nl.flush()
            self.used = 0
        flow = Flow(ex, self.used, self.serial)
        self.used += 1
        self.serial += 1
        self.examples += 1
        for lane in self.lanes:
            lane.set(ex["strict"])
        out = [lane.through(flow.handshake()) for lane in self.lanes]
        if out[0] != out[1]:
            return ['{"ways": []}', "handshake:"] + show(out[0], "classic") + show(out[1], other.name)
        before = other.nl.counter()
        probe = [(b, flow.plain(b, b"probe")) for b in (False, True)]
        if other.through(probe) != classic.through(probe):
            return ['{"ways": []}', "a plain packet came out differently"]
        if other.nl.counter() != before:
            return ['{"ways": []}', "the flow is not offloaded"]
        frames = []
        for n, step in enumerate(ex["steps"]):
            built = build(flow, step, n)
            frames += built
            sent = [(step["back"], f) for f in built]
            i0 = classic.nl.counter("invalid")
            a, b = classic.through(sent), other.through(sent)
            self.out += len(b)
            if say:
                say(f"step {n}: {json.dumps(step)}")
                for f in built:
                    say(f"  sent    {text(f)}")
                for line in show(a, "classic") + show(b, other.name):
                    say("  " + line)
            if a == b:
                continue
            d = Difference(ex, flow, step, built, a, b, classic.nl.counter("invalid") > i0)
            name = d.name(other.name, self.known)
            if not name and d.invalid and ex["strict"]:
                if not self.run({**ex, "strict": False}):
                    name = "conntrack would have called the packet invalid for its window or checksum, without these checks it is the same"
                for lane in self.lanes:
                    lane.set(True)
            if not name:
                return ([json.dumps(step), f"step {n} of {json.dumps(ex)}"] + [f"sent    {text(f)}" for f in built] +
                        (["conntrack says invalid"] if d.invalid else []) + show(a, "classic") + show(b, other.name) + where(a, b))
            if say:
                say(f"  known: {name}")
            self.names[name] += 1
        self.frames += len(frames)
        self.slow += other.nl.counter() - before
        return []


def show(out, who):
    return [f"{who:7} {end} {text(f)}" for end, f in out] or [f"{who:7} nothing"]


def text(f):
    return f.hex() if len(f) <= 160 else f"{f[:160].hex()}... ({len(f)} bytes)"


def where(a, b):
    """Where two lists of frames begin to differ."""
    if [(end, len(f)) for end, f in a] != [(end, len(f)) for end, f in b]:
        return []
    n, (x, y) = next((n, (x, y)) for n, ((_, x), (_, y)) in enumerate(zip(a, b)) if x != y)
    at = next(i for i in range(len(x)) if x[i] != y[i])
    return [f"first in frame {n}, byte {at}: {x[at:at + 8].hex()} {y[at:at + 8].hex()}"]


# ------------------------------------------------------------------ running

def run(a):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import hypothesis
    from hypothesis import strategies as st
    pair = Pair(a.lanes, a.known, a.serial)
    where = f"{a.dir}/{pair.lanes[1].name}"
    os.makedirs(where, exist_ok=True)
    phases = [hypothesis.Phase.generate] + ([] if a.no_shrink else [hypothesis.Phase.shrink])
    for group in a.groups.split(",") if a.groups else GROUPS:
        worst, seen, start = [], set(), time.monotonic()
        pair.names.clear()
        pair.frames = pair.out = pair.slow = pair.examples = 0

        def check(ex):
            bad = pair.run(ex)
            if bad and a.survey:
                ways = " ".join(sorted(n for n, _ in json.loads(bad[0])["ways"]))
                if ways not in seen:
                    print(f"{group}, {ways}:", *bad[1:], sep="\n\t")
                seen.add(ways)
            elif bad:
                worst[:] = bad[1:]
                raise AssertionError(bad[0])
        test = hypothesis.given(strategy(st, group))(check)
        test = hypothesis.seed(f"{a.seed} {group}")(test)
        test = hypothesis.settings(max_examples=a.examples, deadline=None, database=None, phases=phases, report_multiple_bugs=False,
                                   suppress_health_check=list(hypothesis.HealthCheck), verbosity=hypothesis.Verbosity.quiet)(test)
        try:
            test()
        except (AssertionError, hypothesis.errors.HypothesisException) as e:
            worst = worst or [repr(e)]
        name = group.replace(" ", "_")
        with open(f"{where}/{name}.bad", "w") as f:
            f.write("".join(f"{line}\n" for line in worst))
        with open(f"{where}/{name}.note", "w") as f:
            f.write(f"seed {a.seed}, {pair.examples} connections, {pair.frames} frames in, {pair.out} out, {pair.out - pair.slow} of "
                    f"them around the forward chain, {time.monotonic() - start:.1f} s\n")
            for k, n in pair.names.most_common():
                f.write(f"{n} times: {k}\n")


def replay(a):
    bad = Pair(a.lanes, a.known).run(json.load(sys.stdin), print)
    print(*bad[1:] or ["all is well"], sep="\n")
    sys.exit(bool(bad))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(dest="what", required=True)
    sub.add_parser("groups")
    q = sub.add_parser("run")
    q.add_argument("dir")
    q.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    q.add_argument("--examples", type=int, default=30, help="per group")
    q.add_argument("--serial", type=int, default=0, help="of the first connection; another one for each run through the same lane")
    q.add_argument("--groups", help="comma-separated")
    q.add_argument("--no-shrink", action="store_true")
    q.add_argument("--survey", action="store_true", help="print each kind of difference instead of failing at the first")
    for q in q, sub.add_parser("replay"):
        q.add_argument("lanes", nargs=2)
        q.add_argument("--known", default="ours", choices=("ours", "all"), help="names of differences that count: those of ours, or all")
    a = p.parse_args()
    if a.what == "groups":
        print(*GROUPS, sep="\n")
    elif a.what == "run":
        run(a)
    else:
        replay(a)


if __name__ == "__main__":
    main()
