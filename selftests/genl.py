#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""A client of the generic netlink family nft_offload that knows nothing but the wire format, so that
requests can be wrong in ways that a better client would not allow.

flush [NAME=VALUE...]   takes flows down, prints "flows N", or an errno and what the kernel says
flows [NAME=VALUE...]   lists flows, one JSON object a line; flow NAME=VALUE... asks about one connection
tables, info, stats, engines
                        the same of these
count [NAME=VALUE...]   how many flows are listed, in how many milliseconds and parts, and whether the dump
                        says that something has changed
listen SECONDS          prints events of flows, one JSON object a line, after "listening"; "lost" if some were
bad KIND                a malformed request
storm [SECONDS]         flush over and over, whether the family is there or not
hammer SECONDS [NAME=VALUE...]
                        flush over and over, whatever the answer; says "begun" after the first
"""
import errno
import json
import os
import socket
import struct
import sys
import time

NETLINK_GENERIC, SOL_NETLINK = 16, 270
NETLINK_ADD_MEMBERSHIP, NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 1, 10, 11, 12
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 1, 4, 0x300
NLM_F_DUMP_INTR = 16
NLMSG_ERROR, NLMSG_DONE, GENL_ID_CTRL = 2, 3, 16
FLUSH, INFO, TABLES, FLOW, STATS, ENGINES = 1, 2, 3, 4, 5, 6
NFPROTO = {"inet": 1, "ip": 2, "ip6": 10}


class Refused(Exception):
    pass


def attr(kind, payload):
    size = 4 + len(payload)
    return struct.pack("=HH", size, kind) + payload + bytes(-size % 4)


def text(s):
    return s.encode() + b"\0"


# name: attribute type and how its value is written
ATTRS = {
    "nfproto": (1, lambda v: struct.pack("B", NFPROTO[v] if v in NFPROTO else int(v, 0))),
    "table": (2, text),
    "flowtable": (3, text),
    "ifindex": (4, lambda v: struct.pack("=I", int(v, 0))),
    "ifname": (5, text),
    "ipv4": (6, lambda v: socket.inet_pton(socket.AF_INET, v)),
    "ipv6": (7, lambda v: socket.inet_pton(socket.AF_INET6, v)),
    "prefix-len": (8, lambda v: struct.pack("B", int(v, 0))),
    "mark": (9, lambda v: struct.pack("=I", int(v, 0))),
    "mark-mask": (10, lambda v: struct.pack("=I", int(v, 0))),
}
FLOWS = 11


def u16(v):
    return struct.pack("=H", int(v, 0))


# Those of flow-get are the same, and these.
FLOW_ATTRS = ATTRS | {
    "l4proto": (11, lambda v: struct.pack("B", int(v, 0))),
    "port": (12, u16),
    "tier": (13, lambda v: struct.pack("B", int(v, 0))),
    "source-ipv4": (14, lambda v: socket.inet_pton(socket.AF_INET, v)),
    "destination-ipv4": (15, lambda v: socket.inet_pton(socket.AF_INET, v)),
    "source-ipv6": (16, lambda v: socket.inet_pton(socket.AF_INET6, v)),
    "destination-ipv6": (17, lambda v: socket.inet_pton(socket.AF_INET6, v)),
    "source-port": (18, u16),
    "destination-port": (19, u16),
    "zone": (20, u16),
}


def number(b):
    return int.from_bytes(b, sys.byteorder)


def string(b):
    return b.rstrip(b"\0").decode()


def ip(b):
    return socket.inet_ntop(socket.AF_INET if len(b) == 4 else socket.AF_INET6, b)


def numbers(b):
    return [number(b[i:i + 4]) for i in range(0, len(b), 4)]


def nest(names):
    return lambda b: decode(b, names)


def there(_):
    return True


ENCAP = {1: ("ethertype", number), 2: ("id", number)}
DIRECTION = {
    1: ("src", ip), 2: ("dst", ip), 3: ("src", ip), 4: ("dst", ip), 5: ("sport", number), 6: ("dport", number),
    7: ("idle", number), 8: ("packets", number), 9: ("bytes", number), 10: ("mtu", number), 11: ("iif", number),
    12: ("hook", number), 13: ("devices", numbers), 14: ("encap", nest(ENCAP)), 15: ("tunnel", number),
    16: ("oif", number), 17: ("direct", there), 18: ("ipsec", there), 19: ("ruleset", there), 20: ("next_hop", ip),
    21: ("next_hop", ip), 22: ("mac", lambda b: b.hex(":")), 23: ("state", number),
}
ANSWERS = {
    INFO: {1: ("version", string), 2: ("interface", number), 3: ("flowtables", number), 4: ("flows", number),
           5: ("dscp_restored", there)},
    TABLES: {1: ("nfproto", number), 2: ("table", string), 3: ("flowtable", string), 4: ("flags", number),
             5: ("flows_ipv4", number), 6: ("flows_ipv6", number), 7: ("buckets_ipv4", number),
             8: ("buckets_ipv6", number), 9: ("packets_ipv4", number), 10: ("packets_ipv6", number),
             11: ("bytes_ipv4", number), 12: ("bytes_ipv6", number), 13: ("waiting", number),
             14: ("thresholds", number), 15: ("volatile", string)},
    FLOW: {1: ("nfproto", number), 2: ("table", string), 3: ("flowtable", string), 9: ("mark", number),
           11: ("l4proto", number), 13: ("tier", number), 20: ("zone", number), 21: ("orig", nest(DIRECTION)),
           22: ("reply", nest(DIRECTION)), 23: ("age", number), 24: ("skip", string), 25: ("skip_age", number),
           26: ("nat", number), 27: ("fast_bytes", number), 28: ("reason", string)},
    STATS: {1: ("group", number), 2: ("name", string), 3: ("count", number)},
    ENGINES: {1: ("nfproto", number), 2: ("table", string), 3: ("flowtable", string), 4: ("ifindex", number),
              5: ("engine", string), 6: ("driver", string), 7: ("capacity", number), 8: ("rules", number),
              9: ("added", number), 10: ("declined", number), 11: ("errno", number), 12: ("text", string)},
}


def decode(data, names):
    """Attributes by their names; one that is there more than once is a list."""
    found = {}
    for kind, payload in Genl.attrs(data):
        name, value = names[kind]
        if name in found:
            value_before = found[name]
            found[name] = (value_before if isinstance(value_before, list) else [value_before]) + [value(payload)]
        else:
            found[name] = value(payload)
    return found


BAD = {  # command, flags, attributes
    "unknown-attribute": (FLUSH, 0, attr(12, b"\0\0\0\0")),
    "reply-attribute": (FLUSH, 0, attr(FLOWS, b"\0\0\0\0")),
    "attribute-0": (FLUSH, 0, attr(0, b"\0\0\0\0")),
    "no-nul": (FLUSH, 0, attr(2, b"name")),
    "long-name": (FLUSH, 0, attr(2, b"x" * 256 + b"\0")),
    "long-device": (FLUSH, 0, attr(5, b"x" * 128 + b"\0")),
    "short-u32": (FLUSH, 0, attr(4, b"\1\0")),
    "long-u32": (FLUSH, 0, attr(4, bytes([1] + 7 * [0]))),
    "short-ipv6": (FLUSH, 0, attr(7, bytes(15))),
    "long-ipv6": (FLUSH, 0, attr(7, bytes(17))),
    "empty-u8": (FLUSH, 0, attr(1, b"")),
    "truncated": (FLUSH, 0, struct.pack("=HH", 40, 2) + b"abc\0"),
    "tail": (FLUSH, 0, b"\1\2\3"),
    "nested": (FLUSH, 0, attr(2 | 0x8000, attr(2, b"t\0"))),
    "command-0": (0, 0, b""),
    "unknown-command": (99, 0, b""),
    "dump": (FLUSH, NLM_F_DUMP, b""),
    "flow-unknown-attribute": (FLOW, NLM_F_DUMP, attr(29, b"\0\0\0\0")),
    "flow-reply-attribute": (FLOW, NLM_F_DUMP, attr(21, b"")),
    "flow-tier-0": (FLOW, NLM_F_DUMP, attr(13, b"\0")),
    "flow-tier-4": (FLOW, NLM_F_DUMP, attr(13, b"\4")),
    "flow-short-port": (FLOW, NLM_F_DUMP, attr(12, b"\0")),
    "flow-one-address": (FLOW, 0, attr(11, b"\6") + attr(14, b"\1\2\3\4")),
    "flow-both-families": (FLOW, 0, attr(11, b"\6") + attr(14, b"\1\2\3\4") + attr(15, b"\1\2\3\4") +
                           attr(16, bytes(16)) + attr(17, bytes(16))),
    "flow-no-protocol": (FLOW, 0, attr(14, b"\1\2\3\4") + attr(15, b"\1\2\3\4")),
    "flow-filter": (FLOW, 0, attr(12, u16("53")) + attr(11, b"\6") + attr(14, b"\1\2\3\4") + attr(15, b"\1\2\3\4")),
    "flow-dump-connection": (FLOW, NLM_F_DUMP, attr(14, b"\1\2\3\4")),
    "info-attribute": (INFO, 0, attr(1, text("x"))),
    "table-attribute": (TABLES, NLM_F_DUMP, attr(2, text("x"))),
    "stats-attribute": (STATS, NLM_F_DUMP, attr(2, text("x"))),
    "engine-attribute": (ENGINES, NLM_F_DUMP, attr(4, b"\1\0\0\0")),
    "engine-do": (ENGINES, 0, b""),
    "info-dump": (INFO, NLM_F_DUMP, b""),
    "table-do": (TABLES, 0, b""),
}


class Genl:
    def __init__(self):
        self.sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC)
        self.sock.bind((0, 0))
        self.sock.settimeout(10)
        for option in NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK:
            self.sock.setsockopt(SOL_NETLINK, option, 1)
        self.seq = 0

    def send(self, family, command, attrs=b"", version=1, flags=0):
        self.seq += 1
        body = struct.pack("=BBH", command, version, 0) + attrs
        head = struct.pack("=IHHII", 16 + len(body), family, NLM_F_REQUEST | NLM_F_ACK | flags, self.seq, 0)
        self.sock.send(head + body)

    def ask(self, family, command, attrs=b"", version=1, flags=0):
        """The attributes of the answer; none if there is only an acknowledgement."""
        self.send(family, command, attrs, version, flags)
        answer = {}
        for msg in self.answers():
            answer = dict(self.attrs(msg))
        return answer

    def answers(self):
        """The attributes of each message of the answer."""
        self.parts, self.changed = 0, False
        while True:
            data = self.sock.recv(65536)
            self.parts += 1
            while data:
                size, kind, flags, seq = struct.unpack_from("=IHHI", data)
                msg, data = data[:size], data[(size + 3) & ~3:]
                if seq != self.seq:
                    continue
                self.changed |= bool(flags & NLM_F_DUMP_INTR)
                if kind in (NLMSG_ERROR, NLMSG_DONE):
                    code = -struct.unpack_from("=i", msg, 16)[0]
                    if code == 0:
                        return
                    raise Refused(f"{errno.errorcode[code]}: {self.extack(msg, flags, kind)}")
                yield msg[20:]

    def get(self, command, attrs=b"", dump=True):
        """The decoded messages of the answer."""
        family = self.family()
        self.send(family, command, attrs, flags=NLM_F_DUMP if dump else 0)
        for msg in self.answers():
            yield decode(msg, ANSWERS[command])

    @staticmethod
    def attrs(data):
        while len(data) >= 4:
            size, kind = struct.unpack_from("=HH", data)
            yield kind & 0x3fff, data[4:size]
            data = data[(size + 3) & ~3:]

    def extack(self, msg, flags, kind):
        if kind == NLMSG_DONE:
            skip = 20
        else:
            skip = 36 if flags & 0x100 else 20 + struct.unpack_from("=I", msg, 20)[0]
        found = dict(self.attrs(msg[skip:])) if flags & 0x200 else {}
        return found.get(1, b"\0")[:-1].decode()

    def family(self):
        found = self.ask(GENL_ID_CTRL, 3, attr(2, text("nft_offload")))
        return struct.unpack("=H", found[1])[0]

    def flush(self, **which):
        attrs = b"".join(attr(ATTRS[k][0], ATTRS[k][1](v)) for k, v in which.items())
        answer = self.ask(self.family(), FLUSH, attrs)
        return struct.unpack("=I", answer[FLOWS])[0]


EVENTS = {7: "add", 8: "change", 9: "del"}


def listen(seconds):
    end, genl = time.monotonic() + seconds, Genl()
    found = genl.ask(GENL_ID_CTRL, 3, attr(2, text("nft_offload")))
    groups = [dict(genl.attrs(group)) for _, group in genl.attrs(found[7])]
    group = next(number(g[2]) for g in groups if string(g[1]) == "flows")
    genl.sock.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
    print("listening", flush=True)
    while (left := end - time.monotonic()) > 0:
        genl.sock.settimeout(left)
        try:
            data = genl.sock.recv(65536)
        except TimeoutError:
            return
        except OSError as e:
            if e.errno != errno.ENOBUFS:
                raise
            print("lost", flush=True)
            continue
        while data:
            size = struct.unpack_from("=I", data)[0]
            event = {"event": EVENTS[data[16]]} | decode(data[20:size], ANSWERS[FLOW])
            print(json.dumps(event), flush=True)
            data = data[(size + 3) & ~3:]


def storm(seconds):
    end, flushed, absent = time.monotonic() + seconds, 0, 0
    genl = Genl()
    family = None
    while time.monotonic() < end:
        try:
            family = family or genl.family()
            genl.ask(family, FLUSH)
            flushed += 1
        except Refused as e:
            if not str(e).startswith("ENOENT"):
                raise
            family, absent = None, absent + 1
    print(f"flushed {flushed} absent {absent}")


def hammer(seconds, **which):
    end, genl, done, busy = time.monotonic() + seconds, Genl(), 0, 0
    genl.sock.settimeout(None)
    while time.monotonic() < end:
        try:
            genl.flush(**which)
            done += 1
        except Refused as e:
            if not str(e).startswith("EBUSY"):
                raise
            busy += 1
        if done + busy == 1:
            print("begun", flush=True)
    print(f"flushed {done} busy {busy}")


def main():
    what, args = sys.argv[1], sys.argv[2:]
    try:
        if what in ("flows", "flow", "count"):
            attrs = b"".join(attr(FLOW_ATTRS[k][0], FLOW_ATTRS[k][1](v)) for k, v in (a.split("=", 1) for a in args))
            genl, n, begun = Genl(), 0, time.monotonic()
            for found in genl.get(FLOW, attrs, what != "flow"):
                n += 1
                if what != "count":
                    print(json.dumps(found))
            if what == "count":
                print("flows", n, "ms", int((time.monotonic() - begun) * 1000), "parts", genl.parts,
                      "changed" if genl.changed else "same")
        elif what in ("tables", "info", "stats", "engines"):
            command = {"tables": TABLES, "info": INFO, "stats": STATS, "engines": ENGINES}[what]
            for found in Genl().get(command, dump=what != "info"):
                print(json.dumps(found))
        elif what == "flush":
            print("flows", Genl().flush(**dict(a.split("=", 1) for a in args)))
        elif what == "bad":
            genl = Genl()
            command, flags, attrs = BAD[args[0]]
            genl.ask(genl.family(), command, attrs, flags=flags)
            print("accepted")
        elif what == "kinds":
            print(*BAD)
        elif what == "hammer":
            hammer(float(args[0]), **dict(a.split("=", 1) for a in args[1:]))
        elif what == "listen":
            listen(float(args[0]))
        elif what == "storm":
            storm(float(args[0]) if args else 10)
        else:
            sys.exit(__doc__)
    except Refused as e:
        sys.exit(str(e))
    except OSError as e:
        sys.exit(f"{errno.errorcode.get(e.errno, e.errno)}: {os.strerror(e.errno)}")


if __name__ == "__main__":
    main()
