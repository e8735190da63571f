#!/usr/bin/env bash
# The live part of the proof of the gate, and its table: docs/measuring.md, "How sure the gate is".
#
#   tests/proof/prove_gate.sh [FOLDER [STEP...]]     default build/proof and all steps; continues
#                                                    where it was stopped
#   live      20 comparisons of the program with itself: none may FAIL
#   resample  their pairs, drawn anew 400 times, through the gate, with and without a slow-down planted
#   counts    100 cases that execute 3 % more instructions
#
# FLOWBENCH names the program (build/flowbench); MEASURE and COUNT are commands put before each
# measurement of time and each count (`taskset -c 0,1`, a lock). Ten minutes for live on a machine with
# nothing else to do, the others on any.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
flowbench=${FLOWBENCH:-build/flowbench}
driver=${PROOF_GATE:-build/tests/proof/proof_gate}
out=${1:-build/proof}
live_wanted=20
mkdir -p "$out"

# done_once NAME COMMAND...: its output in FOLDER/NAME, which only ever exists whole.
done_once() {
    local file=$out/$1 status=0
    shift
    [ ! -e "$file" ] || return 0
    "$@" >"$file.new" || status=$?
    # 3 is an answer, too: a case failed.
    [ $status -eq 0 ] || [ $status -eq 3 ] || return $status
    mv "$file.new" "$file"
}

# ---- live ----------------------------------------------------------------------------------------

measure_live() {
    local number
    for number in $(seq -w $live_wanted); do
        # shellcheck disable=SC2086
        done_once "live-$number.json" ${MEASURE:-} "$flowbench" compare --ab "$flowbench" \
            "$flowbench" suites/proof.yaml --format json --quiet
    done
    cat "$out"/live-*.json >"$out/live.txt"
    echo "live comparisons of a program with itself: $live_wanted, with a FAIL:" \
        "$(grep -l '"verdict": "FAIL"' "$out"/live-*.json | wc -l), cases judged:" \
        "$(grep -c '"verdict":' "$out/live.txt"), of them AMBIGUOUS:" \
        "$(grep -c '"verdict": "AMBIGUOUS"' "$out/live.txt" || true)"
}

# ---- instruction counts --------------------------------------------------------------------------

# The same sources, but what runs on one thread turns FLOWBENCH_PLANT times in a loop first.
build_planted() {
    local copy=$out/planted
    [ ! -x "$copy/build/flowbench" ] || return 0
    rm -rf "$copy"
    mkdir -p "$copy"
    cp -r CMakeLists.txt VERSION LICENSE README.md CHANGELOG.md cmake kernels baselines harness \
        suites plots tests examples "$copy"
    sed -i -e 's|^#include <omp.h>|&\n#include <stdlib.h>\n\nstatic void plant(void)\n{\n    const char *turns = getenv("FLOWBENCH_PLANT");\n    for (long i = turns == NULL ? 0 : strtol(turns, NULL, 10); i > 0; i--)\n        __asm__ volatile("" : "+r"(i));\n}|' \
        -e '/^static void run_alone/,/^}/ s|restore_mode(mode);|plant();\n    &|' \
        "$copy/kernels/cpu/parallel.c"
    grep -q 'plant();' "$copy/kernels/cpu/parallel.c" || { echo "nothing was planted" >&2 && return 1; }
    cmake -S "$copy" -B "$copy/build" -DCMAKE_BUILD_TYPE=Release -DFLOWBENCH_TESTS=OFF \
        ${CCACHE:+-DCMAKE_C_COMPILER_LAUNCHER=$CCACHE} >"$copy/build.log"
    cmake --build "$copy/build" --parallel >>"$copy/build.log"
}

# count PROGRAM SEED FILTER FOLDER [TURNS]
count() {
    rm -rf "$4"
    # shellcheck disable=SC2086
    FLOWBENCH_PLANT=${5:-0} ${COUNT:-} "$1" run suites/ci.yaml --set measure.counter=valgrind \
        --set "defaults.seed=$2" --filter "$3" --out "$4" --quiet >/dev/null 2>&1
}

# "mechanism causal pass instructions" of each counted row.
counts() {
    sed 's/"[^"]*"//g' "$1/results.csv" | awk -F, '
        NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
        $at["status"] == "ok" { print $at["mechanism"], $at["causal"], $at["pass"], $at["instructions"] }'
}

# One line of trials.txt per case and seed: what was counted, and what compare said.
plant_counts() {
    local filter='isa=avx2,variant=fused|tiled,causal=false' seed
    local mechanism causal pass before after turns verdict
    build_planted
    touch "$out/trials.txt"
    if [ ! -e "$out/calibrate.txt" ]; then
        count "$out/planted/build/flowbench" 1 "$filter" "$out/calibrate-0" 0
        count "$out/planted/build/flowbench" 1 "$filter" "$out/calibrate-1" 10000
        paste -d' ' <(counts "$out/calibrate-0" | sort) <(counts "$out/calibrate-1" | sort) \
            >"$out/calibrate.txt"
    fi
    for seed in $(seq 10); do
        [ "$(grep -c "^$seed " "$out/trials.txt")" -lt 10 ] || continue
        if [ ! -e "$out/base-$seed.txt" ]; then
            count "$flowbench" "$seed" "$filter" "$out/base-$seed"
            counts "$out/base-$seed" >"$out/base-$seed.txt"
        fi
        while read -r mechanism causal pass before; do
            ! grep -q "^$seed $mechanism $pass " "$out/trials.txt" || continue
            turns=$(awk -v m="$mechanism" -v p="$pass" \
                '$1 == m && $3 == p { printf "%d", 0.03 * $4 / ($8 - $4) * 10000 }' "$out/calibrate.txt")
            count "$out/planted/build/flowbench" "$seed" \
                "isa=avx2,variant=fused|tiled,causal=$causal,mechanism=$mechanism,pass=$pass" \
                "$out/new" "$turns"
            after=$(counts "$out/new" | cut -d' ' -f4)
            verdict=$({ "$flowbench" compare "$out/base-$seed" "$out/new" || true; } |
                awk '/^(PASS|FASTER|FAIL|AMBIGUOUS) / { print $1 }')
            echo "$seed $mechanism $pass $before $after $verdict" >>"$out/trials.txt"
        done <"$out/base-$seed.txt"
    done
}

# ---- steps ---------------------------------------------------------------------------------------

step_live() {
    measure_live
    ! grep -q '"verdict": "FAIL"' "$out"/live-*.json
}

step_resample() {
    done_once pairs.csv "$driver" collect "$out"/live-*.json
    done_once resampled.md "$driver" 400 1 "$out/pairs.csv"
    cat "$out/resampled.md"
}

step_counts() {
    plant_counts
    local found
    found=$(grep -c ' FAIL$' "$out/trials.txt" || true)
    echo "3 % more instructions planted, found: $found of $(wc -l <"$out/trials.txt")"
    [ "$found" -ge 95 ]
}

shift $(($# > 0))
if [ $# -eq 0 ]; then
    set -- live resample counts
fi
for step in "$@"; do
    "step_$step"
done
