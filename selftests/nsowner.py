#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What the owner of a user namespace can do with flowtables, at random and on purpose badly.

Runs as root of a user, mount and network namespace that an ordinary user has made. The world and its
changes are churn.py's; here come transactions that no ruleset would have: many flowtables at once, the same
ones made, changed and deleted in one batch, batches that fail at the end, families and hooks that do not
fit, wildcards and devices that come and go, namespaces that end with all of it. Prints one JSON object.
"""
import argparse
import json
import random
import subprocess
import sys
import threading
import time

import churn
from churn import COUNT, FAILS, STOP, bad, inside, ip, run

FAMILIES = ("inet", "inet", "ip", "ip6")
DEVICES = ("lo", "d0", "d1", "v0", "v0.5", "br0", "t0", '"p*"', "nosuch", "ppp0")


def flowtable(rnd, name):
    devices = ", ".join(sorted(set(rnd.choices(DEVICES, k=rnd.randint(0, 5)))))
    hook = f"hook ingress priority {rnd.choice((-400, -1, 0, 0, 0, 7, 2147483647))};" if rnd.random() < 0.98 else ""
    flags = rnd.choice(("",) * 5 + ("counter;",) * 3 + ("flags offload;", "flags offload; counter;"))
    return f"flowtable {name} {{ {hook} {f'devices = {{ {devices} }};' if devices else ''} {flags} }}"


def rule(rnd, names):
    match = rnd.choice(("", "meta l4proto { tcp, udp }", "ct state established", "udp dport 1-100", "ct mark set 1", "limit rate 3/second",
                        "meta priority set 1:2", "ip dscp set 8", "counter", "quota 1 mbytes", "log"))
    return f"{match} flow {rnd.choice(('add', 'add', 'offload'))} @{rnd.choice(names)}"


def transaction(rnd):
    """A batch of nft commands: some are wrong in themselves, and some in each other's company."""
    lines = [f"add table {fam} n{i}" for fam in ("inet", "ip", "ip6") for i in range(3)]
    if rnd.random() < 0.8:
        for fam in ("inet", "ip", "ip6"):
            lines += [f"add flowtable {fam} n{i} f0 {{ hook ingress priority 0; }}" for i in range(3)]
            lines += [f"add chain {fam} n{i} c {{ type filter hook forward priority 0; }}" for i in range(3)]
    for _ in range(rnd.choice((1, 1, 1, 2, 2, 5, 20))):
        fam, table = rnd.choice(FAMILIES), f"n{rnd.randint(0, 2)}"
        names = [f"f{i}" for i in range(rnd.choice((1, 1, 1, 3)))]
        f = rnd.choice(names)
        hook = rnd.choice(("forward", "forward", "forward", "prerouting", "postrouting", "input"))
        dev = rnd.choice(DEVICES)
        lines += rnd.choice((
            [f"delete table {fam} {table}"],
            [f"destroy table {fam} {table}"],
            [f"add table {fam} {table} {{ flags dormant; }}"],
            [f"add {flowtable(rnd, f'{fam} {table} {f}')}"],
            [f"add {flowtable(rnd, f'{fam} {table} f9')}", f"delete flowtable {fam} {table} f9"],
            [f"create {flowtable(rnd, f'{fam} {table} {f}')}"],
            [f"delete flowtable {fam} {table} {f}"],
            [f"add flowtable {fam} {table} {f} {{ devices = {{ {dev} }}; }}"],
            [f"delete flowtable {fam} {table} {f} {{ hook ingress priority 0; devices = {{ {dev} }}; }}"],
            [f"add table {fam} {table} {{ {flowtable(rnd, 'f0')}; {flowtable(rnd, 'f1')}; chain c {{ type filter hook {hook} priority 0; {rule(rnd, ['f0', 'f1'])}; }}; }}"],
            [f"add chain {fam} {table} c {{ type filter hook {hook} priority {rnd.randint(-3, 3)}; }}", f"add rule {fam} {table} c {rule(rnd, names)}"],
            [f"add chain {fam} {table} p", f"add rule {fam} {table} p {rule(rnd, names)}", f"add rule {fam} {table} c jump p"],
            [f"flush chain {fam} {table} c", f"add rule {fam} {table} c {rule(rnd, names)}"],
            [f"delete chain {fam} {table} c"],
            [f"flush table {fam} {table}"],
            ["flush ruleset"] if rnd.random() < 0.3 else [f"list table {fam} {table}"],
        ))
    if rnd.random() < 0.15:  # none of it is to happen
        lines.append("add rule inet nosuch nosuch accept")
    return "\n".join(lines) + "\n"


