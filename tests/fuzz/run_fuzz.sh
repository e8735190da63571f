#!/usr/bin/env bash
# Runs the fuzz targets one after the other. usage: run_fuzz.sh BUILD_FOLDER SECONDS [TARGET...]
# FUZZ_SEED makes a run repeat another one; without it each is new. A finding ends the run with an
# error; its input is kept in BUILD_FOLDER/findings.
set -euo pipefail
build=$(cd "$1" && pwd)
seconds=$2
shift 2
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(suite safetensors csv json peer history data)
cd "$(dirname "${BASH_SOURCE[0]}")"
source=$(cd ../.. && pwd)
mkdir -p "$build/findings"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Seeds: the files that users start from, and the small ones kept here.
seed() {
    mkdir -p "$work/$1"
    [ ! -d "corpus/$1" ] || cp "corpus/$1"/* "$work/$1"
    case $1 in
    suite) cp "$source"/suites/*.yaml "$work/$1" ;;
    safetensors) find "$source/tests/golden" -name '*.safetensors' -size -8k -exec cp {} "$work/$1" \; ;;
    esac
}

export ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1
export UBSAN_OPTIONS=print_stacktrace=1
export LSAN_OPTIONS=suppressions=$source/.ci/lsan.supp:print_suppressions=0
export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1
for target in "${targets[@]}"; do
    seed "$target"
    echo "fuzz_$target: $(find "$work/$target" -type f | wc -l) seeds, $seconds s"
    log=$work/$target.log
    "$build/tests/fuzz/fuzz_$target" "$work/$target" -dict="$target.dict" -max_total_time="$seconds" \
        -seed="${FUZZ_SEED:-0}" \
        -max_len=16384 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$build/findings/$target-" >"$log" 2>&1 || {
        tail -n 60 "$log"
        echo "fuzz_$target: a finding, kept in $build/findings"
        exit 1
    }
    grep -E 'number_of_executed_units|peak_rss_mb' "$log" | sed 's/^/    /'
done
