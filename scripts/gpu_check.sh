#!/usr/bin/env bash
# Everything that needs a GPU, in one command: golden vectors in every dtype, the kernel tests, the
# sanitizers on small shapes, every device kernel against float64, then the measurements.
#
#   scripts/gpu_check.sh                      builds here and checks here
#   scripts/gpu_check.sh --pack FILE.tar.xz   builds here for a machine with a GPU but no packages:
#                                             program, tests, data and the libraries they need (the
#                                             name's end says how it is packed; .tgz: 5 times as large)
#   tar xf FILE.tar.xz && gpu-pack/gpu_check.sh --packed [--out DIR]     checks there
#
# --out DIR: where logs and the runs' folders go (default: results/gpu-check); --only STEP[,STEP...]:
# info verify tests sanitize check measure, and peers, which is not among those by default: PyTorch
# beside ours. Exit code: 0 when every step passed.
# shellcheck disable=SC2317  # steps are called by name
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
pack='' packed=false out='' only=info,verify,tests,sanitize,check,measure
while [ $# -gt 0 ]; do
    case $1 in
    --pack) pack=$2 && shift ;;
    --packed) packed=true ;;
    --out) out=$2 && shift ;;
    --only) only=$2 && shift ;;
    *) echo "gpu_check: unknown argument '$1'; see the head of $0" >&2 && exit 2 ;;
    esac
    shift
done

kernel_tests='test_kernels_oracle test_kernels_contract test_kernels_gradient test_kernels_decode
test_kernels_dtype test_kernels_paths test_cuda_device test_training_cuda test_training_bf16'

build() {
    cmake -S "$root" -B "$root/build-gpu" -G Ninja -DCMAKE_BUILD_TYPE=Release -DFLOWBENCH_CUDA=ON \
        >/dev/null && cmake --build "$root/build-gpu"
}

# The program's and the tests' libraries, but those that every Linux has.
libraries_of() {
    ldd "$@" | awk '$3 ~ /^\// { print $3 }' | sort -u |
        grep -vE '/(libc|libm|libdl|librt|libpthread|ld-linux[^/]*)\.so'
}

make_pack() {
    local stage
    stage=$(mktemp -d)
    # shellcheck disable=SC2064
    trap "rm -rf '$stage'" EXIT
    local to=$stage/gpu-pack test
    mkdir -p "$to/bin" "$to/lib"
    cp "$root/build-gpu/flowbench" "$to/bin"
    for test in $kernel_tests; do
        find "$root/build-gpu" -name "$test" -type f -perm -u+x -exec cp {} "$to/bin" \;
    done
    strip "$to"/bin/*
    libraries_of "$to"/bin/* | xargs -I{} cp -L {} "$to/lib"
    cp -r "$root/suites" "$root/tests/golden" "$to"
    mkdir -p "$to/share/flowbench" && cp -r "$root/baselines/external" "$to/share/flowbench"
    cp "$here/gpu_check.sh" "$to"
    # the programs hold the same device code: a window that spans two of them
    XZ_OPT=${XZ_OPT:---threads=0 --lzma2=preset=3,dict=128MiB} tar -C "$stage" -caf "$pack" gpu-pack
    echo "packed: $pack"
}

# cuBLAS for the GEMM ceiling: where the linker finds it, else from Python's packages.
find_cublas() {
    ldconfig -p | grep -q 'libcublas\.so' && return 0
    local found
    found=$(find /usr/local/cuda*/ /opt /usr/lib -name 'libcublas.so.1[23]' 2>/dev/null | head -n 1)
    [ -n "$found" ] && export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}${found%/*}
}

# cuDNN, for softmax by it: likewise.
find_cudnn() {
    [ -n "${FLOWBENCH_CUDNN:-}" ] && return 0
    ldconfig -p | grep -q 'libcudnn\.so\.9' && return 0
    local found
    found=$(find /usr/local/cuda*/ /opt /usr/lib -name 'libcudnn.so.9' 2>/dev/null | head -n 1)
    [ -n "$found" ] && export FLOWBENCH_CUDNN=$found
}

failed=0
step() { # NAME command...
    local name=$1
    shift
    case ,$only, in *,"$name",*) ;; *) return 0 ;; esac
    SECONDS=0
    if "$@" >"$out/$name.log" 2>&1; then
        printf '%-9s ok      %4d s\n' "$name" "$SECONDS"
    else
        printf '%-9s FAILED  %4d s: %s\n' "$name" "$SECONDS" "$out/$name.log"
        grep -E 'FAIL|ERROR|error' "$out/$name.log" | head -n 5
        failed=1
    fi
}

