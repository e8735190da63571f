#!/bin/sh
# A training suite from the command line: rows, curves and tables; a recorded skip without data; a
# run that is killed and one that is interrupted end with the same bits as one that was left alone.
#   sh tests/cli/test_training.sh FLOWBENCH
set -u
flowbench=$1
here=$(mktemp -d) || exit 1
trap 'rm -rf "$here"' EXIT
cd "$here" || exit 1
unset FLOWBENCH_DATA
fails=0

fail() {
    printf 'FAIL: %s\n' "$1"
    fails=$((fails + 1))
}
code() { # code WANTED COMMAND...: runs it with stdout in out and stderr in err
    wanted=$1
    shift
    "$@" >out 2>err
    got=$?
    [ "$got" -eq "$wanted" ] || {
        fail "exit $got, not $wanted: $*"
        cat out err
    }
}
has() { # has FILE PATTERN
    grep -q -- "$2" "$1" || {
        fail "'$2' is not in $1:"
        cat "$1"
    }
}

suite() { # suite STEPS: a tiny one on the adder
    cat <<YAML
suite: tiny
kind: training
defaults: {model: small, threads: 1, steps: $1}
sweep:
  task: [{name: adder, digits: 1}]
  mechanism: [flow, linear]
  seed: [3]
training: {checkpoint: 10 ms}
YAML
}

# ---- rows, curves, tables ---------------------------------------------------------------------
suite 40 >tiny.yaml
code 0 "$flowbench" run tiny.yaml --list
has out 'adder digits=1 same small flow/fused .* seed 3, 40 steps'
code 0 "$flowbench" run tiny.yaml --dry-run
has out ' 40 steps '
code 0 "$flowbench" run tiny.yaml --out whole
has out '^flow/fused  *1 '
has out 'flow/fused against linear/fused'
[ "$(wc -l <whole/accuracy.csv)" -eq 3 ] || fail "two rows in accuracy.csv"
has whole/accuracy.csv ',ok,,accuracy,'
has whole/curves.csv '^[0-9a-f]*,0,40,'
has whole/correct.csv '^[0-9a-f]*,[01]*$'
has whole/accuracy.md '^| flow/fused | 1 '
[ ! -d whole/checkpoints ] || fail "checkpoints of finished cases are left"
code 0 "$flowbench" run --resume whole
has err 'is finished: nothing is left to do'

# ---- a run that an older version began ---------------------------------------------------------
# Its rows lack the columns that came since; they are kept, and the missing case is run.
cp -r whole older
sed 's/,[^,]*,[^,]*$//' whole/accuracy.csv | sed '$d' >older/accuracy.csv
has older/accuracy.csv ',paper_protocol$'
code 0 "$flowbench" run --resume older
sed 1q whole/accuracy.csv >header.txt
sed 1q older/accuracy.csv | cmp -s - header.txt || fail "the older table has not got its columns"
[ "$(wc -l <older/accuracy.csv)" -eq 3 ] || fail "two rows in the older table"
has older/accuracy.csv ',,$'
has older/accuracy.csv ',64,3$'
[ ! -e older/accuracy.csv.new ] || fail "a file is left beside the older table"

cp whole/accuracy.md before.md
code 0 "$flowbench" plot whole
sed 1d before.md >before.txt
sed 1d whole/accuracy.md | cmp -s - before.txt || fail "plot gives another table than the run"
code 0 "$flowbench" report whole
has whole/report.html 'Ours beside the paper'
has whole/report.html 'flow/fused against linear/fused'
if command -v gnuplot >/dev/null; then
    [ -s whole/plots/learning_curves_1.svg ] || fail "no learning curve"
    has whole/report.html 'Learning curves'
fi
code 2 "$flowbench" report whole nothing
code 2 "$flowbench" compare --ab "$flowbench" "$flowbench" tiny.yaml
has err 'is a suite of kind: training'

# ---- times alone -------------------------------------------------------------------------------
cat >speed.yaml <<YAML
suite: speed
kind: training
defaults: {model: small, threads: 1, steps: 3, batch_size: 2}
sweep:
  task: [{name: bytes, length: 40, examples: 8}, {name: bytes, length: 80, examples: 8}]
  mechanism: [flow, softmax]
  seed: [1, 2]
