#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Traffic for the selftests, with the payload compared byte for byte.

serve           echo server, TCP and UDP, IPv4 and IPv6; SCTP where told
talk            one connection, driven by commands on standard input; each is
                answered by one line: "ok ..." or "bad ..."
parallel        many TCP connections at once
mix             TCP and UDP to each of several addresses, at once
churn           conversations that come and go
wave            one datagram on each of many flows, as raw frames
zipf            the same, for a while, on few flows much and on many little
send, sink      numbered UDP datagrams one way: what got lost, doubled, broken
crowd           UDP one way, from some addresses, from each by some flows
"""
import argparse
import hashlib
import json
import os
import random
import select
import signal
import socket
import struct
import sys
import threading
import time

SO_MAX_PACING_RATE = 47
SO_NO_CHECK = 11
SCTP = 132
IPV6_DSTOPTS = 59
# Next header and length are the kernel's; then an option that pads.
PADDING = b"\0\0\x01\x04\0\0\0\0"
UDP_SEGMENT = 103
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER = 10, 23
IP_RECVERR, IPV6_RECVERR = 11, 25
PMTU = {"dont": 0, "want": 1, "do": 2, "probe": 3}
HEAD = struct.Struct("!4sII16s")


def family(addr):
    return socket.AF_INET6 if ":" in addr else socket.AF_INET


def datagram(seq, size):
    """A datagram that can be checked by itself."""
    body = random.Random(seq).randbytes(max(size - HEAD.size, 0))
    digest = hashlib.sha256(struct.pack("!II", seq, len(body)) + body).digest()[:16]
    return HEAD.pack(b"nfof", seq, len(body), digest) + body


def check_datagram(data):
    """The sequence number, or None if it is damaged."""
    if len(data) < HEAD.size:
        return None
    magic, seq, length, digest = HEAD.unpack_from(data)
    body = data[HEAD.size:]
    good = hashlib.sha256(struct.pack("!II", seq, length) + body).digest()[:16]
    return seq if magic == b"nfof" and length == len(body) and digest == good else None


# ------------------------------------------------------------------ server

def dual(kind, port):
    s = socket.socket(socket.AF_INET6, kind)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.bind(("::", port))
    return s


def echo_tcp(conn):
    last = b""
    try:
        while data := conn.recv(1 << 18):
            conn.sendall(data)
            last = data[-8:]
        if last[:4] == b"TAIL":  # more to say after the other side has finished
            conn.sendall(random.Random(1).randbytes(int.from_bytes(last[4:], "big")))
    except OSError:
        pass
    conn.close()


def serve(a):
    udp = dual(socket.SOCK_DGRAM, a.port)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    udp.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTU["dont"])
    udp.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTU["dont"])
    if a.no_check:
        udp.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)

    def udp_loop():
        while True:
            try:
                data, peer = udp.recvfrom(65535)
                udp.sendto(data, peer)
            except OSError:
                pass
    threading.Thread(target=udp_loop, daemon=True).start()
    def accept(s):
        while True:
            conn, _ = s.accept()
            if a.ip_options:
                conn.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x01" * 4)  # no operation
            threading.Thread(target=echo_tcp, args=(conn,), daemon=True).start()
    for addr in a.sctp or []:
        s = socket.socket(family(addr), socket.SOCK_STREAM, SCTP)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family(addr) == socket.AF_INET6:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        s.bind((addr, a.port))
        s.listen(64)
        threading.Thread(target=accept, args=(s,), daemon=True).start()
    tcp = dual(socket.SOCK_STREAM, a.port)
    tcp.listen(1024)
    if a.ready:
        open(a.ready, "w").close()
    accept(tcp)


# ------------------------------------------------------------------ client

class Bad(Exception):
    pass


class Talk:
    def __init__(self, a):
        self.a = a
        self.stream = a.proto != "udp"
        # an SCTP message goes into the send buffer as a whole
        self.chunk = 1 << (14 if a.proto == "sctp" else 17)
        kind = socket.SOCK_STREAM if self.stream else socket.SOCK_DGRAM
        self.s = socket.socket(family(a.addr), kind, SCTP if a.proto == "sctp" else 0)
        self.seq = 0
        if a.sport or a.bind:
            self.s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.s.bind((a.bind, a.sport))
        if a.no_check:
            self.s.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
        if a.pmtu and family(a.addr) == socket.AF_INET:
            self.s.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTU[a.pmtu])
        elif a.pmtu:
            self.s.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTU[a.pmtu])
        if a.recverr:
            self.s.setsockopt(socket.IPPROTO_IPV6 if ":" in a.addr else socket.IPPROTO_IP, IPV6_RECVERR if ":" in a.addr else IP_RECVERR, 1)
        self.s.settimeout(a.timeout)
        self.s.connect((a.addr, a.port))

    def echo(self, *n):
        if self.stream:
            return self.echo_tcp(int(n[0]))
        return self.echo_udp(int(n[0]), int(n[1]) if len(n) > 1 else 100)

    def echo_tcp(self, n):
        data = os.urandom(n)
        got, sent = bytearray(), 0
        self.s.setblocking(False)
        last = time.monotonic()
        while len(got) < n:
            if time.monotonic() - last > self.a.timeout:
                raise Bad(f"{len(got)} of {n} bytes came back")
            r, w, _ = select.select([self.s], [self.s] if sent < n else [], [], 0.5)
            if r:
                part = self.s.recv(1 << 18)
                if not part:
                    raise Bad(f"closed after {len(got)} of {n} bytes")
                got += part
                last = time.monotonic()
            if w:
                sent += self.s.send(data[sent:sent + self.chunk])
        self.s.settimeout(self.a.timeout)
        if hashlib.sha256(got).digest() != hashlib.sha256(data).digest():
            raise Bad("payload differs")
        return f"{n} bytes"

    def echo_udp(self, count, size):
        """One after the other; a lost datagram is an error, not repeated."""
        for _ in range(count):
            self.seq += 1
            data = datagram(self.seq, size)
            self.s.send(data)
            while (back := self.s.recv(65535)) != data:
                if check_datagram(back) == self.seq or check_datagram(back) is None:
                    raise Bad("payload differs")
        return f"{count} datagrams"

    def send(self, count, size="100"):
        """Without waiting for an answer."""
        for _ in range(int(count)):
            self.seq += 1
            try:
                self.s.send(datagram(self.seq, int(size)) if self.a.proto == "udp" else os.urandom(int(size)))
            except OSError as e:
                raise Bad(e.strerror)

    def tos(self, n):
        """Type of service or traffic class of what is sent from now on."""
        if family(self.a.addr) == socket.AF_INET:
            self.s.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, int(n))
        else:
            self.s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, int(n))

    def turns(self, count, size, *tos):
        """echo of datagrams, each with the next of these."""
        for i in range(int(count)):
            self.tos(tos[i % len(tos)])
            self.echo_udp(1, int(size))

    def volley(self, count, size, *tos):
        """send, each datagram with the next of these."""
        for i in range(int(count)):
            self.tos(tos[i % len(tos)])
            self.send(1, size)

    def pace(self, rate):
        """At most so many bytes in a second, says the queueing discipline fq."""
        self.s.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, int(rate))

    def gso(self, total, segment):
        self.s.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, int(segment))
        self.s.send(os.urandom(int(total)))
        self.s.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 0)

    def gso_echo(self, total, segment):
        """One GSO send; all segments must come back unchanged, in order."""
        total, segment = int(total), int(segment)
        data = os.urandom(total)
        self.s.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, segment)
        self.s.send(data)
        self.s.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 0)
        got = b""
        while len(got) < total:
            got += self.s.recv(65535)
        if got != data:
            raise Bad("payload differs")
        return f"{total} bytes"

    def read(self, n="65535"):
        return f"{len(self.s.recv(int(n)))}"

    def dstopts(self, on):
        """IPv6 destination options in every packet from now on, or not."""
        self.s.setsockopt(socket.IPPROTO_IPV6, IPV6_DSTOPTS, PADDING if int(on) else b"")

    def drain(self):
        """Throw away what is waiting."""
        self.s.setblocking(False)
        try:
            while self.s.recv(65535):
                pass
        except OSError:
            pass
        self.s.settimeout(self.a.timeout)

    def fin(self):
        """Half close, then read to the end: both FINs have been seen."""
        self.s.shutdown(socket.SHUT_WR)
        while self.s.recv(65535):
            pass

    def tail(self, n):
        """Half close; n bytes must still come the other way."""
        n = int(n)
        self.s.sendall(b"TAIL" + n.to_bytes(4, "big"))
        self.s.shutdown(socket.SHUT_WR)
        got = bytearray()
        while part := self.s.recv(1 << 18):
            got += part
        if bytes(got[8:]) != random.Random(1).randbytes(n):
            raise Bad(f"payload differs, {len(got)} bytes")
        return f"{n} bytes"

    def shut(self):
        self.s.shutdown(socket.SHUT_WR)

    def rst(self):
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.s.close()

    def close(self):
        self.s.close()

    def port(self):
        return str(self.s.getsockname()[1])


def talk(a):
    def answer(text):
        print(text, flush=True)
    try:
        t = Talk(a)
    except OSError as e:
        answer(f"bad {e}")
        return
    answer("ok")
    for line in sys.stdin:
        word, *args = line.split()
        if word == "quit":
            break
        try:
            out = getattr(t, word)(*args)
            answer(f"ok {out}" if out else "ok")
        except (Bad, OSError) as e:
            answer(f"bad {e}")


def turns(a):
    """--sockets that each say --count datagrams and hear them again, in turns."""
    talks = [Talk(argparse.Namespace(**vars(a) | {"proto": "udp"})) for _ in range(a.sockets)]
    for _ in range(a.count):
        for t in talks:
            t.s.send(b"x" * 64)
        for t in talks:
            t.s.recv(65535)
    print(f"ok {a.sockets} sockets")


def parallel(a):
    """--count connections, all open at once, --bytes each way on each."""
    errors = []
    gate = threading.Barrier(a.count + 1)

    def one():
        try:
            t = Talk(a)
            t.echo_tcp(a.bytes // 2)
            gate.wait(a.timeout)
            t.echo_tcp(a.bytes // 2)
            gate.wait(a.timeout)
            gate.wait(a.timeout)
            t.s.close()
        except (Bad, OSError, threading.BrokenBarrierError) as e:
            errors.append(repr(e))
            gate.abort()
    threads = [threading.Thread(target=one) for _ in range(a.count)]
    for t in threads:
        t.start()
    try:
        gate.wait(a.timeout)
        gate.wait(a.timeout)
        if a.at_end:
            os.system(a.at_end)
        gate.wait(a.timeout)
    except threading.BrokenBarrierError:
        pass
    for t in threads:
        t.join()
    print(f"bad {len(errors)} failed: {errors[0]}" if errors else f"ok {a.count} connections")
    sys.exit(bool(errors))


def mix(a):
    """--bytes by TCP and --count datagrams of --size by UDP, each way, to each address."""
    errors, talks = [], []

    def one(proto, addr):
        b = argparse.Namespace(**vars(a) | {"proto": proto, "addr": addr})
        try:
            t = Talk(b)
            talks.append(t)
            t.echo(*([a.bytes] if proto == "tcp" else [a.count, a.size]))
        except (Bad, OSError) as e:
            errors.append(f"{proto} to {addr}: {e}")
    threads = [threading.Thread(target=one, args=(proto, addr)) for proto in ("tcp", "udp") for addr in a.addrs]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if a.at_end:
        os.system(a.at_end)
    print(f"bad {'; '.join(errors)}" if errors else f"ok {len(talks)} conversations")


def churn(a):
    """--threads conversations at a time for --seconds: TCP and UDP, short and long, to each of the addresses
    in turn. A datagram that is lost or a payload that differs is an error."""
    end = time.monotonic() + a.seconds
    errors, counts, lock = [], {"tcp": 0, "udp": 0, "datagrams": 0, "bytes": 0}, threading.Lock()

    def one(n):
        rng = random.Random(n)
        while time.monotonic() < end and not errors:
            proto = rng.choice(["tcp", "tcp", "udp"])
            b = argparse.Namespace(**vars(a) | {"proto": proto, "addr": rng.choice(a.addrs)})
            try:
                t = Talk(b)
                if proto == "tcp":
                    amount = rng.choice([500, 20000, 100000, 400000])
                    for _ in range(rng.choice([1, 2, 4])):
                        t.echo_tcp(amount)
                        with lock:
                            counts["bytes"] += amount
                    rng.choice([t.fin, t.close, t.rst])()
                else:
                    amount = rng.choice([5, 50, 200])
                    t.echo_udp(amount, rng.choice([100, 1400]))
                    with lock:
                        counts["datagrams"] += amount
                t.s.close()
                with lock:
                    counts[proto] += 1
            except (Bad, OSError) as e:
                errors.append(f"{proto} to {b.addr}: {e!r}")
    threads = [threading.Thread(target=one, args=(n,)) for n in range(a.threads)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    words = ", ".join(f"{n} {name}" for name, n in counts.items())
    print(f"bad {len(errors)} failed: {errors[0]}; {words}" if errors else f"ok {words}")


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


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(dest="what", required=True)
    q = sub.add_parser("serve")
    q.add_argument("--port", type=int, default=5000)
    q.add_argument("--ready")
    q.add_argument("--no-check", action="store_true", help="answer UDP over IPv4 without checksum")
    q.add_argument("--ip-options", action="store_true", help="answer TCP over IPv4 with IP options")
    q.add_argument("--sctp", action="append", metavar="ADDR", help="SCTP at this address, too")
    q = sub.add_parser("talk")
    r = sub.add_parser("parallel")
    for x in (q, r):
        x.add_argument("proto", choices=["tcp", "udp", "sctp"])
        x.add_argument("addr")
        x.add_argument("port", type=int, nargs="?", default=5000)
        x.add_argument("--sport", type=int, default=0)
        x.add_argument("--bind", default="", metavar="ADDR")
        x.add_argument("--no-check", action="store_true", help="UDP over IPv4 without checksum")
        x.add_argument("--pmtu", choices=["dont", "want", "do", "probe"])
        x.add_argument("--recverr", action="store_true", help="be told every ICMP error")
        x.add_argument("--timeout", type=float, default=30)
        x.add_argument("--count", type=int, default=200)
        x.add_argument("--bytes", type=int, default=20000)
        x.add_argument("--at-end", help="command, run while all connections are open")
    q = sub.add_parser("mix")
    q.add_argument("addrs", nargs="+")
    q.add_argument("--port", type=int, default=5000)
    q.add_argument("--bytes", type=int, default=262144)
    q.add_argument("--count", type=int, default=60)
    q.add_argument("--size", type=int, default=1000)
    q.add_argument("--timeout", type=float, default=10)
    q.add_argument("--at-end", help="command, run while all sockets are open")
    q.set_defaults(sport=0, bind="", no_check=False, pmtu=None, recverr=False)
    q = sub.add_parser("turns")
    q.add_argument("addr")
    q.add_argument("port", type=int)
    q.add_argument("--sockets", type=int, default=400)
    q.add_argument("--count", type=int, default=10)
    q.add_argument("--timeout", type=float, default=10)
    q.set_defaults(sport=0, bind="", no_check=False, pmtu=None, recverr=False)
    q = sub.add_parser("churn")
    q.add_argument("addrs", nargs="+")
    q.add_argument("--port", type=int, default=5000)
    q.add_argument("--seconds", type=float, default=10)
    q.add_argument("--threads", type=int, default=20)
    q.add_argument("--timeout", type=float, default=20)
    q.set_defaults(sport=0, bind="", no_check=False, pmtu=None, recverr=False)
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
    q = sub.add_parser("sink")
    q.add_argument("--port", type=int, required=True)
    q.add_argument("--ready")
    q.add_argument("--out", required=True)
    a = p.parse_args()
    globals()[a.what](a)


if __name__ == "__main__":
    main()
