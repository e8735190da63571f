#!/bin/sh
# flowbench repro: rows that agree, rows that do not, rows that cannot be measured.
. "$(dirname "$0")/../faults/faults_common.sh"
export TMPDIR=$WORK/tmp
mkdir "$TMPDIR"
cat >suite.yaml <<EOF
suite: repeated
kind: kernel
defaults: {batch: 1, heads: 2, head_dim: 16, seq_len: 64, causal: true}
sweep:
  mechanism: [flow, {name: performer, features: 32}, {name: local, window: 8}, linear]
hardware: [{device: cpu, threads: 1}]
measure: {warmup: 1 ms, precision: 50 %, min_samples: 6, max_time: 100 ms, processes: 2}
EOF
expect_exit 0 run suite.yaml --quiet --out run

# $1: what the table on stdout has to hold.
expect_table() {
    grep -q -e "$1" last.out || {
        cat last.out >&2
        fail "stdout lacks '$1'"
    }
}

# Every row agrees, bit for bit, by its number and by its case.
for row in 1 2 3 4; do
    expect_exit 0 repro run:$row
    expect_table '^agrees: the output is the same, bit for bit'
    expect_table '^  output_hash .* equal$'
    expect_table "(row $row, case_id $(sed -n "$((row + 1))p" run/results.csv | cut -d, -f4))"
done
id=$(sed -n 3p run/results.csv | cut -d, -f4)
expect_exit 0 repro "run/results.csv:case_id=$id"
expect_table '(row 2, '
expect_table '^  time .* ratio [0-9.]* \[[0-9.]*, [0-9.]*\], intervals'
expect_table '^  machine .* same kind$'
expect_table '^  workspace .* equal$'

# Another output: the same machine and build have no excuse.
cp -r run other
expect_exit 0 repro run:1
hash=$(sed -n 's/^  output_hash *\([0-9a-f]*\) .*/\1/p' last.out)
[ ${#hash} -eq 16 ] || fail "'$hash' is no hash"
sed -i "2s/,$hash/,0123456789abcdef/" other/results.csv
cp other/results.csv changed.csv
expect_exit 3 repro other:1
expect_table '^differs: the same machine and build gave another output'
# Another compiler has one, and so has another machine.
sed 's/"compiler": "/"compiler": "other /' run/run.json >other/run.json
expect_exit 0 repro other:1
expect_table '^agrees: the output has other bits, as may be (compiler), and its error is within'
sed 's/"identity": "[0-9a-f]*"/"identity": "0"/' run/run.json >other/run.json
expect_exit 0 repro other:1
expect_table '^  machine .* another machine$'
expect_table 'two machines'
expect_table 'as may be (machine)'
# A results.csv that stands alone.
expect_exit 0 repro changed.csv:2
expect_words 'there is no .*run.json.: measured with the settings that a suite has by default'
expect_table '^agrees: the output is the same'
expect_exit 0 repro changed.csv:1
expect_table 'as may be (unknown origin of the row)'

# Times never decide. Median and interval stand after the empty reason.
cp run/run.json other/run.json
sed '2s/,ok,,[^,]*,[^,]*,[^,]*,/,ok,,1e-9,1e-9,1e-9,/' run/results.csv >other/results.csv
expect_exit 0 repro other:1
expect_table 'intervals lie apart'

# A row that failed: what it lacks cannot be compared, a crash that is gone is another result.
sed '2s/,ok,,/,timeout,it took long,/' run/results.csv >other/results.csv
expect_exit 0 repro other:1
expect_table '^agrees: the row has no result (timeout) to compare with'
sed '2s/,ok,,/,crash,signal 11,/' run/results.csv >other/results.csv
expect_exit 3 repro other:1
expect_table '^differs: the outcome is ok, was crash'
sed '2s/,ok,,/,skipped,left over by --budget 1 s,/' run/results.csv >other/results.csv
expect_exit 2 repro other:1
expect_words 'row 1 was skipped (left over by --budget 1 s): there is no result to repeat'

# What names no row, or none that can be trusted.
expect_exit 2 repro
expect_words 'which row'
expect_exit 2 repro run
expect_words 'Write run:3 for its third row'
for row in 0 5 -1 1x '' ' 1' 99999999999999999999; do
    expect_exit 2 repro "run:$row"
done
expect_exit 2 repro run:case_id=ffff
expect_words 'no row with case_id ffff'
expect_exit 2 repro run:1 run:2
expect_exit 2 repro nowhere:1
expect_words "cannot read 'nowhere'"
expect_exit 2 repro suite.yaml:1
(cat run/results.csv && sed -n 2p run/results.csv) >twice.csv
expect_exit 2 repro "twice.csv:case_id=$(sed -n 2p run/results.csv | cut -d, -f4)"
expect_words 'name one by its number'
sed '2s/,cpu,/,cuda,/' run/results.csv >other/results.csv
expect_exit 2 repro other:1
sed '2s/,64,64,/,64,63,/' run/results.csv >other/results.csv
expect_exit 2 repro other:1
expect_words 'has the factors of case'
cp run/results.csv other/results.csv
echo '{' >other/run.json
expect_exit 2 repro other:1
expect_words 'run.json'

# Interrupted, it compares nothing and leaves nothing.
sed 's/max_time: 100 ms/max_time: 60 s/; s/min_samples: 6/min_samples: 1000000/' run/run.json \
    >other/run.json
! cmp -s run/run.json other/run.json || fail "run.json spells its settings in another way"
"$FLOWBENCH" repro other:1 >last.out 2>last.err &
RUN_PID=$!
sleep 1
kill -TERM $RUN_PID
sleep 0.2
kill -TERM $RUN_PID 2>/dev/null
wait $RUN_PID
code=$?
RUN_PID=
[ $code -eq 143 ] || fail "SIGTERM: exit $code instead of 143"
[ ! -s last.out ] || fail "an interrupted comparison prints a table"
[ -z "$(ls "$TMPDIR")" ] || fail "folders stayed: $(ls "$TMPDIR")"
expect_no_workers
echo "repro: fine"
