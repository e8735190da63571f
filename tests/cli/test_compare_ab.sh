#!/bin/sh
# flowbench compare --ab: programs that answer as scripted, programs that do not, the real one.
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../faults/faults_common.sh"
. "$here/compare_common.sh"
fake_build old 1
fake_build same 1
fake_build slow 1.1
fake_build fast 0.8
cat > suite.yaml <<EOF
suite: scripted
kind: kernel
defaults: {mechanism: flow, batch: 1, heads: 1, head_dim: 16}
sweep: {seq_len: [128, 256]}
hardware: [{device: cpu, threads: 1, isa: scalar}]
measure: {min_samples: 6, max_time: 1 s}
EOF

# ---- the two stages --------------------------------------------------------------------------------
expect_exit 0 compare --ab old same suite.yaml
verdict 128 PASS
why 128 '10 pairs'
grep -q '^A/A   base against itself: 2 cases x 10 pairs' last.out || fail "no A/A leg"
expect_words 'screening 2 cases with 10 pairs each'
grep -q 'flowbench 9.9.9' last.out || fail "the version of the program is not told"
# Of the old program, screening starts 40 processes (A/A included), calibration 2, the greeting 1.
[ "$(wc -l < old.log)" -eq 43 ] || fail "$(wc -l < old.log) processes of old"
[ "$(wc -l < same.log)" -eq 23 ] || fail "$(wc -l < same.log) processes of new"
expect_exit 3 compare --ab old slow suite.yaml
verdict 128 FAIL
verdict 256 FAIL
why 256 '10+30 pairs *slower, confirmed by fresh pairs'
expect_words 'confirming 2 candidates with up to 30 fresh pairs'
expect_exit 0 compare --ab old fast suite.yaml --quiet --filter 'seq_len=256'
verdict 256 FASTER
! grep -q screening last.err || fail "progress under --quiet"
# The shuffled relink moves more than the new program does.
fake_build relinked 1.2
expect_exit 0 compare --ab old slow suite.yaml --aprime relinked --filter 'seq_len=256'
verdict 256 PASS
grep -q "^A/A'  base against its shuffled relink: 1 case" last.out || fail "no A/A' leg"
grep -q '^tolerated: [12][0-9.]* % of time' last.out || fail "$(tail -2 last.out)"

# ---- options ---------------------------------------------------------------------------------------
expect_exit 3 compare --ab old slow suite.yaml --filter 'seq_len<=128' --format json -o verdicts.json
[ "$(grep -c '^FAIL' last.out)" -eq 1 ] || fail "--filter"
if command -v jq > /dev/null; then
    [ "$(jq -r '.kind, .outcome, (.cases | length), (.cases[0].screen_log_ratios | length),
        (.cases[0].fresh_log_ratios | length), .cases[0].unit, .same.pairs' verdicts.json |
        tr '\n' ' ')" = 'live failed 1 10 30 pairs 10 ' ] || fail "json: $(cat verdicts.json)"
fi
expect_exit 0 compare --ab old same suite.yaml --set 'sweep.seq_len=[64]'
grep -q 'N64' last.out || fail "--set: $(cat last.out)"
expect_exit 0 compare --ab old same suite.yaml --budget 1ms
expect_words 'the budget left 2 cases undecided'
[ "$(grep -c '^AMBIGUOUS .*budget' last.out)" -eq 2 ] || fail "--budget: $(cat last.out)"
expect_exit 4 compare --ab old same suite.yaml --budget 1ms --strict
expect_words 'the budget left'

# ---- programs that cannot be compared --------------------------------------------------------------
expect_exit 2 compare --ab old nowhere suite.yaml
expect_words "cannot find the program 'nowhere'"
expect_exit 2 compare --ab old suite.yaml suite.yaml
expect_words 'not a program that can be started'
expect_exit 2 compare --ab old /bin/true suite.yaml
expect_words "'/bin/true' does not answer as a flowbench worker"
expect_exit 2 compare --ab old / suite.yaml
fake_build future 1 7
expect_exit 2 compare --ab old future suite.yaml
expect_words 'speak protocol 7, this flowbench speaks 1'
# One that dies breaks its cases and nothing else.
cat > dying <<'EOF'
#!/bin/sh
task=$(cat)
case $task in
*hello*) echo '{"result":{"protocol":1}}' >&3 ;;
*) kill -SEGV $$ ;;
esac
EOF
chmod +x dying
expect_exit 3 compare --ab old dying suite.yaml
verdict 128 INCOMPARABLE
why 128 'new is crash: killed by SIGSEGV'
# A worker of the first versions knows no greeting.
cat > first <<'EOF'
#!/bin/sh
task=$(cat)
case $task in
*hello*) echo '{"error":"a worker knows no task '"'hello'"'","code":"input"}' >&3 ;;
*) echo "$task" | ./same ;;
esac
EOF
chmod +x first
expect_exit 0 compare --ab first same suite.yaml --filter 'seq_len=128'
verdict 128 PASS

# ---- usage -----------------------------------------------------------------------------------------
expect_exit 2 compare --ab old same
expect_words 'what is to be measured'
expect_exit 2 compare --filter 'seq_len<=128' a b
expect_words '.-filter belongs to --ab and --ab-git'
expect_exit 2 compare --ab old same nowhere.yaml
expect_words 'nowhere.yaml'
expect_exit 2 compare --ab old same suite.yaml --filter 'seq_len=3'
expect_words 'matches none'

# ---- the real program ------------------------------------------------------------------------------
cat > real.yaml <<EOF
suite: real
kind: kernel
defaults: {mechanism: flow, batch: 1, heads: 1, head_dim: 16, seq_len: 64}
sweep: {causal: [false, true]}
hardware: [{device: cpu, threads: 1}]
measure: {warmup: 1 ms, samples: 6, cache: warm}
EOF
"$FLOWBENCH" compare --ab "$FLOWBENCH" "$FLOWBENCH" real.yaml > last.out 2> last.err
code=$?
# What the times say is not this test's business, that they were all taken is.
[ $code -eq 0 ] || [ $code -eq 3 ] || fail "exit $code"
[ "$(grep -c '  10.* pairs' last.out)" -eq 2 ] || fail "$(cat last.out)"
! grep -q INCOMPARABLE last.out || fail "$(cat last.out)"

# Interrupted: nothing is decided, and no worker is left. The words of the comparison before must
# not be taken for this one's.
rm -f last.err
"$FLOWBENCH" compare --ab "$FLOWBENCH" "$FLOWBENCH" real.yaml --set measure.samples=500 \
    > last.out 2> last.err &
RUN_PID=$!
tries=0
until grep -q screening last.err 2> /dev/null; do
    kill -0 $RUN_PID 2> /dev/null || fail "it ended before screening"
    tries=$((tries + 1))
    [ $tries -lt 600 ] || fail "it does not come to screening"
    sleep 0.05
done
kill -INT $RUN_PID
wait $RUN_PID
code=$?
RUN_PID=
[ $code -eq 130 ] || fail "interrupted: exit $code"
expect_words 'interrupted by SIGINT; nothing is decided'
[ ! -s last.out ] || fail "verdicts after an interrupt"
expect_no_workers
exit 0
