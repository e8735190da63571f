#!/bin/sh
# flowbench verify: lines, summary and exit codes. Usage: test_verify.sh SOURCE_DIR FLOWBENCH
set -u
# the files are binary: no locale may take offence
LC_ALL=C
export LC_ALL
golden=$1/tests/golden
flowbench=$2
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
failures=0

# expect CODE TEXT ARGUMENT...: exit code and a text in stdout or stderr
expect() {
    code=$1
    text=$2
    shift 2
    "$flowbench" verify "$@" >"$folder/out" 2>&1
    got=$?
    if [ "$got" -ne "$code" ] || ! grep -q -e "$text" "$folder/out"; then
        echo "FAIL: verify $*: exit $got instead of $code, or no '$text' in:"
        sed 's/^/    /' "$folder/out"
        failures=$((failures + 1))
    fi
}

one=$golden/golden-softmax-2.safetensors
training=$golden/golden-training-gpt.safetensors
head -c 500 "$one" >"$folder/truncated.safetensors"
sed 's/"softmax"/"sofxmax"/' "$one" >"$folder/unknown.safetensors"
sed 's/"false"/"fa1se"/' "$one" >"$folder/causal.safetensors"
sed 's/golden-1/golden-9/' "$one" >"$folder/format.safetensors"
sed 's/"window"/"windov"/' "$golden/golden-local-2.safetensors" >"$folder/parameter.safetensors"
# training runs: of another function, and files that contradict themselves
sed 's/\("flow_clamp": *\)"1"/\1"9"/' "$training" >"$folder/clamp.safetensors"
sed 's/"adamw"/"adamz"/' "$training" >"$folder/adamz.safetensors"
sed 's/\("layers": *\)"2"/\1"0"/' "$training" >"$folder/size.safetensors"
sed 's/\("batch": *\)"3"/\1"4"/' "$training" >"$folder/short.safetensors"
# same values under another mechanism's name of equal length in the header: wrong results
sed 's/"linear"/"flow"  /' "$golden/golden-linear-1.safetensors" >"$folder/wrong.safetensors"

expect 0 '^PASS .*golden-softmax-2.* scalar .*threads 1 .*out .*dq .*dk .*dv .* 5e-05$' "$one"
expect 0 ', 0 failed' "$one"
expect 0 'PASS .*scalar' --isa scalar "$one"
expect 0 '^PASS .*golden-training-gpt.* flow/fused .*threads 1 .*losses .*logits .*gradients .*weights' \
    "$training"
expect 0 'PASS .*golden-training-uea.* flow/fused ' "$golden/golden-training-uea.safetensors"
expect 0 'nothing was checked' --dtype bf16 "$training"
expect 0 '1 skipped' --dtype bf16 "$training" "$one"
expect 3 'FAIL .*clamp.safetensors' "$folder/clamp.safetensors"
expect 2 "metadata 'optimizer' is 'adamz'; known are" "$folder/adamz.safetensors"
expect 2 'not a size of 1 to' "$folder/size.safetensors"
expect 2 'tensor .tokens. is absent, or not' "$folder/short.safetensors"
expect 3 'FAIL .*golden\|FAIL .*wrong.safetensors.*err_max .* exceeds' "$folder/wrong.safetensors"
expect 3 'unreadable' "$folder/wrong.safetensors" "$folder/truncated.safetensors"
expect 2 'truncated.safetensors' "$folder/truncated.safetensors"
expect 2 'PASS .*golden-softmax-2' "$folder/truncated.safetensors" "$one"
expect 2 'sofxmax' "$folder/unknown.safetensors"
expect 2 'fa1se' "$folder/causal.safetensors"
expect 2 'golden-9' "$folder/format.safetensors"
expect 2 'windov' "$folder/parameter.safetensors"
expect 2 'cannot open' "$folder/absent.safetensors"
expect 2 'no golden file'
expect 2 'valid are cpu, cuda' --device gpu "$one"
expect 2 'no kernel computes in it; valid are f32, bf16, f16' --dtype f64 "$one"
expect 2 'unknown; valid are f32' --dtype fp16 "$one"
expect 2 'valid are any' --isa sse9 "$one"
# plain variants are compiled once; linear has none, so nothing can be checked
expect 3 '1 unchecked' --isa any "$golden/golden-linear-2.safetensors"
if ! "$flowbench" verify --device cuda "$one" >/dev/null 2>&1; then
    expect 2 'cuda' --device cuda "$one"
fi

if [ "$failures" -gt 0 ]; then
    echo "$failures failures"
    exit 1
fi
