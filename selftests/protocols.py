#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""As much of PPTP (RFC 2637) as connection tracking looks at: a control connection
that sets a call up, and GRE packets of both directions, compared byte by byte."""
import argparse
import os
import socket
import struct
import sys

COOKIE = 0x1A2B3C4D
CLIENT, SERVER = 0x4711, 0x4712
START_REQUEST, START_REPLY, CALL_REQUEST, CALL_REPLY = 1, 2, 7, 8
GRE = 47


def control(kind, body):
    return struct.pack("!HHIHH", 12 + len(body), 1, COOKIE, kind, 0) + body


def start(result):
    return struct.pack("!HBBIIHH64s64s", 0x0100, result, 0, 3, 3, 1, 1, b"selftest", b"selftest")


def receive(conn):
    data = b""
    while len(data) < 12 or len(data) < struct.unpack_from("!H", data)[0]:
        part = conn.recv(2000)
        if not part:
            sys.exit("bad: the control connection was closed")
        data += part
    return struct.unpack_from("!H", data, 8)[0], data[12:]


def gre(call, seq, payload):
    return struct.pack("!HHHHI", 0x3001, 0x880b, len(payload), call, seq) + payload


def server(a):
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, GRE)
    listen = socket.socket()
    listen.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listen.bind(("", 1723))
    listen.listen(1)
    open(a.ready, "w").close()
    conn, (peer, _) = listen.accept()
    while True:
        kind, body = receive(conn)
        if kind == START_REQUEST:
            conn.sendall(control(START_REPLY, start(1)))
        elif kind == CALL_REQUEST:
            call, = struct.unpack_from("!H", body)
            conn.sendall(control(CALL_REPLY, struct.pack("!HHBBHIHHI", SERVER, call, 1, 0, 0, 100000, 64, 0, 0)))
            break
    while True:
        packet, (source, _) = raw.recvfrom(65535)
        packet = packet[(packet[0] & 15) * 4:]
        _, proto, _, to, seq = struct.unpack_from("!HHHHI", packet)
        if source == peer and proto == 0x880b and to == SERVER:
            raw.sendto(gre(call, seq, packet[12:]), (peer, 0))


def client(a):
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, GRE)
    raw.settimeout(5)
    conn = socket.create_connection((a.addr, 1723), timeout=5)
    conn.sendall(control(START_REQUEST, start(0)))
    receive(conn)
    conn.sendall(control(CALL_REQUEST, struct.pack("!HHIIIIHHHH64s64s", a.call, 1, 300, 100000, 3, 3, 64, 0, 0, 0, b"", b"")))
    kind, body = receive(conn)
    if kind != CALL_REPLY:
        sys.exit(f"bad: message {kind} instead of a reply")
    to, mine = struct.unpack_from("!HH", body)
    if mine != a.call:
        sys.exit(f"bad: the reply is for call {mine:#x}")
    for seq in range(a.count):
        payload = os.urandom(200)
        raw.sendto(gre(to, seq, payload), (a.addr, 0))
        while True:
            packet, (source, _) = raw.recvfrom(65535)
            packet = packet[(packet[0] & 15) * 4:]
            if source == a.addr and struct.unpack_from("!HHHHI", packet)[4] == seq:
                break
        if packet != gre(a.call, seq, payload):
            sys.exit("bad: payload differs")
    if a.at_end:
        os.system(a.at_end)
    print("ok")


def main():
    p = argparse.ArgumentParser(description=__doc__)
    sub = p.add_subparsers(dest="what", required=True)
    q = sub.add_parser("pptp-server")
    q.add_argument("--ready", required=True)
    q = sub.add_parser("pptp-client")
    q.add_argument("addr")
    q.add_argument("--call", type=int, default=CLIENT)
    q.add_argument("--count", type=int, default=100)
    q.add_argument("--at-end", help="command, run while the call lasts")
    a = p.parse_args()
    {"pptp-server": server, "pptp-client": client}[a.what](a)


if __name__ == "__main__":
    main()
