# Shared by the fault tests: a private folder, a small suite, checks that say what went wrong.
# Sourced with the path of flowbench in $1 or $FLOWBENCH.
FLOWBENCH=${FLOWBENCH:-${1:?usage: $0 FLOWBENCH}}
WORK=$(mktemp -d)
TAG=fb_fault_$$
export FB_FAULT_TAG=$TAG NO_COLOR=1
cd "$WORK" || exit 1

cleanup() {
    [ -z "${RUN_PID:-}" ] || kill -9 "$RUN_PID" 2>/dev/null
    [ -z "${MOUNTED:-}" ] || umount "$MOUNTED" 2>/dev/null
    rm -rf "$WORK"
}
trap cleanup EXIT

fail() {
    echo "FAIL: $*" >&2
    for log in "$WORK"/*.err; do
        [ ! -s "$log" ] || { echo "--- $(basename "$log")" >&2; tail -15 "$log" >&2; }
    done
    exit 1
}

# $1: sequence lengths; about a third of a second for each of the two mechanisms.
write_suite() {
    cat > suite.yaml <<EOF
suite: faulty
kind: kernel
defaults: {batch: 1, heads: 1, head_dim: 16, mechanism: flow}
sweep:
  mechanism: [flow, linear]
  seq_len: $1
hardware: [{device: cpu, threads: 1}]
measure: {warmup: 1 ms, precision: 50 %, min_samples: 6, max_time: 200 ms}
limits: {case_timeout: 20 s, memory: 50 %}
accuracy: {oracle: true}
EOF
}

# Runs flowbench; its exit code has to be $1.
expect_exit() {
    wanted=$1
    shift
    "$FLOWBENCH" "$@" > last.out 2> last.err
    code=$?
    [ $code -eq "$wanted" ] || fail "flowbench $*: exit $code instead of $wanted"
}

# A sanitizer reserves terabytes of addresses that no limit on them lets pass.
REFUSAL_KIB=1048576
(ulimit -d $REFUSAL_KIB 2>/dev/null && "$FLOWBENCH" --version > /dev/null 2>&1) || REFUSAL_KIB=unlimited

# As expect_exit, within the promise of a refusal: 5 s and 1 GiB.
expect_refusal() {
    wanted=$1
    shift
    (ulimit -d $REFUSAL_KIB && exec timeout 5 "$FLOWBENCH" "$@") > last.out 2> last.err
    code=$?
    [ $code -eq "$wanted" ] || fail "flowbench $*: exit $code instead of $wanted"
}

expect_words() {
    grep -q -e "$1" last.err || fail "the message lacks '$1'"
}

# Whole rows in a folder's results.csv.
rows() {
    [ -f "$1/results.csv" ] || { echo 0; return; }
    lines=$(wc -l < "$1/results.csv")
    [ "$lines" -gt 0 ] && echo $((lines - 1)) || echo 0
}

# Waits until the folder $1 has $2 rows.
await_rows() {
    tries=0
    while [ "$(rows "$1")" -lt "$2" ]; do
        kill -0 "$RUN_PID" 2>/dev/null || fail "the run ended before it had $2 rows"
        tries=$((tries + 1))
        [ $tries -lt 1200 ] || fail "no $2 rows within a minute"
        sleep 0.05
    done
}

# No process of this test is left but this shell's own.
expect_no_workers() {
    tries=0
    while :; do
        left=""
        for process in /proc/[0-9]*; do
            # The arguments of a worker, NUL-separated, are "flowbench" and "worker".
            grep -qaz -x worker "$process/cmdline" 2>/dev/null || continue
            # A zombie has no environment and counts as gone.
            grep -qaz "FB_FAULT_TAG=$TAG" "$process/environ" 2>/dev/null && left=$process
        done
        [ -n "$left" ] || return 0
        tries=$((tries + 1))
        [ $tries -lt 100 ] || fail "a worker outlived its runner: $left"
        sleep 0.05
    done
}

# Every case has one row, every sample has its row.
expect_complete() {
    [ "$(rows "$1")" -eq "$2" ] || fail "$(rows "$1") rows instead of $2"
    cut -d, -f4 "$1/results.csv" | tail -n +2 | sort > ids
    [ "$(sort -u ids | wc -l)" -eq "$2" ] || fail "a case has two rows"
    cut -d, -f1 "$1/samples.csv" | tail -n +2 | sort -u > sampled
    [ -z "$(comm -13 ids sampled)" ] || fail "samples of a case without a row"
    [ -z "$(cut -d, -f1-3 "$1/samples.csv" | sort | uniq -d)" ] || fail "a sample is there twice"
}
