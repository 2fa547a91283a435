#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Links that the selftests build by hand, without a daemon.

pppoe       a PPP device over a PPPoE session that both ends have agreed upon: there is
            no discovery and no negotiation. It lives as long as this process; a line
            "SESSION [MAC]" on standard input moves it to another session, "pass N" and "active N"
            give it a filter that lets packets of up to N bytes pass (0: all), and print "ok".
l2tp, pptp  the same over L2TP (version 2) and PPTP, between two addresses.
wireguard   keys and a peer for a WireGuard device.
flowtable   adds all devices of a prefix to a flowtable, those of the future included.
timeouts    a "ct timeout" object for protocols that nft does not offer it for.
hold        holds the packets of an NFQUEUE until it is told to let them go on (a line on standard input), with --ready
            as soon as there is one.
updown      takes a device down and up again, and prints how long going down took, in microseconds.
"""
import fcntl
import os
import select
import socket
import statistics
import struct
import sys
import time

from commands import Commands

AF_PPPOX, PX_PROTO_OE, PX_PROTO_OL2TP, PX_PROTO_PPTP = 24, 0, 1, 2
PPPIOCGCHAN, PPPIOCATTCHAN, PPPIOCNEWUNIT = 0x80047437, 0x40047438, 0xc004743e
PPPIOCCONNECT, PPPIOCDISCONN, PPPIOCSMRU = 0x4004743a, 0x7439, 0x40047452
PPPIOCSPASS, PPPIOCSACTIVE = 0x40107447, 0x40107446


def libc_call(name, sock, addr):
    """bind() or connect() with an address that Python does not know."""
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(sock.fileno(), addr, len(addr)):
        e = ctypes.get_errno()
        raise OSError(e, f"{name}: {os.strerror(e)}")


def pppox(proto, addr):
    """struct sockaddr_pppox"""
    return struct.pack("=HI", AF_PPPOX, proto) + addr.ljust(24, b"\0")


class Channel:
    """Ties a connected PPPoX socket to a PPP unit."""
    def __init__(self, sock, unit):
        self.sock = sock
        channel = fcntl.ioctl(sock, PPPIOCGCHAN, struct.pack("i", 0))
        self.channel = os.open("/dev/ppp", os.O_RDWR)
        fcntl.ioctl(self.channel, PPPIOCATTCHAN, channel)
        fcntl.ioctl(self.channel, PPPIOCCONNECT, struct.pack("i", unit))

    def close(self):
        fcntl.ioctl(self.channel, PPPIOCDISCONN)
        os.close(self.channel)
        self.sock.close()


PPP = None


def new_unit():
    global PPP
    PPP = os.open("/dev/ppp", os.O_RDWR)
    unit, = struct.unpack("i", fcntl.ioctl(PPP, PPPIOCNEWUNIT, struct.pack("i", -1)))
    return unit


def ppp_filter(command, size):
    """A filter for packets of up to size bytes; none if it is 0. Prints what came of it."""
    import ctypes
    # A = length; A > size + 4? 0 : 1
    code = [(0x80, 0, 0, 0), (0x25, 0, 1, size + 4), (6, 0, 0, 0), (6, 0, 0, 1)] if size else []
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *c) for c in code))
    try:
        fcntl.ioctl(PPP, command, struct.pack("@HP", (len(code) - 1) // 8, ctypes.addressof(code)))
        print("ok", flush=True)
    except OSError as e:
        print(e.strerror, flush=True)


def up(a, unit):
    os.system(f"ip link set ppp{unit} name {a.name} mtu {a.mtu} up")
    open(a.ready, "w").close()


def pppoe_socket(dev, mac, session):
    sock = socket.socket(AF_PPPOX, socket.SOCK_STREAM, PX_PROTO_OE)
    libc_call("connect", sock, pppox(PX_PROTO_OE, struct.pack("!H", session) +
              bytes(int(x, 16) for x in mac.split(":")) + dev.encode().ljust(16, b"\0")))
    return sock


def pppoe(a):
    unit = new_unit()
    c = Channel(pppoe_socket(a.dev, a.mac, a.session), unit)
    up(a, unit)
    for line in sys.stdin:
        words = line.split()
        if words[0] in ("pass", "active"):
            ppp_filter(PPPIOCSPASS if words[0] == "pass" else PPPIOCSACTIVE, int(words[1]))
            continue
        c.close()
        c = Channel(pppoe_socket(a.dev, words[1] if len(words) > 1 else a.mac, int(words[0])), unit)


def l2tp(a):
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((a.local, 1701))
    udp.connect((a.remote, 1701))

    def l2tp_socket(session):
        """struct sockaddr_pppol2tp; session 0 is the tunnel's own"""
        sock = socket.socket(AF_PPPOX, socket.SOCK_DGRAM, PX_PROTO_OL2TP)
        peer = struct.pack("=H", socket.AF_INET) + struct.pack("!H", 1701) + socket.inet_aton(a.remote) + bytes(8)
        libc_call("connect", sock, struct.pack("=HIii", AF_PPPOX, PX_PROTO_OL2TP, 0, udp.fileno()) + peer +
                  struct.pack("=HHHH", 1, session, 1, session))
        return sock
    tunnel = l2tp_socket(0)
    unit = new_unit()
    c = Channel(l2tp_socket(1), unit)
    up(a, unit)
    sys.stdin.read()
    c.close()
    tunnel.close()


