#!/bin/sh
# Files that lie: safetensors with truncated, contradicting or absurd headers, stored results and
# run.json that are not what they seem. Each is refused with exit 2, in words, within 5 s and 1 GiB.
GOLDEN=$(cd "$(dirname "$0")" && pwd)/../golden/golden-flow-2.safetensors
. "$(dirname "$0")/faults_common.sh"

# safetensors HEADER [LENGTH]: lie.safetensors, with 64 bytes of data behind the header. LENGTH, 8
# bytes as octal escapes, is what the file says of the header instead of the truth.
safetensors() {
    length=${2:-"\\$(printf '%03o' $((${#1} % 256)))\\$(printf '%03o' $((${#1} / 256)))\0\0\0\0\0\0"}
    # shellcheck disable=SC2059
    {
        printf "$length"
        printf '%s' "$1"
        head -c 64 /dev/zero
    } > lie.safetensors
}

refuse() { # FILE WORDS
    expect_refusal 2 verify "$1"
    expect_words "$2"
    if [ -n "$APPLY" ]; then
        expect_refusal 2 apply flow --in "$1" --out out.safetensors
        expect_words "$1"
        [ ! -e out.safetensors ] || fail "apply wrote a file for $1"
    fi
}
refuse_header() { # HEADER WORDS [LENGTH]
    safetensors "$1" "${3:-}"
    refuse lie.safetensors "lie.safetensors: .*$2"
}
APPLY=
if "$FLOWBENCH" apply --help > /dev/null 2>&1; then
    APPLY=yes
fi

# ---- the header's length ----
: > empty.safetensors
refuse empty.safetensors 'too few for a safetensors file'
head -c 7 "$GOLDEN" > short.safetensors
refuse short.safetensors 'too few for a safetensors file'
head -c 100 "$GOLDEN" > header.safetensors
refuse header.safetensors 'truncated'
head -c $(($(wc -c < "$GOLDEN") - 1)) "$GOLDEN" > data.safetensors
refuse data.safetensors 'data.safetensors: '
cp "$GOLDEN" longer.safetensors && printf x >> longer.safetensors
refuse longer.safetensors 'longer.safetensors: '
truncate -s 1G huge.safetensors
refuse huge.safetensors 'not valid JSON'
refuse_header '{}' 'more than the limit' '\377\377\377\377\377\377\377\377'
refuse_header '{}' 'more than the limit' '\377\377\377\377\377\377\377\177'
refuse_header '{}' 'truncated' '\377\377\0\0\0\0\0\0'
refuse_header '{}' 'not valid JSON' '\1\0\0\0\0\0\0\0'
refuse /dev/zero 'not a regular file'
refuse . 'not a regular file'

# ---- the header's claims ----
tensor() { printf '{"q":{"dtype":"%s","shape":%s,"data_offsets":%s}}' "$1" "$2" "$3"; }
refuse_header '[]' 'not a JSON object'
refuse_header '{"q":3}' "'q'"
refuse_header "$(tensor F32 '[16]' '[0,64]' | tr -d '}')" 'not valid JSON'
refuse_header "$(tensor F33 '[16]' '[0,64]')" 'F33'
refuse_header "$(tensor F32 '[-16]' '[0,64]')" "'q': dimension 0"
refuse_header "$(tensor F32 '[1.5]' '[0,64]')" "'q': dimension 0"
refuse_header "$(tensor F32 '16' '[0,64]')" "'q': shape"
refuse_header "$(tensor F32 '[4294967296,4294967296]' '[0,64]')" 'overflows'
refuse_header "$(tensor F32 '[9223372036854775807]' '[0,64]')" 'overflows'
refuse_header "$(tensor F32 '[1,1,1,1,1,1,1,1,16]' '[0,64]')" 'more than the limit of 8'
refuse_header "$(tensor F32 '[17]' '[0,64]')" "'q'"
refuse_header "$(tensor F32 '[17]' '[0,68]')" "'q'"
refuse_header "$(tensor F32 '[16]' '[64,0]')" "'q'"
refuse_header "$(tensor F32 '[16]' '[-64,0]')" "'q'"
refuse_header "$(tensor F32 '[16]' '[9223372036854775743,9223372036854775807]')" "'q'"
refuse_header "$(tensor F32 '[8]' '[0,32]')" 'belong to none'
refuse_header "$(tensor F32 '[8]' '[32,64]')" 'a hole'
half='{"dtype":"F32","shape":[8],"data_offsets":[0,32]}'
refuse_header "{\"q\":$half,\"k\":$half}" 'overlaps'
refuse_header "{\"q\":$half,\"q\":$half}" 'not valid JSON'
refuse_header '{"__metadata__":{"format":1}}' "metadata 'format'"
refuse_header "$(awk 'BEGIN { printf "{\"q\":"; for (i = 0; i < 30000; i++) printf "[" }')" 'not valid JSON'

