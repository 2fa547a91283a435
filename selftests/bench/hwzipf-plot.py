#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Draws what hwzipf.sh has measured: hwzipf-plot.py DATA SVG (needs matplotlib)."""
import sys

import matplotlib

matplotlib.use("Agg")
matplotlib.rcParams["svg.hashsalt"] = "hwzipf"
import matplotlib.pyplot as plt  # noqa: E402

names = {"ours": "nft_offload, by rate", "intree": "in-tree flowtable, first come"}
series = {}
for line in open(sys.argv[1]):
    name, second, _, best, hardware = line.split()
    series.setdefault(name, []).append((int(second), 100 * int(hardware) / max(int(best), 1)))
figure, axes = plt.subplots(figsize=(7, 3.2))
for name, points in series.items():
    axes.plot(*zip(*points), label=names.get(name, name))
axes.axhline(100, color="black", linewidth=0.6)
axes.axhline(95, color="black", linewidth=0.6, linestyle=":")
axes.set_xlabel("seconds")
axes.set_ylabel("% of the best choice")
axes.set_ylim(0, 110)
axes.set_title("Bytes through hardware: 10000 flows, Zipf(1.1), 64 places", fontsize=10)
axes.legend(loc="lower right")
figure.tight_layout()
figure.savefig(sys.argv[2], metadata={"Date": None})