plots: [steps_per_s_vs_tokens]
YAML
code 0 "$flowbench" run speed.yaml --out speed
has out 'bytes, recipe same, small model, 3 steps, batches of 2, cpu f32'
has out '^mechanism  *40 tokens  *80 tokens'
has out '^softmax/tiled  *[0-9.]* ([0-9.]* to [0-9.]*)'
if grep -q 'verdict' out; then fail "a table of accuracies of random bytes"; fi
has speed/accuracy.md '^| flow/fused | [0-9.]* ([0-9.]* to [0-9.]*) | '
[ "$(grep -c ',2,[48]0$' speed/accuracy.csv)" -eq 8 ] || fail "batch and tokens of eight rows"
code 0 "$flowbench" report speed
has speed/report.html 'Training steps per second'
if command -v gnuplot >/dev/null; then
    [ -s speed/plots/steps_per_s_vs_tokens_1.svg ] || fail "no picture of the speed"
    [ ! -e speed/plots/steps_per_s_vs_tokens_2.svg ] || fail "two pictures of one set"
fi

# The first length may have no result: the picture is made of the others.
cp -r speed first
sed 's/,ok,,\(.*\),2,40$/,crash,,\1,2,/' speed/accuracy.csv >first/accuracy.csv
[ "$(grep -c ',crash,' first/accuracy.csv)" -eq 4 ] || fail "four rows without a result"
code 0 "$flowbench" plot first
has out '^mechanism  *80 tokens'
code 0 "$flowbench" report first

# What the curves hold without times is what two runs share.
stable() {
    cut -d, -f1-7 "$1/curves.csv" | sort
    sort "$1/correct.csv"
}

# ---- side by side ------------------------------------------------------------------------------
sed 's/checkpoint: 10 ms/parallel: 2/' tiny.yaml >pair.yaml
code 0 "$flowbench" run pair.yaml --out pair
stable whole >whole.txt
stable pair | cmp -s - whole.txt || fail "two cases at once give other bits than one after the other"
sed 's/checkpoint: 10 ms/parallel: 65/' tiny.yaml >many.yaml
code 2 "$flowbench" run many.yaml
has err 'training.parallel must be 1 to 64, not 65'

# ---- killed and interrupted -------------------------------------------------------------------
# A run of the same cases, ended by SIGNAL once a checkpoint is there, then resumed.
ended() { # ended SIGNAL DIR
    "$flowbench" run long.yaml --out "$2" >out 2>err &
    run=$!
    tries=0
    while [ -z "$(ls "$2/checkpoints" 2>/dev/null)" ] && [ $tries -lt 600 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
    kill -s "$1" "$run"
    wait "$run"
    ended_with=$?
}
suite 600 >long.yaml
code 0 "$flowbench" run long.yaml --out alone
ended KILL killed
[ "$(wc -l <killed/accuracy.csv)" -lt 3 ] || fail "the run was over before it was killed"
code 0 "$flowbench" run --resume killed
ended TERM told
[ "$ended_with" -eq 143 ] || fail "exit $ended_with, not 143, after SIGTERM"
has err 'continue with: ./bench run --resume told'
code 0 "$flowbench" run --resume told
stable alone >alone.txt
for dir in killed told; do
    stable "$dir" >"$dir.txt"
    cmp -s alone.txt "$dir.txt" || {
        fail "$dir ended with other bits than a run that was left alone"
        diff alone.txt "$dir.txt" | head
    }
done

# ---- what is not there, what is not right -----------------------------------------------------
cat >vowels.yaml <<YAML
suite: vowels
kind: training
sweep: {task: JapaneseVowels, mechanism: flow, model: small, epochs: 1}
YAML
code 0 "$flowbench" run vowels.yaml --out without
has without/accuracy.csv 'skipped,"\{0,1\}task JapaneseVowels reads data files and no data folder'
mkdir -p data/uea/JapaneseVowels
printf '@data\n1,2:a\n3,4:b\n' >data/uea/JapaneseVowels/JapaneseVowels_TEST.ts
printf '@data\n1,2:a\n3,4' >data/uea/JapaneseVowels/JapaneseVowels_TRAIN.ts
code 3 "$flowbench" run vowels.yaml --out cut --data-dir data
has cut/accuracy.csv 'JapaneseVowels_TRAIN.ts:3:'
printf '@data\n1,2:a\n3,4:b\n2,3:a\n4,5:b\n' >data/uea/JapaneseVowels/JapaneseVowels_TRAIN.ts
code 0 "$flowbench" run vowels.yaml --out with --data-dir data
has with/accuracy.csv ',ok,,accuracy,'
printf '@data\n1,2:a\n3,4:c\n' >data/uea/JapaneseVowels/JapaneseVowels_TEST.ts
code 3 "$flowbench" run vowels.yaml --out class --data-dir data
has class/accuracy.csv "class 'c', which the training split has not"

[ "$fails" -eq 0 ] || exit 1
echo "training: fine"
