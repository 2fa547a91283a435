# SPDX-License-Identifier: GPL-2.0
"""The commands of a script, each with its options."""
import argparse
import sys


class Unasked:
    """A command that was not given: nobody needs its options."""

    def add_argument(self, *args, **kwargs):
        pass

    set_defaults = add_argument


class Commands:
    """Makes the options of the command that was given, and of no other: that takes an emulated machine half a second."""

    def __init__(self, doc):
        self.parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.sub = self.parser.add_subparsers(dest="what", required=True)
        self.asked = sys.argv[1] if sys.argv[1:] and not sys.argv[1].startswith("-") else None

    def add_parser(self, name):
        return self.sub.add_parser(name) if self.asked in (name, None) else Unasked()
