#!/bin/sh
# External programs: whatever one does costs its own row, and none outlives the run.
# $1: flowbench, $2: the fake program.
. "$(dirname "$0")/../faults/faults_common.sh"
FAKE=$2

# $1: variants, $2: the program, $3: more of the mechanism's map, $4: the time-out.
write_external() {
    cat > external.yaml <<END
suite: external
kind: kernel
defaults: {batch: 1, heads: 2, head_dim: 16, threads: 1}
sweep:
  mechanism: [{name: external, computes: softmax, program: $2, variant: [$1]${3:-}}]
  seq_len: [24]
measure: {warmup: 1 ms, min_samples: 3, max_time: 20 ms}
limits: {case_timeout: ${4:-30 s}, memory: 50 %}
END
}

# The cell of column $1 in the row of variant $2.
cell() {
    awk -F, -v column="$1" -v variant="$2" '
        NR == 1 { for (i = 1; i <= NF; i++) if ($i == column) at = i; next }
        $6 == variant { print $at }' run/results.csv
}

expect_row() {
    [ "$(cell status "$1")" = "$2" ] || fail "$1 is '$(cell status "$1")' instead of $2"
    grep ",softmax,$1," run/results.csv | grep -q -e "$3" || fail "the row of $1 lacks '$3'"
}

# A program that behaves is measured like a kernel of our own, in both layouts, causal or not.
write_external fake-ok "$FAKE"
sed -i 's/^  seq_len: .*/&\n  causal: [false, true]\n  layout: [BHND, BNHD]/' external.yaml
expect_exit 0 run external.yaml --out run
expect_complete run 4
[ "$(cell status fake-ok | sort -u)" = ok ] || fail "fake-ok: $(cell status fake-ok)"
[ "$(cell program_version fake-ok | sort -u)" = 'fake 1.0' ] || fail "no version"
for column in time_median_s floor_ratio err_rel err_budget mem_peak_bytes output_hash samples; do
    [ "$(cell $column fake-ok | grep -c .)" -eq 4 ] || fail "fake-ok has no $column"
done
[ -z "$(cell mem_workspace_bytes fake-ok | tr -d '\n')" ] || fail "the workspace is its own affair"
grep -q 'softmax/fake-ok' last.out || fail "the summary does not name it"
expect_exit 0 repro run/results.csv:1
expect_exit 2 run external.yaml --list --filter variant=fake-okay
expect_words "did you mean 'fake-ok'"
expect_exit 0 run external.yaml --list --filter variant=fake-ok,causal=true
[ "$(wc -l < last.out)" -eq 2 ] || fail "--filter by an external variant"
rm -rf run

# Each misbehaviour is one row.
write_external 'fake-ok, fake-crash, fake-exit, fake-garbage, fake-error, fake-skip,
    fake-oom, fake-slow-clock, fake-wrong, fake-nan, fake-shape, fake-unwritten, fake-device' "$FAKE"
expect_exit 3 run external.yaml --out run
expect_complete run 13
expect_row fake-ok ok 'fake 1.0'
expect_row fake-crash crash 'killed by signal 11'
expect_row fake-exit error 'exit code 7'
expect_row fake-garbage error 'Traceback'
expect_row fake-error error 'the fake has failed on two lines'
expect_row fake-skip skipped 'does not serve it'
expect_row fake-oom oom 'no memory for the fake'
expect_row fake-slow-clock error 'the program claims 1e+06 s'
expect_row fake-device error 'device: cpu does not have'
expect_row fake-wrong wrong ''
expect_row fake-nan wrong 'NaN or infinite'
expect_row fake-shape error 'does not have the shape'
expect_row fake-unwritten wrong 'never written'
! tr -d '\n' < run/results.csv | grep -q '[[:cntrl:]]' || fail "control characters in the rows"
[ -z "$(cell time_median_s fake-wrong)" ] || fail "a wrong answer got a time"
rm -rf run

# One that hangs is killed.
write_external fake-hang "$FAKE" '' '2 s'
expect_exit 0 run external.yaml --out run
expect_row fake-hang timeout 'not done after 2 s'
rm -rf run

# What is not here is skipped, and no failure.
write_external fake-ok ./absent.py
expect_exit 0 run external.yaml --out run
expect_row fake-ok skipped "'./absent.py' cannot be read"
rm -rf run
printf 'import sys\n' > quits.py
write_external fake-ok ./quits.py
FLOWBENCH_PYTHON=/no/such/python expect_exit 0 run external.yaml --out run
expect_row fake-ok skipped 'FLOWBENCH_PYTHON'
rm -rf run
printf '#!/bin/sh\nread -r request\necho "{\\"protocol\\": 2, \\"version\\": \\"new\\"}"\n' > new
chmod +x new
write_external fake-ok ./new
expect_exit 3 run external.yaml --out run
expect_row fake-ok error 'speaks protocol 2'
rm -rf run

# On a GPU a program tells two times and its memory; where there is none, its rows say so.
write_external 'fake-ok, fake-no-clock' "$FAKE"
sed -i 's/threads: 1}/device: cuda}/' external.yaml
printf 'hardware: [{device: cuda, optional: true}]\n' >> external.yaml
if "$FLOWBENCH" info | grep -q multiprocessors; then
    expect_exit 3 run external.yaml --out run
    expect_row fake-ok ok 'fake 1.0'
    expect_row fake-no-clock error 'tells no device_time_s'
    for column in time_median_s time_host_median_s floor_s err_rel; do
        [ -n "$(cell $column fake-ok)" ] || fail "fake-ok on a GPU has no $column"
    done
    [ "$(cell mem_peak_bytes fake-ok)" = 4096 ] || fail "its memory is not what it says"
else
    expect_exit 0 run external.yaml --out run
    expect_row fake-ok skipped 'no CUDA device'
fi
rm -rf run

# What the protocol has no words for is skipped before anything starts.
write_external fake-ok "$FAKE"
expect_exit 0 run external.yaml --set defaults.lengths=random --set defaults.isa=scalar --out run
expect_row fake-ok skipped 'chooses its instructions itself'
rm -rf run

# A suite that is wrong is refused.
write_external fake-ok torhc
expect_exit 2 run external.yaml --list
expect_words "no adapter 'torhc' comes with flowbench"
write_external 'Fake Ok' "$FAKE"
expect_exit 2 run external.yaml --list
expect_words 'a name of a to z'
write_external tiled "$FAKE"
expect_exit 2 run external.yaml --list
expect_words "'tiled' is a variant of flowbench's own"
write_external fake-ok "$FAKE" ', windows: 3'
expect_exit 2 run external.yaml --list
expect_words "unknown key 'windows'"
sed -i 's/computes: softmax, //' external.yaml
expect_exit 2 run external.yaml --list
expect_words 'needs computes, program and variant'

# Nothing that was started is left.
for process in /proc/[0-9]*; do
    grep -qaz -x "$FAKE" "$process/cmdline" 2>/dev/null || continue
    ! grep -qaz "FB_FAULT_TAG=$TAG" "$process/environ" 2>/dev/null || fail "$process is left"
done