def pptp(a):
    def addr(ip):
        # call numbers are the machine's, not the namespace's
        return pppox(PX_PROTO_PPTP, struct.pack("=HH", int(ip.split(".")[3]), 0) + socket.inet_aton(ip))
    sock = socket.socket(AF_PPPOX, socket.SOCK_STREAM, PX_PROTO_PPTP)
    libc_call("bind", sock, addr(a.local))
    libc_call("connect", sock, addr(a.remote))
    unit = new_unit()
    c = Channel(sock, unit)
    up(a, unit)
    sys.stdin.read()
    c.close()


# ------------------------------------------------------------------ WireGuard

def attr(kind, data, nested=False):
    head = struct.pack("=HH", 4 + len(data), kind | (0x8000 if nested else 0))
    return head + data + bytes(-len(data) % 4)


def genl(sock, family, command, version, attrs, flags=0):
    body = struct.pack("=BBH", command, version, 0) + attrs
    sock.send(struct.pack("=IHHII", 16 + len(body), family, 1 | 4 | flags, 1, 0) + body)
    answer = sock.recv(65535)
    while answer:
        size, kind = struct.unpack_from("=IH", answer)
        if kind == 2:
            error, = struct.unpack_from("=i", answer, 16)
            if error:
                raise OSError(-error, os.strerror(-error))
            return None
        return answer[20:size]
    return None


def public(private):
    """X25519 of the base point (RFC 7748)."""
    p, k = 2**255 - 19, int.from_bytes(private, "little")
    k = k & ~7 & ~(1 << 255) | 1 << 254
    x1, x2, z2, x3, z3 = 9, 1, 0, 9, 1
    for t in reversed(range(255)):
        bit = k >> t & 1
        if bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        da, cb, aa, bb = d * a % p, c * b % p, a * a % p, b * b % p
        x3, z3 = (da + cb) ** 2 % p, x1 * (da - cb) ** 2 % p
        x2, z2 = aa * bb % p, (aa - bb) * (aa + 121665 * (aa - bb)) % p
        if bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
    return (x2 * pow(z2, p - 2, p) % p).to_bytes(32, "little")


def wireguard(a):
    """The key of each end is its name, repeated: no secret."""
    def private(name):
        return (name.encode() * 32)[:32]

    def allowed(prefix):
        addr, bits = prefix.split("/")
        family = socket.AF_INET6 if ":" in addr else socket.AF_INET
        return attr(0, attr(1, struct.pack("=H", family)) + attr(2, socket.inet_pton(family, addr)) +
                    attr(3, struct.pack("=B", int(bits))), True)
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)
    s.bind((0, 0))
    # CTRL_CMD_GETFAMILY by name; the answer's CTRL_ATTR_FAMILY_ID
    body = genl(s, 16, 3, 1, attr(2, b"wireguard\0"))
    s.recv(65535)
    family = None
    while body:
        size, kind = struct.unpack_from("=HH", body)
        if kind == 1:
            family, = struct.unpack_from("=H", body, 4)
        body = body[(size + 3) & ~3:]
    addr, port = a.endpoint.rsplit("@", 1)
    if ":" in addr:
        endpoint = struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", int(port), 0) + \
            socket.inet_pton(socket.AF_INET6, addr) + bytes(4)
    else:
        endpoint = struct.pack("=H", socket.AF_INET) + struct.pack("!H", int(port)) + socket.inet_aton(addr) + bytes(8)
    peer = attr(1, public(private(a.peer))) + attr(4, endpoint) + \
        attr(9, allowed("0.0.0.0/0") + allowed("::/0"), True)
    genl(s, family, 1, 1, attr(2, a.dev.encode() + b"\0") + attr(3, private(a.me)) +
         attr(6, struct.pack("=H", int(port))) + attr(8, attr(0, peer, True), True))


# ------------------------------------------------------------------ nf_tables

