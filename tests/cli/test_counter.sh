#!/bin/sh
# measure.counter: instructions instead of times, the same ones every time. Exit 77: no valgrind.
. "$(dirname "$0")/../faults/faults_common.sh"
write_suite '[16]'

# What cannot count is refused before anything runs, and says what would.
env PATH=/nonexistent "$FLOWBENCH" run suite.yaml --set measure.counter=valgrind 2> last.err
[ $? -eq 2 ] || fail "without valgrind: not a refusal"
expect_words 'install'
expect_exit 2 run suite.yaml --set measure.counter=valgrnd
expect_words "did you mean 'valgrind'"
if "$FLOWBENCH" run suite.yaml --set measure.counter=hardware --out hardware 2> last.err; then
    grep -q ',perf,' hardware/results.csv || fail "the processor's counts are not in the rows"
else
    [ $? -eq 2 ] || fail "a missing counter is not a refusal"
    expect_words 'valgrind counts anywhere'
fi
command -v valgrind > /dev/null || { echo "skipped: no valgrind on this machine" >&2; exit 77; }

# column NAME: its cells, in the order of the cases. The columns at the end hold no quoted comma but
# the last one, and params is the only one before them.
counts() {
    sed 's/"[^"]*"//g' "$1/results.csv" | awk -F, '
        NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
        { print $at["case_id"], $at["status"], $at["instructions"], $at["counter"], \
            $at["mem_workspace_bytes"], $at["time_median_s"] }' | sort
}

# The same program counts the same twice, whatever else this machine does.
expect_exit 0 run suite.yaml --set measure.counter=valgrind --out first
grep -q 'instructions' last.out || fail "the table shows no instructions"
(while :; do :; done) &
BUSY_PID=$!
"$FLOWBENCH" run suite.yaml --set measure.counter=valgrind --out second --quiet 2> last.err
code=$?
kill $BUSY_PID
[ $code -eq 0 ] || fail "the second run: exit $code"
counts first > first.txt
counts second > second.txt
cmp -s first.txt second.txt || fail "two runs count differently: $(cat first.txt second.txt)"
[ "$(grep -c '^[0-9a-f]* ok [1-9][0-9]* callgrind-[0-9.]* [0-9]* $' first.txt)" -eq 2 ] ||
    fail "not two counted rows: $(cat first.txt)"
[ "$(wc -l < first/samples.csv)" -eq 1 ] || fail "a count left samples"

# Several threads and AVX-512 are skips, not failures.
expect_exit 0 run suite.yaml --set measure.counter=valgrind --set 'hardware=[{threads: 2}]' --out two
[ "$(grep -c ',skipped,"instructions are counted on 1 thread' two/results.csv)" -eq 2 ] ||
    fail "two threads: $(cat two/results.csv)"

# A stored count can be repeated and is compared exactly.
expect_exit 0 repro first:1
grep -q 'instructions .*equal' last.out || fail "repro does not show the count"
expect_exit 0 run suite.yaml --set measure.counter=valgrind --dry-run
grep -q '2 cases counted by valgrind' last.out || fail "--dry-run does not say that it counts"

# compare: exact; 1 % is tolerated, 3 % is not; other compilers are no comparison.
expect_exit 0 compare first second
grep -q '2 cases: 2 PASS' last.out || fail "equal counts do not pass"
grow() {
    sed 's/"[^"]*"//g' first/results.csv | awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i }
        NR == 2 { print $at["instructions"] }' > count
    grown=$(awk -v percent="$1" '{ printf "%d", $1 * (1 + percent / 100) }' count)
    sed "s/,$(cat count),/,$grown,/" first/results.csv > grown.csv
}
grow 0.9
expect_exit 0 compare first/results.csv grown.csv
grow 3
expect_exit 3 compare first/results.csv grown.csv
grep -q '^FAIL .*more instructions' last.out || fail "3 % more instructions are not found"
expect_exit 0 compare grown.csv first/results.csv
grep -q '^FASTER ' last.out || fail "3 % fewer instructions are not shown"
sed 's/glibc [0-9.]*/glibc 9.99/' first/results.csv > other.csv
expect_exit 3 compare first/results.csv other.csv
grep -q 'INCOMPARABLE .*other toolchain' last.out || fail "another C library is compared"

# Live, too: two programs count in turn, once each.
expect_exit 0 compare --ab "$FLOWBENCH" "$FLOWBENCH" suite.yaml --set measure.counter=valgrind
grep -q '2 cases: 2 PASS' last.out || fail "a program does not execute what it executes itself"