def many(rnd):
    n = rnd.choice((10, 100, 300))
    text = "table inet many {\n" + "\n".join(f"flowtable m{i} {{ hook ingress priority {i}; {rnd.choice(('', 'devices = { d0 };', 'devices = { v0, d1 };'))} }}"
                                         for i in range(n)) + "\n}\n"
    if rnd.random() < 0.5:
        text += "add rule inet nosuch nosuch accept\n"
    return text


def devices(rnd, ns):
    d = rnd.choice(("d0", "d1", "v0", "br0", "v0.5", "t0"))
    lines = {
        "d0": ["link add d0 type dummy", "link set d0 up"], "d1": ["link add d1 type dummy", "link set d1 up"],
        "v0": ["link add v0 type veth peer name v1", "link set v0 up", "link set v1 up"],
        "br0": ["link add br0 type bridge", "link set br0 up", "link set v0 master br0"],
        "v0.5": ["link add link v0 name v0.5 type vlan id 5", "link set v0.5 up"],
        "t0": ["link add t0 type ipip local 10.9.0.1 remote 10.9.0.2", "link set t0 up"],
    }[d]
    ip(ns, *(lines if rnd.random() < 0.6 else [f"link set {d} down", f"link set {d} name p{d[:2]}", f"link del p{d[:2]}", f"link del {d}"]))
    COUNT["devices"] += 1


def ppp(ns):
    """A PPP interface without a peer, as long as the program runs; /dev/ppp is not everybody's."""
    code = ("import fcntl, os, struct, time\n"
            "fd = os.open('/dev/ppp', os.O_RDWR)\n"
            "fcntl.ioctl(fd, 0xc004743e, struct.pack('i', 0))\n"
            "time.sleep(2)\n")
    r = inside(ns, sys.executable, "-c", code)
    COUNT["ppp devices" if r.returncode == 0 else "ppp refused"] += 1


def owner(prefix, number, rnd, until):
    """Namespaces one after the other, with transactions in them."""
    i = 0
    while time.monotonic() < until and not STOP.is_set():
        ns = f"{prefix}o{number}-{i}"
        i += 1
        run(["ip", "netns", "add", ns])
        COUNT["namespaces"] += 1
        for _ in range(rnd.choice((3, 30, 100))):
            if time.monotonic() > until:
                break
            x = rnd.random()
            if x < 0.3:
                devices(rnd, ns)
            elif x < 0.32:
                ppp(ns)
            else:
                text = many(rnd) if x < 0.36 else transaction(rnd)
                r = inside(ns, "nft", "-f", "-", text=text)
                COUNT["transactions"] += 1
                COUNT["transactions refused"] += r.returncode != 0
                if r.returncode < 0:
                    bad(f"nft died of signal {-r.returncode}: {text}")
                if r.returncode != 0 and not r.stderr.strip():
                    bad(f"refused without a word: {text}")
                churn.RECENT.append(text.split("\n")[0][:60])
        run(["ip", "netns", "del", ns])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seconds", type=float, default=30)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--prefix", default="nsowner")
    a = p.parse_args()
    rnd = random.Random(a.seed)
    until = time.monotonic() + a.seconds
    # Flows under traffic, by churn.py as it is, beside the transactions.
    routers = subprocess.Popen([sys.executable, churn.__file__, "--seconds", str(a.seconds), "--seed", str(rnd.getrandbits(30)), "--routers", "1",
                                "--prefix", f"{a.prefix}r"], stdout=subprocess.PIPE, text=True)
    threads = [threading.Thread(target=owner, args=(a.prefix, i, random.Random(rnd.random()), until)) for i in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(a.seconds + 120)
        if t.is_alive():
            bad("a worker hangs")
    STOP.set()
    try:
        said = json.loads(routers.communicate(timeout=180)[0])
    except (subprocess.TimeoutExpired, ValueError) as e:
        routers.kill()
        said = {"failures": [f"churn.py: {e}"]}
    for f in said.pop("failures"):
        bad(f)
    print(json.dumps({"failures": list(FAILS), **COUNT, **said}))
    sys.exit(bool(FAILS))


if __name__ == "__main__":
    main()