# ---- values that no arithmetic survives (apply; golden vectors are what they are) ----
one() { printf '"%s":{"dtype":"F32","shape":[1,1,1,1],"data_offsets":[%d,%d]}' "$1" "$2" $(($2 + 4)); }
if [ -n "$APPLY" ]; then
    header="{$(one q 0),$(one k 4),$(one v 8)}"
    for value in '\0\0\300\177' '\0\0\200\177' '\0\0\200\377'; do
        # shellcheck disable=SC2059
        {
            printf "\\$(printf '%03o' ${#header})\0\0\0\0\0\0\0"
            printf '%s\0\0\200\77' "$header"
            printf "$value"'\0\0\200\77'
        } > infinite.safetensors
        expect_refusal 2 apply flow --in infinite.safetensors --out out.safetensors
        expect_words "infinite.safetensors: .*'k'.*NaN or infinite"
        [ ! -e out.safetensors ] || fail "apply wrote a result of nothing"
    done
fi

# ---- stored results ----
header=case_id,mechanism,status,seq_len
refuse_csv() { # WORDS
    expect_refusal 2 plot results.csv
    expect_words "$1"
}
: > results.csv
refuse_csv 'results.csv'
cp /bin/sh results.csv
refuse_csv 'results.csv'
printf 'a,b,c\n1,2,3\n' > results.csv
refuse_csv "the header has no column 'case_id'"
printf '%s\n1,flow,ok,16' $header > results.csv
refuse_csv 'results.csv:2: the last line is cut'
printf '%s\n1,flow,ok\n' $header > results.csv
refuse_csv 'results.csv:2: 3 cells, but the header has 4'
printf '%s\n1,flow,fine,16\n' $header > results.csv
refuse_csv "results.csv:2: status 'fine'"
printf '%s\n1,flow,ok,many\n' $header > results.csv
refuse_csv "results.csv:2: column 'seq_len': 'many' is not an integer"
printf '%s\n1,flow,ok,99999999999999999999\n' $header > results.csv
refuse_csv "results.csv:2: column 'seq_len'"
printf '%s\n"1,flow,ok,16\n' $header > results.csv
refuse_csv 'results.csv:2: '
rm results.csv
truncate -s 1G results.csv
refuse_csv 'results.csv:1: a NUL byte'
rm results.csv
expect_refusal 2 plot absent
expect_words "cannot read 'absent'"

# ---- run.json ----
mkdir run
refuse_json() { # WORDS
    expect_refusal 2 run --resume run
    expect_words "$1"
}
: > run/run.json
refuse_json 'run/run.json'
printf '[' > run/run.json
refuse_json 'run/run.json'
printf '{"schema": 1}' > run/run.json
refuse_json 'lacks its lists'
printf '{"schema": 1, "warnings": [1], "ceilings": [1], "resumed": [1]}' > run/run.json
refuse_json "has no text 'run'"
awk 'BEGIN { for (i = 0; i < 200000; i++) printf "[" }' > run/run.json
refuse_json 'run/run.json'
truncate -s 1G run/run.json
refuse_json 'run/run.json'
