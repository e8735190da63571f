#!/bin/sh
# flowbench apply: results against the golden vectors, and every kind of bad input with its exit
# code and its words. Usage: test_apply.sh SOURCE_DIR FLOWBENCH TENSOR_TOOL
set -u
LC_ALL=C
export LC_ALL
golden=$1/tests/golden
flowbench=$2
tool=$3
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
failures=0

fail() {
    echo "FAIL: $*"
    sed 's/^/    /' out err 2>/dev/null
    failures=$((failures + 1))
}

# expect CODE WORDS ARGUMENT...: exit code, and words in what was printed
expect() {
    code=$1
    words=$2
    shift 2
    "$flowbench" apply "$@" >out 2>err
    got=$?
    [ "$got" -eq "$code" ] || fail "apply $*: exit $got instead of $code"
    cat out err | tr '\n' ' ' | grep -q -e "$words" || fail "apply $*: no '$words'"
}

# refused WORDS ARGUMENT...: exit 2, nothing on stdout, no output file
refused() {
    words=$1
    shift
    rm -f no.safetensors
    expect 2 "$words" "$@"
    [ ! -s out ] || fail "a refusal on stdout: $*"
    [ ! -e no.safetensors ] || fail "a refusal left an output: $*"
}

# ---- golden vectors: every mechanism, result and gradients -----------------------------------------
gradients=0
for file in "$golden"/golden-*.safetensors; do
    name=$(basename "$file" .safetensors)
    mechanism=${name#golden-}
    mechanism=${mechanism%%-*}
    causal=
    case $name in *-training-*) continue ;; *-causal-*) causal=--causal ;; esac
    # Parameters stand in the metadata under their names.
    param=
    [ "$mechanism" != local ] || param="--param window=$("$tool" show "$file" window)"
    # shellcheck disable=SC2086
    expect 0 "by $mechanism/" "$mechanism" --in "$file" --out "$name" $causal $param --no-gradients
    "$tool" judge "$file" "$name" >out 2>err || fail "$name: out is wrong"
    [ "$("$tool" show "$name" | wc -l)" -eq 1 ] || fail "$name: more than out"
    # shellcheck disable=SC2086
    expect 0 'dq, dk, dv by' "$mechanism" --in "$file" --out "$name" --force $causal $param
    "$tool" judge "$file" "$name" >out 2>err || fail "$name: gradients are wrong"
    [ "$(grep -c : out)" -eq 4 ] || fail "$name: not four tensors"
    gradients=$((gradients + 1))
done
[ $gradients -ge 40 ] || fail "only $gradients golden files"
one=$golden/golden-flow-0.safetensors
if "$flowbench" list mechanisms 2>/dev/null | grep -q '^flow  *plain'; then
    expect 0 'flow/plain' flow --in "$one" --out plain --variant plain
    "$tool" judge "$one" plain >out 2>err || fail "plain is wrong"
fi
expect 0 'scalar, 1 thread *$' flow --in "$one" --out scalar --isa scalar --threads 1
"$tool" judge "$one" scalar >out 2>err || fail "scalar is wrong"

# ---- what the output says -------------------------------------------------------------------------
while read -r key value; do
    [ "$("$tool" show scalar "$key")" = "$value" ] || fail "metadata $key is not $value"
done <<END
format attention-result-1
mechanism flow
variant fused
device cpu
isa scalar
threads 1
causal false
flowbench $("$flowbench" --version | cut -d' ' -f2)
END
"$tool" show scalar params | grep -q '"clamp":1' || fail "metadata params"

# ---- element types, padding, grouped queries, seeds ------------------------------------------------
"$tool" make f32 'q=F32[2,4,9,8]:normal' 'k=F32[2,4,9,8]:normal' 'v=F32[2,4,9,6]:normal'
for type in F16 BF16 F64; do
    "$tool" make in "q=${type}[2,4,9,8]:normal" "k=${type}[2,4,9,8]:normal" "v=${type}[2,4,9,6]:normal"
    "$tool" f32 in in.f32
    expect 0 "notice: tensor 'q' is $type" flow --in in --out a --force
    expect 0 'out \[2, 4, 9, 6\]' flow --in in.f32 --out b --force
    [ ! -s err ] || fail "a notice for F32"
    "$tool" same a b || fail "$type gives another result than the same numbers in F32"
done
expect 2 "flow/plain computes in f32 only" flow --in f32 --out half --dtype bf16 --variant plain
expect 2 "'fp8' is none of f32, bf16, f16" flow --in f32 --out half --dtype fp8
"$tool" make grouped 'q=F32[2,4,9,8]:normal' 'k=F32[2,2,9,8]:normal' 'v=F32[2,2,9,6]:normal' \
    'q_lengths=I32[2]:9,5' 'kv_lengths=I64[2]:7,9'
