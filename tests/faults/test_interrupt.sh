#!/bin/sh
# SIGINT and SIGTERM finish the row, print the resume command and exit 130 or 143.
. "$(dirname "$0")/faults_common.sh"
write_suite '[8, 16, 24, 32]'
CASES=8

interrupt() { # $1: signal, $2: exit code, $3: folder
    "$FLOWBENCH" run suite.yaml --out "$3" > last.out 2> last.err &
    RUN_PID=$!
    await_rows "$3" 1
    kill -"$1" $RUN_PID
    wait $RUN_PID
    code=$?
    RUN_PID=
    [ $code -eq "$2" ] || fail "SIG$1: exit $code instead of $2"
    expect_words "interrupted by SIG$1"
    expect_no_workers
    before=$(rows "$3")
    [ "$before" -lt $CASES ] || fail "nothing was left to interrupt"
    [ "$(tail -c 1 "$3/results.csv" | od -An -c | tr -d ' ')" = '\n' ] || fail "a cut line"
    cp "$3/results.csv" kept.csv
    command=$(sed -n 's/^continue with: //p' last.err)
    [ "$command" = "./bench run --resume $3" ] || fail "the resume command is '$command'"
    expect_exit 0 run --resume "$3"
    head -c "$(wc -c < kept.csv)" "$3/results.csv" | cmp -s - kept.csv || fail "rows changed"
    expect_complete "$3" $CASES
    expect_exit 0 run --resume "$3"
    expect_words 'is finished: nothing is left to do'
}

interrupt INT 130 run-int
interrupt TERM 143 run-term

# A second signal does not wait for the worker.
sed -i 's/max_time: 200 ms/max_time: 15 s/; s/min_samples: 6/min_samples: 1000000/' suite.yaml
"$FLOWBENCH" run suite.yaml --out run-two > last.out 2> last.err &
RUN_PID=$!
tries=0
until [ -f run-two/results.csv ]; do
    tries=$((tries + 1))
    [ $tries -lt 600 ] || fail "the run did not start"
    sleep 0.05
done
sleep 2
kill -INT $RUN_PID
sleep 0.3
kill -INT $RUN_PID
wait $RUN_PID
code=$?
RUN_PID=
[ $code -eq 130 ] || fail "two interrupts: exit $code instead of 130"
expect_no_workers
[ "$(rows run-two)" -eq 0 ] || fail "an unfinished case has a row"
