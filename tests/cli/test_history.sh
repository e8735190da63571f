#!/bin/sh
# flowbench history: from runs to a verdict, every action with the program.
made=$(cd "$(dirname "$0")" && pwd)/make_history.awk
. "$(dirname "$0")/../faults/faults_common.sh"

make_csv() {
    out=$1
    shift
    awk "$@" -f "$made" >"$out" || fail "awk"
}

expect_out() {
    grep -q -e "$1" last.out || {
        cat last.out >&2
        fail "stdout lacks '$1'"
    }
}

# ---- real runs ----------------------------------------------------------------------------------
cat >suite.yaml <<EOF
suite: kept
kind: kernel
defaults: {batch: 1, heads: 2, head_dim: 16, seq_len: 64}
sweep: {mechanism: [flow, linear]}
hardware: [{device: cpu, threads: 1}]
measure: {warmup: 1 ms, precision: 50 %, min_samples: 6, max_time: 50 ms}
EOF
expect_exit 0 run suite.yaml --quiet --out run
expect_exit 0 history add run
expect_out '^added .*: 2 rows$'
[ -f results/history.sqlite ] || fail "no results/history.sqlite"
expect_exit 0 history add run run/results.csv
expect_out '^known already: .*: 2 rows$'
expect_exit 0 history export
[ "$(wc -l <last.out)" -eq 3 ] || fail "the same run twice is not one"
expect_out ',flow,fused,cpu,'
expect_out '"\[""flowbench run"",.*""suite.yaml""\]"'
# A gate on the first run of a machine has nothing to say, and says so.
expect_exit 0 history check
expect_out '^INCOMPARABLE  flow/fused .* no earlier run of this case on this machine'
expect_words 'the first run of this machine'
expect_exit 4 history check --strict
expect_exit 0 history show
expect_out '^flow/fused'

# What cannot be kept is refused with the reason, and does not keep out the others.
cp -r run unfinished
sed -i 's/"state": "finished"/"state": "interrupted"/' unfinished/run.json
cp -r run other
sed -i '2s/,ok,,[^,]*,/,ok,,0.5,/' other/results.csv
mkdir bare && cp run/results.csv bare
cp -r run second
id=$(sed -n 's/^  "run": "\(.*\)",$/\1/p' run/run.json)
sed -i "s/$id/second-run/" second/run.json second/results.csv
expect_exit 2 history add unfinished second bare nowhere other
expect_words 'not finished (interrupted): .flowbench run --resume unfinished. finishes it'
expect_words "'bare' is not the folder of a run"
expect_words "'nowhere' is not the folder of a run"
expect_words 'with other content: stored runs do not change'
expect_out '^added second-run: 2 rows$'

# ---- CSV: an export of an import is the same file -----------------------------------------------
expect_exit 0 history export -o one.csv
expect_exit 0 history import one.csv --db copy.sqlite
expect_out '^2 runs added, 0 known already$'
expect_exit 0 history export --db copy.sqlite -o two.csv
cmp -s one.csv two.csv || fail "an export of an import differs"

# ---- verdicts ------------------------------------------------------------------------------------
make_csv flat.csv -v runs=60 -v kind=flat
expect_exit 0 history import flat.csv --db flat.sqlite
expect_exit 0 history check --db flat.sqlite
expect_out '^2 PASS$'
expect_exit 0 history check --db flat.sqlite --strict

make_csv step.csv -v runs=60 -v kind=step
expect_exit 0 history import step.csv --db step.sqlite
expect_exit 3 history check --db step.sqlite
expect_out '^FAIL     flow/fused N 256 '
expect_out '^PASS     flow/fused N 512 '
commit=$(printf '%06xabc' 1030) before=$(printf '%06xabc' 1029)
expect_out "^  +1[3-7]\.[0-9] % at $commit (after $before)$"
expect_exit 3 history check --db step.sqlite --format json
expect_out '"verdict": "FAIL"'
expect_out "\"git_sha\": \"$commit\""
expect_exit 3 history check --db step.sqlite --format csv
expect_out '^FAIL,case0,flow/fused N 256,time,'
# Accepted by saying from where on it counts, or forgotten with the window.
expect_exit 0 history check --db step.sqlite --since "$commit"
expect_exit 0 history check --db step.sqlite --window 20
expect_exit 0 history check --db step.sqlite --filter 'seq_len=512'
expect_exit 0 history check --db step.sqlite --case case1

make_csv drift.csv -v runs=120 -v kind=drift -v percent=20
expect_exit 0 history import drift.csv --db drift.sqlite
expect_exit 3 history check --db drift.sqlite

make_csv late.csv -v runs=40 -v kind=late -v percent=20
expect_exit 0 history import late.csv --db late.sqlite
expect_exit 3 history check --db late.sqlite
expect_out 'in the newest run'
expect_out "^  .* at $(printf '%06xabc' 1039)"

# Another machine is never compared with: its first run is that, however slow.
make_csv slow.csv -v runs=1 -v from=61 -v kind=late -v percent=300 -v machine=m2
expect_exit 0 history import slow.csv --db flat.sqlite
expect_exit 0 history check --db flat.sqlite
expect_words 'the first run of this machine'
expect_exit 0 history check --db flat.sqlite --machine box-m1
expect_out '^2 PASS$'

