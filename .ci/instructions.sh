#!/usr/bin/env bash
# Instruction counts and memory of suites/ci.yaml and ci-decode.yaml against the committed reference.
#
#   .ci/instructions.sh check    counts, compares; 3 when something needs more than 1 % more
#   .ci/instructions.sh update   counts, and makes what was counted the reference: commit it
#
# A count belongs to the compiler and the libraries that it was made with. Elsewhere nothing can be
# compared: check says INCOMPARABLE and passes. FLOWBENCH names the program, else build/flowbench.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
reference=results/reference/instructions.csv
update='bash .ci/instructions.sh update'
flowbench=${FLOWBENCH:-build/flowbench}

mode=${1:-}
if [ "$mode" != check ] && [ "$mode" != update ]; then
    echo "usage: $0 check|update" >&2
    exit 2
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What was counted, in one file in a fixed order: no skipped cases (an instruction set that valgrind
# or this processor lacks), and nothing of a machine that has no part in a count.
count() {
    local suite
    for suite in ci ci-decode; do
        "$flowbench" run "suites/$suite.yaml" --set measure.counter=valgrind --out "$work/$suite" \
            >"$work/$suite.txt" 2>"$work/$suite.log" ||
            { tail -n 20 "$work/$suite.log" "$work/$suite.txt" >&2 && return 1; }
    done
    {
        head -n 1 "$work/ci/results.csv"
        tail -q -n +2 "$work/ci/results.csv" "$work/ci-decode/results.csv" | grep ',ok,,' |
            awk -F, 'BEGIN { OFS = "," } { $2 = "reference"; $8 = ""; print }' | LC_ALL=C sort -t, -k3,7 -k9,9 -k4,4
    } >"$work/counts.csv"
}

# "callgrind-3.19.0, GNU 12.2.0 Release, glibc 2.36, OpenBLAS 0.3.21" of the first row.
made_with() { sed -n '2s/.*,\(callgrind-[^,]*\),"\([^"]*\)".*/\1, \2/p' "$1"; }

count
if [ "$mode" = update ]; then
    mkdir -p "$(dirname "$reference")"
    cp "$work/counts.csv" "$reference"
    echo "$reference: $(($(wc -l <"$reference") - 1)) cases, made with $(made_with "$reference")"
    exit 0
fi
if [ ! -f "$reference" ]; then
    echo "no reference: make it with: $update" >&2
    exit 1
fi
here=$(made_with "$work/counts.csv")
there=$(made_with "$reference")
if [ "$here" != "$there" ]; then
    echo "INCOMPARABLE: the reference was made with $there, this build with $here: nothing is judged"
    exit 0
fi
result=0
"$flowbench" compare "$reference" "$work/counts.csv" || result=$?
if [ "$result" -ne 0 ]; then
    echo "A change on purpose becomes the reference with: $update" >&2
fi
exit "$result"
