#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""A client of the generic netlink family nft_offload that knows nothing but the wire format, so that
requests can be wrong in ways that a better client would not allow.

flush [NAME=VALUE...]   takes flows down, prints "flows N", or an errno and what the kernel says
bad KIND                a malformed request
storm [SECONDS]         flush over and over, whether the family is there or not
hammer SECONDS [NAME=VALUE...]
                        flush over and over, whatever the answer; says "begun" after the first
"""
import errno
import os
import socket
import struct
import sys
import time

NETLINK_GENERIC, SOL_NETLINK = 16, 270
NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 10, 11, 12
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 1, 4, 0x300
NLMSG_ERROR, GENL_ID_CTRL = 2, 16
FLUSH = 1
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
}


class Genl:
    def __init__(self):
        self.sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC)
        self.sock.bind((0, 0))
        self.sock.settimeout(10)
        for option in NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK:
            self.sock.setsockopt(SOL_NETLINK, option, 1)
        self.seq = 0

    def ask(self, family, command, attrs=b"", version=1, flags=0):
        """The attributes of the answer; none if there is only an acknowledgement."""
        self.seq += 1
        body = struct.pack("=BBH", command, version, 0) + attrs
        head = struct.pack("=IHHII", 16 + len(body), family, NLM_F_REQUEST | NLM_F_ACK | flags, self.seq, 0)
        self.sock.send(head + body)
        answer = {}
        while True:
            data = self.sock.recv(65536)
            while data:
                size, kind, flags, seq = struct.unpack_from("=IHHI", data)
                msg, data = data[:size], data[(size + 3) & ~3:]
                if seq != self.seq:
                    continue
                if kind == NLMSG_ERROR:
                    code = -struct.unpack_from("=i", msg, 16)[0]
                    if code == 0:
                        return answer
                    raise Refused(f"{errno.errorcode[code]}: {self.extack(msg, flags)}")
                if kind == 3:  # NLMSG_DONE
                    return answer
                answer = dict(self.attrs(msg[20:]))

    @staticmethod
    def attrs(data):
        while len(data) >= 4:
            size, kind = struct.unpack_from("=HH", data)
            yield kind & 0x3fff, data[4:size]
            data = data[(size + 3) & ~3:]

    def extack(self, msg, flags):
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
        if what == "flush":
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
        elif what == "storm":
            storm(float(args[0]) if args else 10)
        else:
            sys.exit(__doc__)
    except Refused as e:
        sys.exit(str(e))
    except OSError as e:
        sys.exit(f"{errno.errorcode.get(e.errno, e.errno)}: {os.strerror(e.errno)}")


main()
