#!/bin/sh
# kill -9 at random moments, then --resume: finished rows stay bit for bit, none is repeated.
. "$(dirname "$0")/faults_common.sh"
write_suite '[8, 16, 24, 32, 40, 48, 56, 64, 72, 80]'
CASES=20
seed=$(date +%s)
echo "random seed $seed"

kept=0
round=0
while [ $round -lt 5 ]; do
    if [ $round -eq 0 ]; then
        "$FLOWBENCH" run suite.yaml --out run > round$round.out 2> round$round.err &
    else
        "$FLOWBENCH" run --resume run > round$round.out 2> round$round.err &
    fi
    RUN_PID=$!
    # The first kill strikes at the start, the others somewhere after one more row.
    [ $round -eq 0 ] || await_rows run $(($(rows run) + 1))
    sleep "$(awk -v s=$((seed + round)) 'BEGIN { srand(s); print 1.2 * rand() }')"
    kill -9 $RUN_PID 2>/dev/null
    wait $RUN_PID 2>/dev/null
    RUN_PID=
    expect_no_workers
    # Killed before there was anything to resume: start again.
    if [ ! -f run/run.json ]; then
        rm -rf run
        round=0
        seed=$((seed + 1))
        continue
    fi
    if [ $kept -gt 0 ]; then
        head -c $kept run/results.csv | cmp -s - kept.csv || fail "round $round changed finished rows"
    fi
    # Up to the last line end: what has to survive.
    [ ! -f run/results.csv ] || head -n "$(wc -l < run/results.csv)" run/results.csv > kept.csv
    [ ! -f kept.csv ] || kept=$(wc -c < kept.csv)
    round=$((round + 1))
done
echo "$(rows run) of $CASES rows after five kills"

expect_exit 0 run --resume run
[ $kept -eq 0 ] || head -c $kept run/results.csv | cmp -s - kept.csv || fail "finished rows changed"
expect_complete run $CASES

# A cut last line, as a power failure leaves it, goes; the others stay.
cp run/results.csv whole.csv
head -c $(($(wc -c < whole.csv) - 7)) whole.csv > run/results.csv
head -n $CASES whole.csv > kept.csv
expect_exit 0 run --resume run
head -c "$(wc -c < kept.csv)" run/results.csv | cmp -s - kept.csv || fail "the repair changed rows"
expect_complete run $CASES

# An empty or missing results.csv starts the run.
: > run/results.csv
expect_exit 0 run --resume run
expect_complete run $CASES
rm run/results.csv
expect_exit 0 run --resume run
expect_complete run $CASES
