#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Sets a mark for the emulator's plugin (plugin.c): mark.py warm|begin|end LABEL [MODULE...]

What the plugin has to know is written to $OUT/profile.label: the code of the modules that packets run through
(all but garbage collectors), whose accesses are told apart from others, and where each packet passes. Before "begin" the symbols of the kernel are kept in
$OUT/profile.LABEL.
"""

import ctypes
import mmap
import os
import sys

MARKS = {"warm": 1, "begin": 2, "end": 3}
BOUNDARY = "__netif_receive_skb_core"


def symbols():
    with open("/proc/kallsyms", encoding="ascii") as file:
        for line in file:
            fields = line.split()
            if fields[1] in "tTwW":
                yield int(fields[0], 16), fields[2], fields[3].strip("[]") if len(fields) > 3 else ""


def hooks(known, modules):
    """The runs of functions of the modules, without garbage collectors."""
    runs = []
    ends = [a for a, _, _ in known[1:]] + [known[-1][0] + 4096]
    for (start, name, module), end in zip(known, ends):
        if module in modules and "gc" not in name:
            # The last function of a module ends within its page.
            end = min(end, (start | 4095) + 1 + 16 * 4096)
            if runs and runs[-1][1] == start:
                runs[-1][1] = end
            else:
                runs.append([start, end])
    return runs


def write(path, text):
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def main():
    what, label, modules = sys.argv[1], sys.argv[2], sys.argv[3:]
    out = os.environ["OUT"]
    if what != "end":
        known = sorted(symbols())
        text = f"label {label}\n"
        text += "".join(f"hook {start:x} {end:x}\n" for start, end in hooks(known, modules))
        text += "".join(f"boundary {a:x}\n" for a, name, _ in known if name.split(".")[0] == BOUNDARY and not name.endswith(".cold"))
        write(f"{out}/profile.label", text)
        if what == "begin":
            write(f"{out}/profile.{label}", "".join(f"{a:x} {name} {module}\n" for a, name, module in known))
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(bytes([0x0F, 0x1F, 0x84, 0x00, 0x00, MARKS[what], ord("F"), ord("N"), 0xC3]))
    ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()


if __name__ == "__main__":
    main()
