#!/bin/sh
# Suites made to break the reader: each refused with exit 2, in words, at its place, within 5 s and
# 1 GiB, and nothing is left behind.
. "$(dirname "$0")/faults_common.sh"

# refuse FILE WORDS [OPTION...]
refuse() {
    file=$1
    words=$2
    shift 2
    expect_refusal 2 run "$file" "$@"
    expect_words "$words"
    [ ! -e results ] || fail "a refused suite made a folder"
}

# suite_with LINE: a valid suite, and the line after it, in line 4 of suite.yaml.
suite_with() {
    printf 'suite: hostile\ndefaults: {mechanism: flow}\nsweep: {seq_len: 16}\n%s\n' "$1" > suite.yaml
}
refuse_line() {
    suite_with "$1"
    refuse suite.yaml "suite.yaml:4:.*$2"
}
refuse_set() { # ARGUMENT WORDS
    suite_with ''
    refuse suite.yaml "$2" --set "$1"
}

# ---- bytes ----
: > empty.yaml
refuse empty.yaml 'empty.yaml:1:1: error: there is nothing here'
head -c 100000 /bin/sh > binary.yaml
refuse binary.yaml 'binary.yaml:1:[0-9]*: error: '
head -c 65536 /dev/urandom > random.yaml
refuse random.yaml 'random.yaml:[0-9]*:[0-9]*: error: '
truncate -s 1G huge.yaml
refuse huge.yaml 'larger than 1 MiB'
refuse . 'it is a folder'
refuse /dev/zero 'not a regular file'
mkfifo pipe.yaml
refuse pipe.yaml 'not a regular file'

# ---- structure ----
awk 'BEGIN { printf "suite: "; for (i = 0; i < 500000; i++) printf "[" }' > deep.yaml
refuse deep.yaml 'deep.yaml:1:71: error: nested deeper than 64 levels'
awk 'BEGIN {
    print "l0: &l0 [x, x, x, x, x, x, x, x, x, x]"
    for (i = 1; i < 30; i++) {
        printf "l%d: &l%d [", i, i
        for (j = 0; j < 9; j++) printf "*l%d, ", i - 1
        printf "*l%d]\n", i - 1
    }
}' > bomb.yaml
refuse bomb.yaml 'bomb.yaml:[0-9]*:[0-9]*: error: the suite grows beyond 1024 KiB'
printf 'suite: &a [*a]\n' > self.yaml
refuse self.yaml 'self.yaml:1:12: error: alias \*a stands inside its own anchor'
printf 'suite: self\nsweep: &s {<<: *s}\n' > merge.yaml
refuse merge.yaml 'merge.yaml:2:16: error: alias \*s stands inside its own anchor'

printf 'suite: a\ninclude: a.yaml\n' > a.yaml
refuse a.yaml 'a.yaml:2:10: error: .*include each other in a loop'
printf 'suite: b\ninclude: c.yaml\n' > b.yaml
printf 'include: [b.yaml]\n' > c.yaml
refuse b.yaml 'c.yaml:1:11: error: .*include each other in a loop'
ln -s b.yaml alias.yaml
printf 'suite: b\ninclude: alias.yaml\n' > b.yaml
refuse b.yaml 'b.yaml:2:10: error: .*include each other in a loop'
i=0
while [ $i -lt 20 ]; do
    printf 'suite: chain\ninclude: chain%d.yaml\n' $((i + 1)) > chain$i.yaml
    i=$((i + 1))
done
refuse chain0.yaml 'includes go 16 files deep'
printf 'suite: x\ninclude: absent.yaml\n' > suite.yaml
refuse suite.yaml 'suite.yaml:2:10: error: cannot include .*no such file'

# ---- types and units ----
refuse_line 'accuracy: {oracle: maybe}' "'maybe'"
refuse_line 'measure: {min_samples: six}' "'six'"
refuse_line 'measure: {min_samples: 6.5}' "'6.5'"
refuse_line 'measure: {min_samples: [6]}' 'error: '
refuse_line 'measure: {warmup: 50}' 'error: '
refuse_line 'measure: {warmup: 50 parsecs}' 'parsecs'
refuse_line 'measure: {max_time: -1 s}' "'-1 s'"
refuse_line 'measure: {max_time: nan}' "'nan'"
refuse_line 'limits: {memory: 80 bananas}' 'bananas'
refuse_line 'limits: {memory: 180 %}' 'at most 100 %'
refuse_line 'limits: {case_timeout: 1e400 s}' '1e400'
refuse_line 'measure: {cache: lukewarm}' "'lukewarm'"
refuse_line 'limits: 5' 'error: '
refuse_line 'hardware: {device: cpu, threads: many}' 'error: '
refuse_line 'plots: [time_vs_sec_len]' "did you mean 'time_vs_seq_len'"
refuse_line 'defaults: {heads: 2}' "'defaults' is given twice"

# ---- sizes ----
for value in -1 0 -9223372036854775808 99999999999999999999 1e30 0x10 12.5 '""'; do
    refuse_set "sweep.seq_len=$value" '--set:1:[0-9]*: error: '
    refuse_set "defaults.heads=$value" '--set:1:[0-9]*: error: '
done
refuse_set 'sweep.seq_len={from: 512, to: 256, times: 2}' 'error: '
refuse_set 'sweep.seq_len={from: 1, to: 9000000000000, step: 1}' 'error: '
refuse_set 'sweep.seq_len={from: 1, to: 64, times: 1}' 'error: '
refuse_set 'sweep.seq_len=[]' 'error: '
refuse_set 'defaults.head_dim=100000' 'error: '
suite_with ''
refuse suite.yaml 'overflow' --set defaults.batch=1000000000 --set defaults.heads=1000000000 \
    --set sweep.seq_len=1000000000
sed -i 's/seq_len: 16/seq_len: 4000000000/; s/flow}/flow, batch: 4000000000}/' suite.yaml
refuse suite.yaml 'suite.yaml:[23]:[0-9]*: error: '

# ---- names ----
refuse_set 'sweep.mechanism=flaw' "did you mean 'flow'"
refuse_set 'sweep.mechanism={name: performer, featurs: 64}' "did you mean 'features'"
refuse_set 'sweep.mechanism={name: flow, window: 64}' 'window'
refuse_set 'sweep.mechanism={name: local, window: -3}' 'error: '
refuse_set 'sweep.seqlen=5' "did you mean 'seq_len'"
refuse_set 'suite=../../etc' 'error: '
refuse_set 'sweep' 'path=value'

# ---- devices ----
suite_with 'hardware: [{device: cuda}]'
if ! "$FLOWBENCH" run suite.yaml --list > /dev/null 2>&1; then
    refuse suite.yaml 'suite.yaml:4:.*no CUDA device'
    suite_with 'hardware: [{device: cpu, threads: 1}, {device: cuda, optional: true}]'
    expect_exit 0 run suite.yaml --out optional --set 'measure.max_time=50 ms'
    [ "$(grep -c ',skipped,' optional/results.csv)" -eq 1 ] || fail "no row for the absent device"
    [ "$(grep -c ',ok,' optional/results.csv)" -eq 1 ] || fail "the processor's row is missing"
fi
refuse_line 'hardware: [{device: gpu}]' "'gpu'"
refuse_line 'hardware: [{device: cpu, threads: 100000}]' 'error: '
refuse_line 'hardware: [{device: cpu, isa: sse9}]' "'sse9'"
