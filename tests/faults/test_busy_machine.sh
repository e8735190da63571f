#!/bin/sh
# A second run on a machine that measures already: both go on, the second one warns, in words and in
# its run.json.
. "$(dirname "$0")/faults_common.sh"
write_suite '[8]'
words='another flowbench is measuring on this machine'

# Whoever measures holds this lock; it is free again when its holder is gone. Other tests may run
# beside this one, so waiting for it is part of the game.
exec 9> /tmp/flowbench.lock
flock -w 120 9 || fail "the lock of the machine did not become free"
expect_exit 0 run suite.yaml --out second
expect_words "warning: $words"
grep -q "$words" second/run.json || fail "run.json does not remember the warning"
expect_complete second 2