program() { find "$bin" -name "$1" -type f -perm -u+x | head -n 1; }

info() { "$flowbench" info; }

verify() {
    local dtype
    for dtype in f32 bf16 f16; do
        "$flowbench" verify --device cuda --dtype "$dtype" "$data"/golden/golden-{flow,softmax,linear,performer,local}-*.safetensors ||
            return 1
    done
}

tests() {
    local test
    for test in $kernel_tests; do
        KERNEL_CASE_DEVICE=cuda "$(program "$test")" || return 1
    done
}

# Whether a log has nothing but the pair that racecheck reports of causal flow's gradient in clusters
# and of the kernel that computes what this needs, a write by one side of a team and a read by all of
# it: the barrier of the team's 256 threads stands between them in the machine code
# (docs/performance-log.md, 2026-11-27).
only_known_races() {
    grep -q '\[  PASSED  \]' "$1" && ! grep -q '\[  FAILED  \]' "$1" &&
        grep -q 'Race reported' "$1" &&
        ! grep -E 'Race reported|and (Read|Write) access' "$1" | grep -qvE 'causal_(sides|walk)_kernel' &&
        ! grep -E '^=+ (Internal|Invalid|Uninit)' "$1"
}

sanitize_one() { # TOOL TEST [ARGUMENT]
    compute-sanitizer --tool "$1" --error-exitcode 9 "$(program "$2")" ${3:+"$3"}
}

# Small problems for every kernel, and decoding, untimed: a sanitizer serialises kernels, and a
# blocking kernel would wait. Without cuDNN, whose kernels are not ours to check. All side by side;
# racecheck, which is slow, by mechanism.
sanitize() {
    local tool mechanism run status=0
    local -x FLOWBENCH_CUDNN=/none KERNEL_CASE_DEVICE=cuda
    local -a runs=()
    local -A jobs
    for tool in memcheck initcheck; do
        runs+=("$tool test_kernels_paths")
    done
    for mechanism in flow softmax linear performer local; do
        runs+=("racecheck test_kernels_paths $mechanism")
    done
    for tool in memcheck initcheck racecheck; do
        runs+=("$tool test_kernels_decode short")
    done
    for run in "${runs[@]}"; do
        # shellcheck disable=SC2086  # tool, test, its argument if any
        sanitize_one $run >"$out/sanitize-${run// /-}.log" 2>&1 &
        jobs[$run]=$!
    done
    for run in "${runs[@]}"; do
        if ! wait "${jobs[$run]}" && ! only_known_races "$out/sanitize-${run// /-}.log"; then
            echo "FAILED: $out/sanitize-${run// /-}.log"
            status=1
        fi
        echo "$run: $(grep SUMMARY "$out/sanitize-${run// /-}.log")"
    done
    return "$status"
}

check() { "$flowbench" run "$data/suites/gpu-check.yaml" --out "$out/check" && no_bad_rows "$out/check"; }
measure() { "$flowbench" run "$data/suites/gpu.yaml" --out "$out/measure" && no_bad_rows "$out/measure"; }
peers() { "$flowbench" run "$data/suites/gpu-peers.yaml" --out "$out/peers" && no_bad_rows "$out/peers"; }
no_bad_rows() { ! grep -E ',(wrong|crash|error|timeout),' "$1/results.csv"; }

if $packed; then
    root=$here bin=$here/bin data=$here
    flowbench=$bin/flowbench
    export LD_LIBRARY_PATH=$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
else
    root=$(dirname "$here") && bin=$root/build-gpu
    data=$bin/gpu-data flowbench=$bin/flowbench
    build || exit 1
    mkdir -p "$data" && cp -r "$root/suites" "$root/tests/golden" "$data"
fi
if [ -n "$pack" ]; then
    make_pack
    exit
fi
out=${out:-results/gpu-check}
mkdir -p "$out"
find_cublas || echo "no cuBLAS found: rows will lack their floor"
find_cudnn || echo "no cuDNN found: softmax/cudnn is skipped"
for name in info verify tests sanitize check measure peers; do
    step "$name" "$name"
done
exit $failed