def nftables(kind, a, attrs):
    """A transaction with one message about the object a.name in a.table."""
    def message(kind, family, resource, attrs=b"", flags=0):
        return struct.pack("=IHHII", 20 + len(attrs), kind, 1 | flags, 1, 0) + \
            struct.pack("=BB", family, 0) + struct.pack("!H", resource) + attrs
    family = {"inet": 1, "ip": 2, "ip6": 10}[a.family]
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
    s.bind((0, 0))
    s.send(message(16, 0, 10) +
           message(10 << 8 | kind, family, 0, attr(1, a.table.encode() + b"\0") +
                   attr(2, a.name.encode() + b"\0") + attrs, 4 | 0x400) +
           message(17, 0, 10))
    error, = struct.unpack_from("=i", s.recv(65535), 16)
    if error:
        raise OSError(-error, os.strerror(-error))


def flowtable(a):
    """NFT_MSG_NEWFLOWTABLE with NFTA_DEVICE_PREFIX, which nft learns after 1.1.3."""
    hook = attr(1, struct.pack("!I", 0)) + attr(2, struct.pack("!i", a.priority)) + \
        attr(3, attr(2, a.prefix.encode() + b"\0"), True)
    nftables(22, a, attr(3, hook, True))


def timeouts(a):
    """NFT_MSG_NEWOBJ of type NFT_OBJECT_CT_TIMEOUT; the states are CTA_TIMEOUT_GRE_REPLIED and the like."""
    policy = b"".join(attr(int(k), struct.pack("!I", int(v))) for k, v in (x.split("=") for x in a.timeout))
    l3 = {"ip": 2, "ip6": 10}[a.family]
    nftables(18, a, attr(3, struct.pack("!I", 7)) +
             attr(4, attr(1, struct.pack("!H", l3)) + attr(2, struct.pack("B", a.proto)) + attr(3, policy, True), True))


# ------------------------------------------------------------------ devices

def hold(a):
    nfqueue = 3 << 8
    packet, verdict, config = nfqueue, nfqueue | 1, nfqueue | 2
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
    sock.bind((0, 0))

    def send(kind, family, body):
        sock.send(struct.pack("=IHHII", 20 + len(body), kind, 1, 0, 0) + struct.pack("!BBH", family, 0, a.queue) + body)
    send(config, socket.AF_UNSPEC, attr(1, struct.pack("!BxH", 1, 0)))
    send(config, socket.AF_UNSPEC, attr(2, struct.pack("!IB", 0, 1)))
    held = []
    while select.select([sock, sys.stdin], [], [])[0] == [sock]:
        data = sock.recv(65536)
        length, kind = struct.unpack_from("=IH", data)
        at = 20
        while kind == packet and at < length:
            size, what = struct.unpack_from("=HH", data, at)
            if what == 1:
                held += [(data[16], data[at + 4:at + 8])]
                open(a.ready, "w").close()
            at += size + 3 & ~3
    for family, number in held:
        send(verdict, family, attr(2, struct.pack("!I", 1) + number))
    # packets that come now wait, until this process is ended and the queue is no more
    time.sleep(a.seconds)


def updown(a):
    """SIOCSIFFLAGS"""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    took = []
    for _ in range(a.times):
        fcntl.ioctl(s, 0x8914, struct.pack("16sH22x", a.dev.encode(), 1))
        start = time.perf_counter()
        fcntl.ioctl(s, 0x8914, struct.pack("16sH22x", a.dev.encode(), 0))
        took.append(time.perf_counter() - start)
    print(int(statistics.median(took) * 1e6))


def main():
    sub = Commands(__doc__)
    q = sub.add_parser("pppoe")
    q.add_argument("dev", help="Ethernet device")
    q.add_argument("mac", help="of the other end")
    q.add_argument("session", type=int)
    q.add_argument("--name", default="ppp0")
    q.add_argument("--mtu", type=int, default=1492)
    q.add_argument("--ready", required=True)
    for kind in "l2tp", "pptp":
        q = sub.add_parser(kind)
        q.add_argument("local")
        q.add_argument("remote")
        q.add_argument("--name", default="ppp0")
        q.add_argument("--mtu", type=int, default=1400)
        q.add_argument("--ready", required=True)
    q = sub.add_parser("wireguard")
    q.add_argument("dev")
    q.add_argument("me")
    q.add_argument("peer")
    q.add_argument("endpoint", help="ADDRESS@PORT of the peer; our own port is the same")
    for kind in "flowtable", "timeouts":
        q = sub.add_parser(kind)
        q.add_argument("family")
        q.add_argument("table")
        q.add_argument("name")
        if kind == "flowtable":
            q.add_argument("prefix")
            q.add_argument("--priority", type=int, default=0)
        else:
            q.add_argument("proto", type=int)
            q.add_argument("timeout", nargs="+", metavar="STATE=SECONDS")
    q = sub.add_parser("hold")
    q.add_argument("--queue", type=int, default=0)
    q.add_argument("--ready", required=True)
    q.add_argument("--seconds", type=float, default=60)
    q = sub.add_parser("updown")
    q.add_argument("dev")
    q.add_argument("times", type=int)
    a = sub.parser.parse_args()
    globals()[a.what](a)


if __name__ == "__main__":
    main()