expect 0 'out \[2, 4, 9, 6\]' flow --in grouped --out padded
expect 0 'out' performer --in f32 --out seed1 --param features=16 --seed 1
expect 0 'out' performer --in f32 --out again --param features=16
expect 0 'out' performer --in f32 --out seed2 --param features=16 --seed 2
"$tool" same seed1 again || fail "the same seed gives other features"
! "$tool" same seed1 seed2 || fail "another seed gives the same features"
[ "$("$tool" show seed2 seed)" = 2 ] || fail "metadata seed"
"$tool" make typo 'q=F32[1,1,9,8]:normal' 'k=F32[1,1,9,8]:normal' 'v=F32[1,1,9,6]:normal' \
    'kv_length=I64[1]:4'
expect 0 "'kv_length' is not used; did you mean 'kv_lengths'?" softmax --in typo --out typo.out

# ---- tensors that do not fit -----------------------------------------------------------------------
bad() {
    words=$1
    shift
    "$tool" make bad "$@" || fail "tensor_tool make $*"
    refused "$words" flow --in bad --out no.safetensors
}
q='q=F32[2,4,9,8]:normal'
k='k=F32[2,4,7,8]:normal'
v='v=F32[2,4,7,6]:normal'
bad "bad: there is no tensor 'v'; needed are q" "$q" "$k"
bad "tensor 'q' has shape \[9, 8\], 2 dimensions; 4 are needed" 'q=F32[9,8]:normal' "$k" "$v"
bad "tensor 'k' has shape \[2, 4, 7, 5\]: dimension 3 (dim) must be 8, as in q \[2, 4, 9, 8\]" \
    "$q" 'k=F32[2,4,7,5]:normal' "$v"
bad "tensor 'k' .* dimension 0 (batch) must be 2" "$q" 'k=F32[1,4,7,8]:normal' "$v"
bad "tensor 'k' .* its 3 heads must divide the 4 heads of q" "$q" 'k=F32[2,3,7,8]:normal' \
    'v=F32[2,3,7,6]:normal'
bad "tensor 'v' .* dimension 2 (tokens) must be 7, as in k" "$q" "$k" 'v=F32[2,4,8,6]:normal'
bad "tensor 'v' .* dimension 1 (heads) must be 4, as in k" "$q" "$k" 'v=F32[2,2,7,6]:normal'
bad "tensor 'dout' .* dimension 3 (dim) must be 6, as in v" "$q" "$k" "$v" 'dout=F32[2,4,9,8]:normal'
bad "tensor 'q' .* dimension 2 (tokens) must be between 1" 'q=F32[2,4,0,8]:normal' "$k" "$v"
bad "tensor 'q' .* dimension 3 (dim) must be between 1 and 256" 'q=F32[1,1,2,300]:normal' "$k" "$v"
bad "tensor 'k' has type I64" "$q" 'k=I64[2,4,7,8]:1' "$v"
bad "tensor 'q_lengths' has shape \[3\]; it must be \[2\]" "$q" "$k" "$v" 'q_lengths=I64[3]:1,2,3'
bad "tensor 'q_lengths' has type F32; expected I64 or I32" "$q" "$k" "$v" 'q_lengths=F32[2]:normal'
bad "kv_lengths\[1\] is 8; it must be between 0 and 7" "$q" "$k" "$v" 'kv_lengths=I64[2]:7,8'
bad "q_lengths\[0\] is -1; it must be between 0 and 9" "$q" "$k" "$v" 'q_lengths=I32[2]:-1,8'
"$tool" make bad "$q" "$k" "$v"
refused 'causal flow needs as many queries as keys' flow --causal --in bad --out no.safetensors
"$tool" make bad "$q" "$k" "$v" 'projection=F32[16,5]:normal'
refused "'projection' has shape \[16, 5\]; it must be \[features, 8\]" performer --in bad \
    --out no.safetensors
"$tool" make bad "$q" "$k" "$v" 'projection=F32[16,8]:normal'
refused "'projection' has 16 features, --param features says 8" performer --in bad \
    --out no.safetensors --param features=8
expect 0 out performer --in bad --out projected --param features=16

# ---- not finite ------------------------------------------------------------------------------------
bad "tensor 'v' (F32) holds 1 value that is NaN or infinite in f32, the first (-*nan) at \[0, 1, 0, 3\]" \
    "$q" "$k" 'v=F32[2,4,7,6]:nan@45'
