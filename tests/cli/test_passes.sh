#!/bin/sh
# flowbench run: passes, decoding, grouped queries and padding from the suite to results.csv; what
# --strict does with a claim that stays ambiguous.
. "$(dirname "$0")/../faults/faults_common.sh"
write_suite '[16, 32]'

# The cell of the first row that has $2 in the column $1: column $3 of the file $4.
cell() {
    awk -F, -v key="$1" -v value="$2" -v wanted="$3" '
        NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
        { gsub(/"[^"]*"/, "quoted") }
        $at[key] == value { print $at[wanted]; exit }' "$4"
}

# expect_cell KEY VALUE COLUMN WANTED FILE
expect_cell() {
    found=$(cell "$1" "$2" "$3" "$5")
    [ "$found" = "$4" ] || fail "$3 of the row with $1 $2 is '$found' instead of '$4'"
}

# Gradients: right, saved, and larger in every way than forward alone.
expect_exit 0 run suite.yaml --filter mechanism=flow --set sweep.seq_len=32 \
    --set 'sweep.pass=[forward, backward, both]' --out passes
expect_complete passes 3
for pass in forward backward both; do
    expect_cell pass $pass status ok passes/results.csv
    [ -n "$(cell pass $pass output_hash passes/results.csv)" ] || fail "$pass has no output_hash"
done
expect_cell pass forward mem_saved_bytes 0 passes/results.csv
[ "$(cell pass both mem_saved_bytes passes/results.csv)" -gt 0 ] || fail "both saves nothing"
[ -n "$(cell pass backward err_rel passes/results.csv)" ] || fail "gradients are not judged"
grep -q 'both' last.out || fail "the table does not tell passes apart"

# Grouped queries and padding.
expect_exit 0 run suite.yaml --filter mechanism=flow --set sweep.seq_len=32 --set defaults.heads=4 \
    --set 'sweep.kv_heads=[4, 2]' --set 'sweep.lengths=[full, random]' --set defaults.batch=3 \
    --out factors
expect_complete factors 4
expect_cell kv_heads 2 status ok factors/results.csv
expect_cell lengths random status ok factors/results.csv
expect_exit 0 run suite.yaml --list --set defaults.heads=4 --set sweep.kv_heads=2
grep -q 'H4/2' last.out || fail "--list does not show kv_heads"
expect_exit 2 run suite.yaml --list --set sweep.kv_heads=3
expect_words 'does not divide heads'

# Decoding: the state of flow does not grow.
expect_exit 0 run suite.yaml --filter mechanism=flow --set kind=decode --out decode
expect_complete decode 2
expect_cell seq_len 16 status ok decode/results.csv
expect_cell seq_len 16 pass decode decode/results.csv
[ "$(cell seq_len 16 mem_state_bytes decode/results.csv)" -gt 0 ] || fail "no state"
expect_cell seq_len 32 mem_state_bytes "$(cell seq_len 16 mem_state_bytes decode/results.csv)" \
    decode/results.csv
expect_exit 2 run suite.yaml --list --set kind=decode --set defaults.pass=forward
expect_words 'has the one pass decode'

# An exponent of two sizes cannot be judged: ambiguous, which only --strict minds.
cat >> suite.yaml <<EOF
expect:
  - {mechanism: flow, pass: forward, metric: time_exponent, is: 1.0 +- 0.1}
EOF
set -- run suite.yaml --filter mechanism=flow --set measure.processes=5
expect_exit 0 "$@"
grep -Eq '^ambiguous: flow/fused [a-z0-9]+ x[0-9]+ f32 d [0-9]+ forward: time_exponent' last.out || fail "the claim is not shown"
expect_exit 4 "$@" --strict
# With fewer processes it is reported only; of another pass it is not judged at all.
expect_exit 0 run suite.yaml --filter mechanism=flow --strict
expect_exit 0 "$@" --set defaults.pass=both --strict
grep -q '^reported only: flow: time_exponent.*nothing measured matches' last.out ||
    fail "a claim about forward was judged by both"
# A claim that failed outweighs one that is ambiguous.
echo '  - {mechanism: flow, metric: time_growth, at_least: 1e9}' >> suite.yaml
expect_exit 3 "$@" --strict
