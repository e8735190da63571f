#!/bin/sh
# flowbench run: options, exit codes, what goes to stdout and what to stderr.
. "$(dirname "$0")/../faults/faults_common.sh"
write_suite '[8, 16]'

# Looking leaves nothing behind.
expect_exit 0 run suite.yaml --list
[ "$(wc -l < last.out)" -eq 4 ] || fail "--list does not list the 4 cases"
[ ! -s last.err ] || fail "--list writes to stderr"
expect_exit 0 run suite.yaml --list --filter 'mechanism=flow,seq_len<=8'
[ "$(wc -l < last.out)" -eq 1 ] || fail "--filter lets other cases through"
expect_exit 0 run suite.yaml --dry-run
grep -q 'per call' last.out || fail "--dry-run predicts no time"
grep -q 'suite faulty: 4 cases run' last.out || fail "--dry-run has no total"
[ ! -e results ] || fail "looking made a folder"

# What is wrong is refused before anything runs.
expect_exit 2 run
expect_exit 2 run absent.yaml
expect_exit 2 run suite.yaml absent.yaml
expect_exit 2 run suite.yaml --no-such-option
expect_exit 2 run suite.yaml --color sometimes
expect_words 'auto, always, never'
for budget in 5 0s -1m nan 5x 1m30; do
    expect_exit 2 run suite.yaml --budget "$budget"
    expect_words 'is not a time such as'
done
expect_exit 2 run suite.yaml suite.yaml --out both
expect_exit 2 run suite.yaml --filter 'seq_len>1000'
expect_exit 2 run suite.yaml --set measure.cache=lukewarm
expect_exit 2 run suite.yaml --resume nowhere
(exec 3>&- && expect_exit 2 worker) || exit 1
[ ! -e results ] && [ ! -e both ] || fail "a refusal made a folder"

# A run: the table on stdout, progress on stderr without control characters.
expect_exit 0 run suite.yaml
folder=$(echo results/faulty/*)
echo "$folder" | grep -Eq '^results/faulty/[0-9]{8}T[0-9]{6}Z-[a-z0-9-]+$' || fail "folder $folder"
expect_complete "$folder" 4
for file in results.csv samples.csv run.json; do
    [ -s "$folder/$file" ] || fail "no $file"
done
grep -q "results: $folder/results.csv" last.out || fail "stdout does not name the results"
[ "$(grep -c '^\[[1-4]/4\] ' last.err)" -eq 4 ] || fail "not one line per case"
! tr -d '\n' < last.err | grep -q '[[:cntrl:]]' || fail "control characters in the progress"
[ "$(cut -d, -f2 "$folder/results.csv" | tail -n +2 | sort -u)" = "$(basename "$folder")" ] ||
    fail "the column run is not the folder's name"

# Threads are bound one to a core, unless the user binds them.
grep -q '"policy": "compact"' "$folder/run.json" || fail "run.json says nothing of pinning"
OMP_PROC_BIND=spread expect_exit 0 run suite.yaml --quiet --out bound
grep -q '"variable": "OMP_PROC_BIND=spread"' bound/run.json || fail "the user's choice is lost"
expect_complete bound 4

# Quiet is quiet when all is well.
expect_exit 0 run suite.yaml --quiet --out quiet
[ ! -s last.out ] || fail "--quiet writes to stdout"
! grep -v 'warning:' last.err | grep -q . || fail "--quiet writes to stderr"

# What the budget leaves over is recorded, costs no exit code and is not done later.
expect_exit 0 run suite.yaml --budget 1ms --out budget
[ "$(grep -c ',skipped,left over by --budget' budget/results.csv)" -eq 4 ] || fail "left-over rows"
expect_exit 0 run --resume budget
expect_words 'nothing is left to do'

# Two suites, one after the other; the worse exit code counts.
sed 's/^suite: faulty/suite: second/' suite.yaml > second.yaml
expect_exit 0 run suite.yaml second.yaml --filter 'seq_len=8,mechanism=flow'
[ "$(rows results/second/*)" -eq 1 ] || fail "the second suite did not run"
cat >> second.yaml <<EOF
expect:
  - {mechanism: flow, metric: floor_ratio, at_most: 0.000001}
EOF
sed -i 's/min_samples: 6,/min_samples: 6, processes: 5,/' second.yaml
expect_exit 3 run second.yaml suite.yaml --filter 'seq_len=8,mechanism=flow'
