#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Random changes of namespaces, devices and rulesets while traffic flows.

Some routers, each with a client and a server. Two workers change whatever there is at random;
commands that fail because the other worker was first are nothing unusual. What must not happen: a
payload that differs, a module that can be unloaded while a flowtable exists. The rest is for the
kernel to complain about. Prints one JSON object; names of namespaces begin with PREFIX.
"""
import argparse
import collections
import json
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

FAILS = collections.deque(maxlen=20)
COUNT = collections.Counter()
RECENT = collections.deque(maxlen=40)
STOP = threading.Event()
RESET = struct.pack("ii", 1, 0)


def bad(text):
    FAILS.append(text)
    print(f"# {text}; before that: {' | '.join(RECENT)}", file=sys.stderr, flush=True)


def run(argv, text="", timeout=60):
    try:
        return subprocess.run(argv, input=text, text=True, capture_output=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        bad(f"hangs: {argv}")
        return subprocess.CompletedProcess(argv, 1, "", "timeout")


def ip(ns, *lines):
    return run(["ip", "-n", ns, "-force", "-batch", "-"], "\n".join(lines) + "\n").returncode == 0


def inside(ns, *argv, text=""):
    return run(["nsenter", f"--net=/run/netns/{ns}", "--", *argv], text)


def enter(ns):
    """This thread is in the namespace from now on."""
    fd = os.open(f"/run/netns/{ns}", os.O_RDONLY)
    try:
        os.setns(fd, 0x40000000)
    finally:
        os.close(fd)


# ------------------------------------------------------------------ traffic

def pattern(seq, size):
    return seq.to_bytes(8, "big") + random.Random(seq).randbytes(size)


class Server(threading.Thread):
    """Echoes UDP and TCP."""

    def __init__(self, ns, stop):
        super().__init__(daemon=True)
        self.ns, self.stop = ns, stop

    def run(self):
        try:
            enter(self.ns)
            udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            tcp = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
            for s in (udp, tcp):
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                s.bind(("::", 5000))
                s.setblocking(False)
            tcp.listen(50)
        except FileNotFoundError:
            return  # gone before it began
        except OSError as e:
            bad(f"server in {self.ns}: {e}")
            return
        waiting = {}  # what is still to be sent
        while not self.stop.is_set():
            full = [c for c, data in waiting.items() if data]
            hungry = [c for c, data in waiting.items() if len(data) < 1 << 17]
            r, w, _ = select.select([udp, tcp, *hungry], full, [], 0.1)
            for s in r:
                try:
                    if s is udp:
                        for _ in range(50):
                            data, peer = udp.recvfrom(65535)
                            udp.sendto(data, peer)
                    elif s is tcp:
                        c, _ = tcp.accept()
                        c.setblocking(False)
                        waiting[c] = bytearray()
                    else:
                        data = s.recv(1 << 16)
                        if not data:
                            raise ConnectionError
                        waiting[s] += data
                except BlockingIOError:
                    pass
                except OSError:
                    if s in waiting:
                        waiting.pop(s)
                        s.close()
            for s in w:
                try:
                    if s in waiting:
                        del waiting[s][:s.send(waiting[s])]
                except BlockingIOError:
                    pass
                except OSError:
                    waiting.pop(s, None)
                    s.close()
        for s in (udp, tcp, *waiting):
            if s is not udp:  # what nobody acknowledges any more would keep the namespace
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            s.close()


class Client(threading.Thread):
    """One kind of conversation after the other; what comes back must be what was sent."""

    def __init__(self, ns, addrs, tcp, seed, stop):
        super().__init__(daemon=True)
        self.ns, self.addrs, self.tcp, self.stop, self.rnd = ns, addrs, tcp, stop, random.Random(seed)

    def run(self):
        try:
            enter(self.ns)
        except FileNotFoundError:
            return
        except OSError as e:
            bad(f"client in {self.ns}: {e}")
            return
        while not self.stop.is_set():
            addr, port = self.rnd.choice(self.addrs), self.rnd.choice((5000, 5000, 5000, 8080))
            family = socket.AF_INET6 if ":" in addr else socket.AF_INET
            with socket.socket(family, socket.SOCK_STREAM if self.tcp else socket.SOCK_DGRAM) as s:
                s.settimeout(1)
                try:
                    s.connect((addr, port))
                    (self.stream if self.tcp else self.datagrams)(s)
                except OSError:
                    COUNT["interrupted"] += 1
                    if self.tcp:
                        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.stop.wait(0.1)

    def datagrams(self, s):
        s.setblocking(False)
        silent = 0
        for _ in range(self.rnd.choice((20, 200, 1000))):
            if self.stop.is_set() or silent > 50:
                return
            try:
                for _ in range(4):
                    seq = self.rnd.getrandbits(48)
                    s.send(pattern(seq, self.rnd.choice((10, 300, 1200, 1400, 3000))))
            except BlockingIOError:
                pass
            except OSError:
                COUNT["interrupted"] += 1
            silent += 1
            if not select.select([s], [], [], 0.02)[0]:
                continue
            try:
                while True:
                    data = s.recv(65535)
                    silent = 0
                    COUNT["datagrams"] += 1
                    if data != pattern(int.from_bytes(data[:8], "big"), len(data) - 8):
                        bad(f"a datagram to {self.ns} is damaged")
            except OSError:
                pass

    def stream(self, s):
        for _ in range(self.rnd.choice((1, 5, 30))):
            data = self.rnd.randbytes(self.rnd.choice((100, 20000, 100000)))
            sent, got = 0, bytearray()
            s.setblocking(False)
            until = time.monotonic() + 4
            while len(got) < len(data):
                if self.stop.is_set() or time.monotonic() > until:
                    raise ConnectionError
                r, w, _ = select.select([s], [s] if sent < len(data) else [], [], 0.2)
                if r:
                    part = s.recv(1 << 16)
                    if not part:
                        raise ConnectionError
                    got += part
                    until = time.monotonic() + 4
                if w:
                    sent += s.send(data[sent:sent + 65536])
            if got != data:
                bad(f"a stream to {self.ns} is damaged")
            COUNT["bytes"] += len(data)
            self.stop.wait(0.2)
        if self.rnd.random() < 0.3:  # a reset at the end
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def traffic(client, server, addrs, seed):
    """Until ended; then says what came back."""
    signal.signal(signal.SIGTERM, lambda *_: STOP.set())
    threads = [Server(server, STOP)] + [Client(client, addrs, tcp, seed + tcp, STOP) for tcp in (False, True)]
    for t in threads:
        t.start()
    for t in threads:
        while t.is_alive():
            t.join(1)
    print(json.dumps([list(FAILS), COUNT]))


# ------------------------------------------------------------------ the world

class Side:
    """One side of a router: a port, and on it nothing, a bridge, a VLAN or both."""

    def __init__(self, rnd, port, net4, net6):
        self.port, self.net4, self.net6 = port, net4, net6
        self.bridge = rnd.random() < 0.4
        self.vlan = rnd.random() < 0.3
        self.top = port
        if self.bridge:
            self.top = f"br-{port}"
        if self.vlan:
            self.top += ".7"

    def devices(self):
        lower = [self.port] + ([f"br-{self.port}"] if self.bridge else [])
        return lower + ([self.top] if self.vlan else [])

    def addresses(self, host="1", dev=None):
        dev = dev or self.top
        return [f"addr replace {self.net4}.{host}/24 dev {dev}", f"addr replace {self.net6}::{host}/64 dev {dev} nodad"]

    def build(self, router, end):
        run(["ip", "link", "add", self.port, "netns", router, "type", "veth", "peer", "name", "e0", "netns", end])
        dev, lines = self.port, [f"link set {self.port} up"]
        if self.bridge:
            dev = f"br-{self.port}"
            lines += [f"link add {dev} type bridge forward_delay 0 mcast_snooping 0", f"link set {self.port} master {dev}", f"link set {dev} up"]
        if self.vlan:
            lines += [f"link add link {dev} name {self.top} type vlan id 7", f"link set {self.top} up"]
        ip(router, *lines, *self.addresses())
        edev, lines = "e0", ["link set lo up", "link set e0 up"]
        if self.vlan:
            edev = "e0.7"
            lines += ["link add link e0 name e0.7 type vlan id 7", "link set e0.7 up"]
        ip(end, *lines, *self.addresses("2", edev), f"route replace default via {self.net4}.1", f"route replace ::/0 via {self.net6}::1")


class Router:
    def __init__(self, prefix, i, seed):
        self.rnd = random.Random(seed)
        self.i, self.names = i, [f"{prefix}{x}{i}" for x in "rab"]
        self.ns = self.names[0]
        self.nft_lock = threading.Lock()    # changes of the ruleset
        self.build_lock = threading.Lock()  # the router comes or goes
        self.flowtable = False              # there certainly is one

    def build(self):
        for n in self.names:
            run(["ip", "netns", "add", n])
        self.sides = [Side(self.rnd, f"l{self.i}", f"10.{self.i}.1", f"fd00:{self.i}:1"),
                      Side(self.rnd, f"w{self.i}", f"10.{self.i}.2", f"fd00:{self.i}:2")]
        for n in self.names:  # a connection that nobody ends would keep its namespace for minutes
            inside(n, "sysctl", "-qw", "net.ipv4.tcp_orphan_retries=1", "net.ipv4.tcp_fin_timeout=2")
        inside(self.ns, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.conf.all.rp_filter=0",
               "net.ipv4.conf.default.rp_filter=0", f"net.netfilter.nf_conntrack_acct={self.rnd.randint(0, 1)}",
               f"net.netfilter.nf_flowtable_tcp_timeout={self.rnd.choice((1, 2, 30))}",
               f"net.netfilter.nf_flowtable_udp_timeout={self.rnd.choice((1, 2, 30))}")
        for side, end in zip(self.sides, self.names[1:]):
            side.build(self.ns, end)
        # a process of its own, or it would be in the way of the changes
        self.traffic = subprocess.Popen([sys.executable, __file__, "--traffic", *self.names[1:], f"{self.sides[1].net4}.2", f"{self.sides[1].net6}::2",
                                         "--seed", str(self.rnd.getrandbits(30))], stdout=subprocess.PIPE, text=True)
        COUNT["routers"] += 1

    def destroy(self):
        self.flowtable = False
        hurry = self.rnd.random() < 0.5
        if hurry:  # with sockets that keep them alive a little longer
            for n in self.names:
                run(["ip", "netns", "del", n])
        self.traffic.terminate()
        try:
            said = self.traffic.communicate(timeout=60)[0]
            # one that had not even begun says nothing
            fails, count = json.loads(said) if said or self.traffic.returncode != -signal.SIGTERM else ([], {})
            for f in fails:
                bad(f)
            COUNT.update(count)
        except (subprocess.TimeoutExpired, ValueError) as e:
            self.traffic.kill()
            bad(f"traffic of {self.ns}: {e}")
        if not hurry:
            for n in self.names:
                run(["ip", "netns", "del", n])

    # -------------------------------------------------------------- rulesets

    def table(self, rnd, fam, name):
        devices = [d for s in self.sides for d in s.devices()]
        some = rnd.choice((devices, [s.port for s in self.sides], [s.top for s in self.sides],
                           rnd.sample(devices, rnd.randint(1, len(devices)))))
        rules = rnd.choice(("", "ct state invalid drop;", "ct state established counter;", "th dport 5000 limit rate over 1 mbytes/second drop;"))
        add = rnd.choice(("meta l4proto { tcp, udp }", "ct state established,related", "ct mark 0"))
        nat = ""
        if rnd.random() < 0.6:
            nat = f"chain post {{ type nat hook postrouting priority 100; oifname {self.sides[1].top} masquerade; }}\n"
        if rnd.random() < 0.5:
            to = {"ip": [f"dnat to {self.sides[1].net4}.2:5000"], "ip6": [f"dnat to [{self.sides[1].net6}::2]:5000"],
                  "inet": [f"dnat ip to {self.sides[1].net4}.2:5000", f"dnat ip6 to [{self.sides[1].net6}::2]:5000"]}[fam]
            nat += "chain pre { type nat hook prerouting priority -100; " + " ".join(f"meta l4proto {{ tcp, udp }} th dport 8080 {t};" for t in to) + " }\n"
        return f"""table {fam} {name} {{
            flowtable f {{ hook ingress priority {rnd.randint(-5, 5)}; devices = {{ {', '.join(some)} }}; {rnd.choice(('', 'counter;') * 5 + ('flags offload;',))} }}
            chain forward {{ type filter hook forward priority 0; {rules} {add} flow add @f; }}
            {nat}
        }}\n"""

    def load(self, rnd):
        fams = rnd.choice((["inet"], ["inet"], ["ip", "ip6"], ["ip"], ["inet", "inet"]))
        names = [f"t{k}" for k in range(len(fams))]
        how = rnd.choice(("flush ruleset", "tables", "flowtables"))
        text = "" if how != "flush ruleset" else "flush ruleset\n"
        for fam, name in zip(fams, names):
            if how == "tables":
                text += f"table {fam} {name}\ndelete table {fam} {name}\n"
            elif how == "flowtables":
                text += f"table {fam} {name}\nflush table {fam} {name}\n"
                if inside(self.ns, "nft", "list", "flowtable", fam, name, "f").returncode == 0:
                    text += f"delete flowtable {fam} {name} f\n"
            text += self.table(rnd, fam, name)
        r = inside(self.ns, "nft", "-f", "-", text=text)
        ok = r.returncode == 0
        COUNT["rulesets loaded" if ok else "rulesets refused"] += 1
        if not ok:
            COUNT[r.stderr.split("\n")[0].split("Error:")[-1].strip()] += 1
        if ok:
            self.flowtable = True
        return f"{how} {','.join(fams)}{'' if ok else ' refused'}"

    def unload(self, rnd):
        self.flowtable = False
        what = rnd.choice(("flush ruleset", "delete table inet t0", "delete table ip t0"))
        inside(self.ns, "nft", what)
        return what

    def devices(self, rnd):
        verb, fam = rnd.choice(("add", "delete")), rnd.choice(("inet", "inet", "ip", "ip6"))
        d = rnd.choice([d for s in self.sides for d in s.devices()])
        ok = inside(self.ns, "nft", verb, "flowtable", fam, "t0", "f", f"{{ hook ingress priority 0; devices = {{ {d} }}; }}").returncode == 0
        COUNT["flowtable devices changed"] += ok
        return f"{verb} {d} {ok}"

    # -------------------------------------------------------------- devices and addresses

    def link(self, rnd):
        d = rnd.choice([d for s in self.sides for d in s.devices()])
        down, up = f"link set {d} down", f"link set {d} up"
        side = next(s for s in self.sides if d in s.devices())
        what = rnd.choice(("flap", "flap", "down", "rename", "mtu", "mac", "move"))
        if what == "flap":
            ip(self.ns, down, up, *side.addresses())
        elif what == "down":
            ip(self.ns, down)
            STOP.wait(rnd.random())
            ip(self.ns, up, *side.addresses())
        elif what == "rename":
            ip(self.ns, f"link set {d} name other9")
            STOP.wait(rnd.random() / 2)
            ip(self.ns, f"link set other9 name {d}", up)
        elif what == "mtu":
            ip(self.ns, f"link set {d} mtu {rnd.choice((1280, 1400, 1500))}", *side.addresses())
        elif what == "mac":
            ip(self.ns, f"link set {d} address 02:00:00:00:{rnd.randint(0, 255):02x}:{rnd.randint(1, 255):02x}")
        elif what == "move":  # to another namespace and back
            ip(self.ns, f"link set {d} netns {self.names[1]}")
            ip(self.names[1], f"link set {d} netns {self.ns}")
            ip(self.ns, up, *([f"link set {d} master br-{d}"] if side.bridge and d == side.port else []), *side.addresses())
        return f"{what} {d}"

    def remove(self, rnd):
        """A VLAN, a bridge or a veth goes and comes again."""
        side = rnd.choice(self.sides)
        d = rnd.choice(side.devices())
        ip(self.ns, f"link del {d}")
        STOP.wait(rnd.random() / 2)
        side.build(self.ns, self.names[1 + self.sides.index(side)])
        return f"remove {d}"

    def port(self, rnd):
        side = rnd.choice(self.sides)
        if side.bridge:
            ip(self.ns, f"link set {side.port} nomaster")
            STOP.wait(rnd.random() / 4)
            ip(self.ns, f"link set {side.port} master br-{side.port}")
            inside(self.ns, "bridge", "fdb", "flush", "dev", f"br-{side.port}")
        return f"port {side.port}"

    def address(self, rnd):
        side = rnd.choice(self.sides)
        what = rnd.choice(("addr", "neigh", "route", "conntrack", "conntrack"))
        if what == "addr":
            ip(self.ns, f"addr flush dev {side.top}")
            ip(self.ns, *side.addresses())
        elif what == "neigh":
            ip(self.ns, f"neigh flush dev {side.top}")
        elif what == "route":
            ip(self.ns, f"route replace {side.net4}.2/32 dev {side.top}", f"route replace {side.net6}::2/128 dev {side.top}")
            ip(self.ns, f"route del {side.net4}.2/32", f"route del {side.net6}::2/128")
        else:
            inside(self.ns, "conntrack", *rnd.choice((["-F"], ["-D", "-p", "udp"], ["-D", "-p", "tcp"])))
        return f"{what} {side.top}"

    def look(self, rnd):
        what = rnd.choice((["nft", "list", "ruleset"], ["conntrack", "-L"], ["ip", "-s", "link"]))
        inside(self.ns, *what)
        return what[0]


OPS = [("load", 30, 0), ("unload", 4, 0), ("devices", 12, 0), ("link", 14, 1), ("remove", 5, 1), ("port", 5, 1), ("address", 10, 1), ("look", 6, 1)]


def worker(routers, rnd, until, module):
    while time.monotonic() < until and not STOP.is_set():
        r = rnd.choice(routers)
        x = rnd.random()
        try:
            if x < 0.02:
                with r.build_lock, r.nft_lock:
                    r.destroy()
                    r.build()
                    RECENT.append(f"{r.ns} anew")
            elif x < 0.05 and module:
                with r.nft_lock:
                    used = r.flowtable
                    gone = run(["rmmod", module]).returncode == 0
                    if used and gone:
                        bad(f"{module} was unloaded while {r.ns} had a flowtable")
                    COUNT["unloaded" if gone else "unload refused"] += 1
                    if gone:
                        ko = os.environ.get("NFT_OFFLOAD_KO")
                        run(["insmod", ko] if ko else ["modprobe", module])
            else:
                name, _, parallel = rnd.choices(OPS, [o[1] for o in OPS])[0]
                # one worker builds; both may change
                if not r.build_lock.acquire(blocking=not parallel):
                    continue
                if parallel:
                    r.build_lock.release()
                    what = getattr(r, name)(rnd)
                else:
                    try:
                        with r.nft_lock:
                            what = getattr(r, name)(rnd)
                    finally:
                        r.build_lock.release()
                RECENT.append(f"{r.ns} {what}")
            COUNT["changes"] += 1
        except (OSError, ValueError) as e:
            bad(f"{type(e).__name__}: {e}")


def reader():
    """Somebody always looks."""
    while not STOP.wait(0.05):
        for f in ("stats", "flowtables"):
            try:
                with open(f"/sys/kernel/debug/nft_offload/{f}") as x:
                    x.read()
            except OSError:
                pass


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seconds", type=float, default=20)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--routers", type=int, default=3)
    p.add_argument("--prefix", default="churn")
    p.add_argument("--module", default="")
    p.add_argument("--traffic", nargs=4, help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.traffic:
        traffic(a.traffic[0], a.traffic[1], a.traffic[2:], a.seed)
        return
    rnd = random.Random(a.seed)
    routers = [Router(a.prefix, i + 1, rnd.random()) for i in range(a.routers)]
    for r in routers:
        r.build()
        with r.nft_lock:
            r.load(rnd)
    until = time.monotonic() + a.seconds
    threads = [threading.Thread(target=worker, args=(routers, random.Random(rnd.random()), until, a.module)) for _ in range(2)]
    for t in [*threads, threading.Thread(target=reader, daemon=True)]:
        t.start()
    for t in threads:
        t.join(a.seconds + 120)
        if t.is_alive():
            bad("a worker hangs")
    STOP.set()
    for r in routers:
        r.destroy()
    print(json.dumps({"failures": list(FAILS), **COUNT}))
    sys.exit(bool(FAILS))


if __name__ == "__main__":
    main()
