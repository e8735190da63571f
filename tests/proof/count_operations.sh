#!/usr/bin/env bash
# What stands between each CPU kernel and its floor: for each case the cycles that a token of a head
# takes of every kind of execution port, counted from what one call executes, one thread, D = 64.
#
#   count_operations.sh BUILD                            every case, many minutes
#   count_operations.sh BUILD MECHANISM ISA PASS CAUSAL  one case, as in: flow avx512 forward 0
#
# BUILD is a build folder with its kernel_probe. Needs objdump, valgrind and llvm-mca-14. AVX2 is
# counted by callgrind; AVX-512, which valgrind does not know, by single steps. Which ports an
# instruction can take is llvm-mca's model of Ice Lake; loads and stores are those of its successor
# Golden Cove (2 of 512 or 3 of 256 bits, 1 or 2). Columns, cycles: floor, at two fused operations a
# cycle; vector, load, store, divide; all instructions at 6 a cycle; then the largest of these over
# the floor.
set -euo pipefail

probe=$1/tests/proof/kernel_probe
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# "address times" of one call.
executed() {
    if [ "$2" = avx512 ]; then
        "$probe" count "$@"
        return
    fi
    valgrind -q --tool=callgrind --dump-instr=yes --compress-pos=no --compress-strings=no \
        --toggle-collect='call_once*' --callgrind-out-file="$work/callgrind" "$probe" once "$@" >&2
    # The line after calls= is the cost of the callee.
    awk '/^calls=/ { skip = 1; next }
         /^0x/ { if (!skip) times[substr($1, 3)] += $3; skip = 0 }
         END { for (at in times) printf "%s %d\n", at, times[at] }' "$work/callgrind"
}

# "times instruction" of the vector instructions, and the sum of all as the first line.
texts() {
    awk -F '\t' 'NR == FNR { split($0, one, " "); times[one[1]] = one[2]; all += one[2]; next }
        { at = $1; gsub(/[ :]/, "", at) }
        at in times && /%[xyz]mm|%k[0-7]|prefetch/ {
            text = $2; sub(/ *#.*/, "", text); sub(/ <.*/, "", text)
            sum[text] += times[at]
        }
        END { print all; for (text in sum) printf "%d\t%s\n", sum[text], text }' "$1" "$2"
}

# Cycles per token: cycles TEXTS PORTS TOKENS FLOOR WIDE. A micro-operation that may take one of
# several ports has an equal share on each of them in the model; the least time is that of the
# fullest set of ports. 512 bits close port 1. Moves and broadcasts from memory are loads only, and
# moves between registers are renamed away.
cycles() {
    awk -F '\t' -v tokens="$3" -v floor="$4" -v wide="$5" '
        function bit(set, port) { return int(set / port) % 2 }
        function within(set, ports) {
            return bit(set, 1) <= bit(ports, 1) && bit(set, 2) <= bit(ports, 2) &&
                   bit(set, 4) <= bit(ports, 4)
        }
        function larger(a, b) { return a > b ? a : b }
        FNR == 1 { file++ }
        file == 1 && FNR == 1 { all = $1; next }
        file == 1 { times[++count] = $1; text[count] = $2; next }
        /Resource pressure by instruction/ { table = 1; next }
        table && /^ *[-0-9]/ {
            split($0, p, " "); n = times[++at]; t = text[at]
            for (i = 1; i <= 12; i++) p[i] = p[i] == "-" ? 0 : p[i] + 0
            if (p[7] > 0) stores += n
            else if (p[5] + p[6] > 0) loads += n
            divide += n * p[2]
            if (t ~ /^v(broadcast|mov)[^%]*\([^)]*\),%[xyz]mm/) next
            if (t ~ /^vmov[au]p[sd] *%[xyz]mm[0-9]+,%[xyz]mm[0-9]+$/) next
            most = larger(larger(p[3], p[4]), p[8])
            share[1] = p[3]; share[2] = p[4]; share[4] = p[8]
            even = 1; set = 0
            for (port in share) {
                set += share[port] > 0 ? port : 0
                even = even && (share[port] == 0 || share[port] == most)
            }
            if (even) taken[wide && set > 2 ? set - 2 * bit(set, 2) : set] += n * (p[3] + p[4] + p[8])
            else for (port in share) taken[port] += n * share[port]
        }
        END {
            for (ports = 1; ports < 8; ports++) {
                sum = 0
                for (set in taken) if (set > 0 && within(set, ports)) sum += taken[set]
                vector = larger(vector, sum / (bit(ports, 1) + bit(ports, 2) + bit(ports, 4)))
            }
            vector /= tokens; load = loads / (wide ? 2 : 3) / tokens
            store = stores / (wide ? 1 : 2) / tokens; divide /= tokens; all /= 6 * tokens
            least = larger(larger(vector, load), larger(larger(store, divide), all))
            printf "%.0f %.0f %.0f %.0f %.0f %.0f %.2f\n", floor, vector, load, store, divide, all,
                least / floor
        }' "$1" "$2"
}

count_case() {
    local tokens=512 wide=0 flop floor
    if [ "$2" = avx512 ]; then # a step takes 20 us
        wide=1
        case $1 in
        local) tokens=192 ;;
        performer) tokens=64 ;;
        *) tokens=128 ;;
        esac
    fi
    flop=$("$probe" floor "$@" 2 "$tokens")
    executed "$@" 2 "$tokens" >"$work/executed"
    texts "$work/executed" "$work/disassembly" >"$work/texts"
    tail -n +2 "$work/texts" | cut -f 2 >"$work/code"
    llvm-mca-14 -mcpu=icelake-server -instruction-tables "$work/code" >"$work/ports"
    floor=$(awk "BEGIN { print $flop / (32 * (1 + $wide)) }")
    printf '%s ' "$@"
    cycles "$work/texts" "$work/ports" $((2 * tokens)) "$floor" "$wide"
}

objdump -d --no-show-raw-insn "$probe" >"$work/disassembly"
if [ $# -gt 0 ]; then
    count_case "$@"
    exit
fi
echo 'mechanism isa pass causal | floor vector load store divide all least/floor'
for mechanism in flow linear performer local softmax; do
    for isa in avx2 avx512; do
        for pass in forward backward; do
            for causal in 0 1; do
                count_case "$mechanism" "$isa" "$pass" "$causal"
            done
        done
    done
done