expect 0 'out' flow --in bad --out nonfinite --allow-nonfinite
bad "tensor 'q' .* the first (inf) at \[0, 0, 0, 7\]" 'q=F32[2,4,9,8]:inf@7' "$k" "$v"
bad "tensor 'q' (F64) holds 1 value .* infinite in f32" 'q=F64[2,4,9,8]:inf@7' "$k" "$v"
"$tool" make bad 'q=F32[1,1,3,8]:big' 'k=F32[1,1,3,8]:big' 'v=F32[1,1,3,8]:normal'
expect 3 "result 'out' holds .* though the input is finite" softmax --in bad --out no.safetensors
[ ! -e no.safetensors ] || fail "a result that is not finite was written"
expect 0 'out' softmax --in bad --out overflown --allow-nonfinite

# ---- files that lie --------------------------------------------------------------------------------
head -c 300 f32 >bad
refused 'bad: .*truncated' flow --in bad --out no.safetensors
: >bad
refused 'bad: 0 bytes are too few' flow --in bad --out no.safetensors
head -c 4096 /dev/zero | tr '\000' '\377' >bad
refused 'no safetensors file' flow --in bad --out no.safetensors
sed 's/\[2,4,9,6\]/[9,9,9,9]/' f32 >bad
refused "tensor 'v': data_offsets span" flow --in bad --out no.safetensors
refused 'absent: cannot open' flow --in absent --out no.safetensors
refused 'not a regular file' flow --in . --out no.safetensors

# ---- names -----------------------------------------------------------------------------------------
refused "no mechanism 'flwo'; did you mean 'flow'?" flwo --in f32 --out no.safetensors
refused "no parameter of performer 'featurs'; did you mean 'features'?" performer \
    --param featurs=3 --in f32 --out no.safetensors
refused "softmax has no parameters" softmax --param features=3 --in f32 --out no.safetensors
refused "is no parameter: write NAME=VALUE" performer --param features --in f32 --out no.safetensors
refused 'features must be a whole number from 1 to' performer --param features=0 --in f32 \
    --out no.safetensors
for value in 1.5 many '' 1e99 nan; do
    refused 'features must be a whole number' performer --param "features=$value" --in f32 \
        --out no.safetensors
done
refused "no phi 'sigmod'; did you mean 'sigmoid'?" flow --param phi=sigmod --in f32 \
    --out no.safetensors
refused 'allocation is true or false' flow --param allocation=maybe --in f32 --out no.safetensors
refused 'clamp must be a number from 0 to' flow --param clamp=-1 --in f32 --out no.safetensors
refused "no variant of flow 'fussed'; did you mean 'fused'?" flow --variant fussed --in f32 \
    --out no.safetensors
refused "no instruction set 'avx3'; did you mean 'avx2'?" flow --isa avx3 --in f32 \
    --out no.safetensors
refused 'is none of cpu, cuda' flow --device gpu --in f32 --out no.safetensors
refused 'is not a whole number from 1 to' flow --threads 0 --in f32 --out no.safetensors
refused 'is not a whole number from 0 to' flow --seed -1 --in f32 --out no.safetensors
refused 'which mechanism' --in f32 --out no.safetensors
refused 'one mechanism at a time' flow softmax --in f32 --out no.safetensors
refused 'in FILE.safetensors is missing' flow --out no.safetensors
refused 'out FILE.safetensors is missing' flow --in f32
if ! "$flowbench" list mechanisms 2>/dev/null | grep -q cuda:; then
    refused 'no flow for cuda' flow --device cuda --in f32 --out no.safetensors
fi

# ---- the output's path; the input stays what it is -------------------------------------------------
cp f32 before
ln -s f32 link
ln f32 hard
for path in f32 ./f32 link hard; do
    refused 'is the input itself' flow --in f32 --out "$path" --force
done
cmp -s f32 before || fail "the input was touched"
echo precious >taken
refused "'taken' exists; --force replaces it" flow --in f32 --out taken
[ "$(cat taken)" = precious ] || fail "an existing file was overwritten"
expect 2 'no tensor' flow --in plain --out taken --force
[ "$(cat taken)" = precious ] || fail "a failure cost the old file"
expect 0 'taken: out' flow --in f32 --out taken --force
"$tool" show taken mechanism >/dev/null || fail "--force did not replace"
refused 'no regular file' flow --in f32 --out . --force
refused 'no regular file' flow --in f32 --out /dev/null --force
expect 1 'cannot write' flow --in f32 --out nowhere/no.safetensors
expect 1 'cannot write' flow --in f32 --out before/no.safetensors
if [ "$(id -u)" -ne 0 ]; then
    mkdir locked && chmod 555 locked
    expect 1 'cannot write' flow --in f32 --out locked/no.safetensors
fi
[ -z "$(find . -name '*.tmp.*')" ] || fail "temporary files stayed"

if [ "$failures" -gt 0 ]; then
    echo "$failures failures"
    exit 1
fi
echo "apply: fine, $gradients golden files"
