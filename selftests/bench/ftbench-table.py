#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The table of ftbench.sh.

A line of the file is one measurement: flows, round, place in the round, variant, then wall, CPU and
batch time of the run that drops everything, the same of the one that forwards, packets that the forward chain saw.
The ratio is the median of those of neighbours (first and second, third and fourth of a round); its interval
has 95 % of the medians of as many ratios drawn with replacement. A/A is the median of first : second of the same variant.
"""
import random
import sys
from statistics import median

TIMES = ("batch", 2), ("CPU", 1), ("wall", 0)


def interval(ratios, draws=4000):
    rnd = random.Random(1)
    medians = sorted(median(rnd.choices(ratios, k=len(ratios))) for _ in range(draws))
    return medians[draws * 25 // 1000], medians[draws * 975 // 1000 - 1]


def main():
    rounds = {}
    others = {}
    for line in open(sys.argv[1], encoding="ascii"):
        f = line.split()
        base, cost = [float(x) for x in f[4:7]], [float(x) for x in f[7:10]]
        rounds.setdefault(int(f[0]), {}).setdefault(int(f[1]), []).append((f[3], [c - b for c, b in zip(cost, base)]))
        others.setdefault(int(f[0]), []).append(100 - 100 * cost[1] / cost[0])
    print("| flows | time | in-tree C | nft_offload | C : ours | 95 % | slower than with the fewest flows, C, ours "
          "| A/A, C, ours | |")
    print("|---:|---|---:|---:|---:|---:|---:|---:|---|")
    first = {}
    for flows in sorted(rounds):
        for name, t in TIMES:
            cost = {"intree": [], "ours": []}
            same = {"intree": [], "ours": []}
            ratios = []
            for four in rounds[flows].values():
                by = {"intree": [], "ours": []}
                for variant, times in four:
                    by[variant].append(times[t])
                for v, (a, b) in by.items():
                    cost[v] += [a, b]
                    same[v].append(a / b)
                # the first of one comes right before or after the first of the other
                ratios += [c / o for c, o in zip(by["intree"], by["ours"])]
            c, o = median(cost["intree"]), median(cost["ours"])
            first.setdefault(name, (c, o))
            low, high = interval(ratios)
            aa = {v: median(x) for v, x in same.items()}
            holds = all(abs(x - 1) <= 0.02 for x in aa.values())
            print(f"| {flows} | {name} | {c:.1f} | {o:.1f} | {median(ratios):.2f} | {low:.2f} to {high:.2f} "
                  f"| {c / first[name][0]:.2f}, {o / first[name][1]:.2f} | {aa['intree']:.3f}, {aa['ours']:.3f} "
                  f"| {'' if holds else 'A/A DOES NOT HOLD'} |")
    print()
    print("Of the time of the forwarding CPU others had: "
          + ", ".join(f"{median(others[n]):.0f} % ({n} flows)" for n in sorted(others)))


main()