# Wrong, crashed and hungrier fail whatever the time; zero and absent times are no PASS.
newest() { # $1: what happens to the newest run's case0
    awk -F, -v OFS=, "NR > 1 && \$2 == \"r00059\" && \$9 == \"case0\" { $1 } { print }" \
        flat.csv >edited.csv
    rm -f edited.sqlite
    expect_exit 0 history import edited.csv --db edited.sqlite
}
newest '$13 = "wrong"'
expect_exit 3 history check --db edited.sqlite
expect_out '^FAIL  .*wrong'
newest '$13 = "crash"'
expect_exit 3 history check --db edited.sqlite
newest '$17 = 5000'
expect_exit 3 history check --db edited.sqlite
expect_out 'mem_workspace_bytes grew from 4096 to 5000'
newest '$18 = 9000'
expect_exit 3 history check --db edited.sqlite
expect_out 'memory: +9.9 %'
for time in 0 -1 '""' '"nan"'; do
    newest "\$14 = $time; \$15 = $time; \$16 = $time"
    expect_exit 0 history check --db edited.sqlite
    expect_out '^INCOMPARABLE .* time'
    expect_exit 4 history check --db edited.sqlite --strict
done
newest '$13 = "skipped"'
expect_exit 0 history check --db edited.sqlite
expect_out '^INCOMPARABLE .*skipped'
# Counted instead of timed: instructions decide, from 1 % on; another toolchain counts something else.
count_csv() { # $1: of the newest run  $2: its toolchain
    awk -F, -v OFS=, -v last="$1" -v tools="$2" 'NR == 1 { print $0, "instructions,counter,toolchain" }
        NR > 1 { $14 = $15 = $16 = ""
                 now = $2 == "r00059"
                 print $0, now ? last : 1000000, "valgrind", now ? tools : "gcc" }' flat.csv >edited.csv
    rm -f edited.sqlite
    expect_exit 0 history import edited.csv --db edited.sqlite
}
count_csv 1000000 gcc
expect_exit 0 history check --db edited.sqlite --strict
expect_out '^2 PASS$'
count_csv 1015000 gcc
expect_exit 3 history check --db edited.sqlite
expect_out '^FAIL .* 1.015 M .* 1 M .* +1.5 %'
expect_exit 0 history show --db edited.sqlite --metric instructions
count_csv 1015000 clang
expect_exit 3 history check --db edited.sqlite
expect_out '^INCOMPARABLE .* no earlier run measured it in the same way'
# A case that is missing, and a run in which everything is skipped.
grep -v '^1,r00059,.*,case0,' flat.csv >edited.csv
rm -f edited.sqlite
expect_exit 0 history import edited.csv --db edited.sqlite
expect_exit 0 history check --db edited.sqlite
expect_out 'INCOMPARABLE .*not in the newest run'
sed '/^1,r00059,/s/,ok,/,skipped,/' flat.csv >edited.csv
rm -f edited.sqlite
expect_exit 0 history import edited.csv --db edited.sqlite
expect_exit 3 history check --db edited.sqlite
expect_words 'the newest run measured nothing'

# ---- show ----------------------------------------------------------------------------------------
LC_ALL=C.UTF-8 "$FLOWBENCH" history show --db step.sqlite >last.out || fail "show"
expect_out '▁.*█'
LC_ALL=C "$FLOWBENCH" history show --db step.sqlite >last.out || fail "show"
! LC_ALL=C grep -q '[^ -~]' last.out || fail "not ASCII in the C locale"
expect_out "at $commit (after $before)"
expect_exit 0 history show --db step.sqlite --format csv
[ "$(grep -c '^m1,box-m1,case0,' last.out)" -eq 60 ] || fail "not a line per point"
[ "$(awk -F, 'NR > 1 && $16 != ""' last.out | wc -l)" -eq 1 ] || fail "not one change"
expect_exit 0 history show --db step.sqlite --format json --metric memory
expect_out '"metric": "memory"'
if command -v gnuplot >/dev/null; then
    for picture in trend.svg trend.png; do
        expect_exit 0 history show --db step.sqlite --plot $picture
        [ -s $picture ] || fail "no $picture"
    done
    grep -q "$commit" trend.svg || fail "the picture does not name the commit"
    expect_exit 1 history show --db step.sqlite --plot /proc/no/trend.svg
fi

# ---- the command line ----------------------------------------------------------------------------
expect_exit 2 history
expect_words 'what shall be done'
expect_exit 2 history shwo
expect_words "did you mean 'show'?"
expect_exit 2 history add
expect_exit 2 history import
expect_exit 2 history show extra
expect_exit 2 history show --strict
expect_words 'strict has no meaning for show'
expect_exit 2 history check --plot x.svg
expect_exit 2 history add run -o x.csv
expect_exit 2 history show --plot trend.pdf
expect_exit 2 history check --window 3
expect_exit 2 history show --metric speed
expect_exit 2 history show --db step.sqlite --filter 'seqlen=4'
expect_words "did you mean 'seq_len'?"
expect_exit 2 history show --db step.sqlite --filter 'mechanism<flow'
expect_exit 2 history show --db step.sqlite --filter 'seq_len='
expect_exit 2 history show --db step.sqlite --filter 'mechanism=softmax'
expect_words 'holds no row that is asked for'
expect_exit 2 history check --db step.sqlite --since ffffff
expect_words 'no run of such a commit'
expect_exit 2 history check --db step.sqlite --machine m9
expect_words 'no run of such a machine'
expect_exit 2 history show --db nowhere.sqlite
expect_words 'there is no history'
[ ! -e nowhere.sqlite ] || fail "a file was made by looking at it"
echo "history: all checks passed"
