#!/usr/bin/env python3
"""Runs a test of the emulated device under several schedules: same_bits.py PROGRAM [ARGUMENT ...]

It must pass under each, and what comes back from the device must be the same, bit by bit.
"""

import os
import re
import subprocess
import sys

SCHEDULES = (
    {},
    {"ORDER": "random", "NETWORK": "random", "DEFER": "random", "RESIDENT": "3", "SEED": "7"},
    {"ORDER": "blocks", "NETWORK": "late", "DEFER": "issued", "SEED": "8"},
)


def run(schedule):
    environment = dict(os.environ, FLOWBENCH_EMULATOR_HASH="1")
    environment.update({"FLOWBENCH_EMULATOR_" + name: value for name, value in schedule.items()})
    done = subprocess.run(sys.argv[1:], env=environment, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, universal_newlines=True, check=False)
    hashed = re.search(r"hashes to (\w+)", done.stdout)
    words = " ".join("%s=%s" % item for item in schedule.items()) or "settings as they are"
    if done.returncode != 0 or hashed is None:
        sys.exit("%s\n%s: exit status %d" % (done.stdout, words, done.returncode))
    print("%s  %s" % (hashed[1], words), flush=True)
    return hashed[1]


def main():
    if len({run(schedule) for schedule in SCHEDULES}) != 1:
        sys.exit("the bits depend on the schedule")


if __name__ == "__main__":
    main()
