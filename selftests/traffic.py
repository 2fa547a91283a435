#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Conversations for the selftests, with the payload compared byte for byte. What goes one way is in streams.py.

serve           echo server, TCP and UDP, IPv4 and IPv6; SCTP where told
talk            one connection, driven by commands on standard input; each is
                answered by one line: "ok ..." or "bad ..."
turns           many UDP sockets, which take turns
parallel        many TCP connections at once
mix             TCP and UDP to each of several addresses, at once
churn           conversations that come and go
"""
import argparse
import os
import random
import select
import socket
import struct
import sys
import threading
import time
import zlib

from commands import Commands

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


def checksum(seq, body):
    return zlib.crc32(body, seq).to_bytes(16, "big")


def datagram(seq, size):
    """A datagram that can be checked by itself."""
    body = random.Random(seq).randbytes(max(size - HEAD.size, 0))
    digest = checksum(seq, body)
    return HEAD.pack(b"nfof", seq, len(body), digest) + body


def check_datagram(data):
    """The sequence number, or None if it is damaged."""
    if len(data) < HEAD.size:
        return None
    magic, seq, length, digest = HEAD.unpack_from(data)
    body = data[HEAD.size:]
    good = checksum(seq, body)
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
        if got != data:
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


def main():
    sub = Commands(__doc__)
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
    a = sub.parser.parse_args()
    globals()[a.what](a)


if __name__ == "__main__":
    main()
