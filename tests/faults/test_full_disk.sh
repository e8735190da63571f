#!/bin/sh
# A disk that fills up in the middle: exit 1, a clear message, earlier rows intact, --resume works.
. "$(dirname "$0")/faults_common.sh"
write_suite '[8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52]'
CASES=24

mkdir small
if ! mount -t tmpfs -o size=512k none small 2>/dev/null; then
    echo "cannot mount a small file system here: skipped"
    exit 77
fi
MOUNTED=$WORK/small

"$FLOWBENCH" run suite.yaml --out small/run > last.out 2> last.err &
RUN_PID=$!
await_rows small/run 2
dd if=/dev/zero of=small/filler bs=4k 2>/dev/null
wait $RUN_PID
code=$?
RUN_PID=
[ $code -eq 1 ] || fail "full disk: exit $code instead of 1"
expect_words 'No space left'
expect_words 'run --resume small/run'
[ "$(tail -c 1 small/run/results.csv | od -An -c | tr -d ' ')" = '\n' ] || fail "a cut line"
[ "$(rows small/run)" -ge 2 ] || fail "rows were lost"
[ "$(rows small/run)" -lt $CASES ] || fail "the disk did not fill up"
cp small/run/results.csv kept.csv

expect_exit 1 run --resume small/run
expect_words 'No space left'
head -c "$(wc -c < kept.csv)" small/run/results.csv | cmp -s - kept.csv || fail "rows changed"

rm small/filler
expect_exit 0 run --resume small/run
head -c "$(wc -c < kept.csv)" small/run/results.csv | cmp -s - kept.csv || fail "rows changed"
expect_complete small/run $CASES
