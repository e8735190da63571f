#!/bin/sh
# kill -9 at random moments, the runner, its worker or both, then --resume: finished rows and their
# samples stay bit for bit, none is repeated, nothing outlives its runner.
# usage: test_kill_resume.sh FLOWBENCH [KILLS [SEED]]     50 kills with FB_LONG=1 in the environment
KILLS=${2:-6}
[ -n "${2:-}" ] || [ "${FB_LONG:-0}" = 0 ] || KILLS=50
SEED=${3:-$(date +%s)}
. "$(dirname "$0")/faults_common.sh"
write_suite '[8, 16, 24, 32, 40, 48, 56, 64, 72, 80]'
CASES=20
echo "$KILLS kills, random seed $SEED"

# $1: number of the kill, $2: 1 or 2, $3: upper bound. A random number below it.
random() {
    printf '%s' "$SEED $1 $2" | cksum | awk -v max="$3" '{ print max * $1 / 4294967296 }'
}

# The runner's child is its worker of the moment, if there is one.
worker_of() { cat "/proc/$1/task/$1/children" 2>/dev/null; }

# What has to survive: the whole lines of results.csv, and the samples of their cases.
remember() {
    : > kept.csv
    [ ! -f run/results.csv ] || head -n "$(wc -l < run/results.csv)" run/results.csv > kept.csv
    cut -d, -f4 kept.csv > kept.ids
    : > kept.samples
    [ ! -f run/samples.csv ] || head -n "$(wc -l < run/samples.csv)" run/samples.csv |
        awk -F, 'NR == FNR { kept[$1]; next } $1 in kept' kept.ids - > kept.samples
}
expect_kept() {
    size=$(wc -c < kept.csv)
    [ "$size" -eq 0 ] || head -c "$size" run/results.csv | cmp -s - kept.csv ||
        fail "kill $kill changed finished rows"
    [ -z "$(cut -d, -f4 run/results.csv 2>/dev/null | sort | uniq -d)" ] ||
        fail "kill $kill repeated a row"
    [ "$size" -eq 0 ] || awk -F, 'NR == FNR { kept[$1]; next } $1 in kept' kept.ids run/samples.csv |
        cmp -s - kept.samples || fail "kill $kill changed the samples of finished rows"
}

# A row that lost its worker is a crash, which is exit 3; otherwise all is well.
finish() {
    "$FLOWBENCH" run --resume run > last.out 2> last.err
    code=$?
    wanted=0
    ! grep -q ',crash,' run/results.csv || wanted=3
    # A run that was finished before has nothing left to say about its rows.
    [ $code -eq $wanted ] || grep -q 'nothing is left' last.err || fail "resumed: exit $code instead of $wanted"
    expect_kept
    expect_complete run $CASES
    ! grep -v ',ok,' run/results.csv | tail -n +2 | grep -qv ',crash,killed by SIGKILL' ||
        fail "a row is neither ok nor the crash of a killed worker"
}

kill=0
runs=1
killed_workers=0
: > kept.csv
: > kept.ids
: > kept.samples
while [ $kill -lt "$KILLS" ]; do
    if [ -f run/run.json ]; then
        "$FLOWBENCH" run --resume run > round.out 2> round.err &
    else
        # Killed before there was anything to resume: start again.
        rm -rf run
        "$FLOWBENCH" run suite.yaml --out run > round.out 2> round.err &
    fi
    RUN_PID=$!
    sleep "$(random $kill 1 2.5)"
    worker=$(worker_of $RUN_PID)
    victim=$(random $kill 2 3)
    case $victim in
    0*) kill -9 $RUN_PID 2>/dev/null ;;
    1*) # shellcheck disable=SC2086 # no worker, no argument
        kill -9 $RUN_PID $worker 2>/dev/null ;;
    *)
        # The worker alone costs its row; the run goes on and is killed a little later.
        # shellcheck disable=SC2086
        [ -z "$worker" ] || { kill -9 $worker 2>/dev/null && killed_workers=$((killed_workers + 1)); }
        sleep 0.3
        kill -9 $RUN_PID 2>/dev/null
        ;;
    esac
    wait $RUN_PID 2>/dev/null
    RUN_PID=
    expect_no_workers
    kill=$((kill + 1))
    [ ! -f run/run.json ] || expect_kept
    remember
    # All rows there: check them, and begin another run for the kills that are left.
    if [ "$(rows run)" -eq $CASES ] && [ $kill -lt "$KILLS" ]; then
        finish
        rm -rf run
        remember
        runs=$((runs + 1))
    fi
done
echo "$(rows run) of $CASES rows of run $runs after $KILLS kills; $killed_workers workers killed alone"
[ -f run/run.json ] || { rm -rf run && "$FLOWBENCH" run suite.yaml --out run > last.out 2> last.err; }
finish

# A cut last line, as a power failure leaves it, goes; the others stay.
cp run/results.csv whole.csv
head -c $(($(wc -c < whole.csv) - 7)) whole.csv > run/results.csv
remember
finish

# An empty or missing results.csv starts the run.
: > run/results.csv
remember
finish
rm run/results.csv
finish
