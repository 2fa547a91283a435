#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What the emulator's plugin has counted, by function: table.py FOLDER [-n FUNCTIONS] [-f FLOWS]

FOLDER is the output of a guest (out/latest-stock) in which pktgen.sh ran with PROFILE=1. Of each variant the window
in which everything was dropped at ingress is subtracted, function by function, so that what is left is the
work of forwarding a packet.
"""

import argparse
import bisect
import collections
import pathlib

FIELDS = ["instructions", "accesses", "lines", "48K", "1M", "32M", "32K", "512K"]


class Window:
    def __init__(self, fields):
        self.label = fields[0]
        self.packets, self.lines, self.hook, self.alone = (int(fields[i]) for i in (2, 4, 6, 8))
        self.code = []

    def functions(self, folder):
        """Counts of each function, per packet."""
        symbols = [line.split() for line in (folder / f"profile.{self.label}").read_text().splitlines()]
        starts = [int(s[0], 16) for s in symbols]
        sums = collections.defaultdict(lambda: [0] * len(FIELDS))
        for pc, counts in self.code:
            i = bisect.bisect_right(starts, pc) - 1
            name = "user space" if pc < 1 << 47 or i < 0 else " ".join(symbols[i][1:])
            for n, count in enumerate(counts):
                sums[name][n] += count / self.packets
        return sums


def read(folder):
    windows = []
    for line in (folder / "profile").read_text().splitlines():
        fields = line.split()
        if fields[0] == "window":
            windows.append(Window(fields[1:]))
        else:
            windows[-1].code.append((int(fields[0], 16), [int(f) for f in fields[1:]]))
    return windows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("-n", type=int, default=25, help="functions to list")
    parser.add_argument("-f", type=int, default=1000, help="flows there were")
    args = parser.parse_args()

    windows = read(args.folder)
    drop = next((w for w in windows if w.label == "drop"), None)
    base = drop.functions(args.folder) if drop else {}
    for w in windows:
        if w.label == "drop":
            continue
        names = w.functions(args.folder)
        for name, counts in base.items():
            names[name] = [a - b for a, b in zip(names[name], counts)]
        total = [sum(c[n] for c in names.values()) for n in range(len(FIELDS))]
        print(f"\n{w.label}: {w.packets} packets, {args.f} flows; per packet:\n")
        print(f"| function | {' | '.join(FIELDS[:3])} | {' | '.join('misses ' + f for f in FIELDS[3:])} |")
        print("|---|" + "---:|" * len(FIELDS))
        rows = sorted(names.items(), key=lambda item: -abs(item[1][0]))[: args.n]
        for name, counts in [("all", total)] + rows:
            print(f"| {name} | {counts[0]:.0f} | {counts[1]:.1f} | {counts[2]:.1f} | "
                  + " | ".join(f"{c:.2f}" for c in counts[3:]) + " |")
        print(f"\nLines that the hook touches: {total[2]:.1f} in a packet; {w.hook / args.f:.2f} different ones for a flow, "
              f"{w.alone / args.f:.2f} of them touched by nobody else.")


if __name__ == "__main__":
    main()
