# shellcheck shell=bash
# The stages of .ci/run, one function each; stage_title says what each one proves.

ci_jobs=$(nproc)

stage_title() {
    case $1 in
    launcher) echo "the launcher installs what is missing and builds with gcc, warnings as errors" ;;
    tools) echo "packages of the checks themselves" ;;
    format) echo "clang-format" ;;
    shell) echo "shellcheck" ;;
    unit) echo "unit tests" ;;
    cuda) echo "every .cu compiles without warnings, and what needs no GPU is right" ;;
    emulated) echo "CUDA kernels agree with the oracle on an emulated device" ;;
    quick) echo "suites/quick.yaml end to end" ;;
    browser) echo "reports in headless Chromium: sorting, filters, keyboard, phone, dark, paper" ;;
    gate) echo "instruction counts, memory and errors against the committed reference" ;;
    planted) echo "a wrong kernel turns the tests red" ;;
    neon) echo "cross-compiled for 64-bit Arm, run in an emulator" ;;
    clang) echo "clang, warnings as errors, unit tests" ;;
    sanitize) echo "AddressSanitizer, LeakSanitizer and UndefinedBehaviourSanitizer" ;;
    valgrind) echo "valgrind on one small run" ;;
    fuzz) echo "fuzz targets, 20 s each" ;;
    tidy) echo "clang-tidy" ;;
    *) echo "no such stage" ;;
    esac
}

c_files() { find kernels baselines training harness tests examples -name '*.[ch]' -print0; }

stage_launcher() {
    ./bench --version
    ./bench list mechanisms
}

stage_tools() {
    local packages=(clang-14 clang-format-14 clang-tidy-14 libclang-rt-14-dev libomp-14-dev valgrind
        gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user shellcheck
        chromium fonts-dejavu-core python3)
    local missing=() package
    for package in "${packages[@]}"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
            missing+=("$package")
    done
    if [ ${#missing[@]} -eq 0 ]; then
        return 0
    fi
    echo "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/tmp/flowbench-ci-apt.log 2>&1 ||
        { tail -n 30 /tmp/flowbench-ci-apt.log && return 1; }
}

stage_format() { c_files | xargs -0 clang-format-14 --dry-run -Werror; }

stage_shell() {
    shellcheck bench .ci/run .ci/*.sh scripts/*.sh
    shellcheck -s dash -x -P SCRIPTDIR -S warning tests/cli/*.sh tests/faults/*.sh
    shellcheck tests/fuzz/*.sh
}

# The launcher's build holds the device code where nvcc is. No runner of ours has a GPU: the tests that
# need one are named, not passed over in silence.
stage_cuda() {
    if ! command -v nvcc >/dev/null && [ ! -x /usr/local/cuda/bin/nvcc ]; then
        echo "no nvcc here: device code is not compiled"
        return 0
    fi
    ./bench test -R cuda --no-tests=error
    if cmake --build build | grep 'Building CUDA object'; then
        echo "device code that has not changed is compiled again"
        return 1
    fi
    ./bench list mechanisms | grep 'cuda:'
    if ! ./bench verify --device cuda tests/golden/golden-flow-0.safetensors; then
        echo "skipped for want of a GPU: verify --device cuda, test_kernels_* on device variants," \
            "suites/gpu.yaml; scripts/gpu_check.sh runs them where there is one"
    fi
}

# No GPU and no nvcc, but the toolkit's headers: the kernels themselves run, on tests/emulator.
stage_emulated() {
    if [ ! -e "${CUDA_HOME:-/usr/local/cuda}/include/cuda_runtime_api.h" ]; then
        echo "no headers of a CUDA toolkit here (CUDA_HOME): kernels are not run"
        return 0
    fi
    rm -rf build-emulated
    cmake --preset emulated -D CMAKE_C_COMPILER=clang-14 -D CMAKE_CXX_COMPILER=clang++-14 >/dev/null
    cmake --build --preset emulated
    ctest --preset emulated -j "$ci_jobs" --no-tests=error
}

stage_unit() { ./bench test -L unit -j "$ci_jobs"; }

# preset_tests PRESET COMPILER [ctest arguments]
preset_tests() {
    local preset=$1 compiler=$2
    shift 2
    rm -rf "build-$preset"
    cmake --preset "$preset" -D CMAKE_C_COMPILER="$compiler" >/dev/null
    cmake --build --preset "$preset"
    ctest --preset "$preset" "$@"
}

stage_clang() { preset_tests clang clang-14 -L unit -j "$ci_jobs"; }
# Unit tests reach every line that the command's tests reach; of those only the hostile ones add to
# what a sanitizer sees.
stage_sanitize() { preset_tests sanitize clang-14 -L 'unit|hostile' -j "$ci_jobs"; }

stage_fuzz() {
    rm -rf build-fuzz
    cmake --preset fuzz -D CMAKE_C_COMPILER=clang-14 >/dev/null
    cmake --build --preset fuzz
    FUZZ_SEED=1 bash tests/fuzz/run_fuzz.sh build-fuzz 20
}

# The kernels alone: no emulator runs a harness that measures. The check needs no test library.
stage_neon() {
    rm -rf build-aarch64
    cmake --preset aarch64 >/dev/null
    cmake --build --preset aarch64
    ctest --preset aarch64 --verbose
}

stage_quick() {
    local out
    out=$(mktemp -d)
    # shellcheck disable=SC2064
    trap "rm -rf '$out'" EXIT
    ./bench run suites/quick.yaml --out "$out/run"
    bash .ci/check_run.sh "$out/run"
    # A finished run, resumed, measures nothing again.
    cp "$out/run/results.csv" "$out/before.csv"
    ./bench run --resume "$out/run"
    cmp "$out/run/results.csv" "$out/before.csv"
    # The pictures can be drawn anew from the stored files.
    rm -rf "$out/run/plots"
    ./bench plot "$out/run"
    bash .ci/check_run.sh "$out/run"
}

# With no browser the check exits with 77; that is a failure here, since "tools" has installed one.
stage_browser() { timeout 300 python3 tests/browser/check_report.py build/flowbench; }

# The first build may have come before valgrind, and so before the header that counting takes.
stage_gate() {
    cmake build >/dev/null
    ./bench --version >/dev/null
    bash .ci/instructions.sh check
}

# In a copy of the sources one line of a kernel is made wrong. Tests that stay green there are
# worth nothing, so this stage fails unless they go red.
stage_planted() {
    local copy
    copy=$(mktemp -d)
    # shellcheck disable=SC2064
    trap "rm -rf '$copy'" EXIT
    cp -r CMakeLists.txt VERSION LICENSE README.md CHANGELOG.md cmake kernels baselines training harness \
        suites plots tests examples "$copy"
    cmake -S "$copy" -B "$copy/build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
        -DFLOWBENCH_HARNESS=OFF -DFLOWBENCH_CUDA=OFF >/dev/null
    cmake --build "$copy/build" --target kernel_selfcheck >/dev/null
    ctest --test-dir "$copy/build" -R '^kernel_selfcheck$' --no-tests=error --quiet ||
        { echo "red before the fault" && return 1; }
    bash .ci/plant_fault.sh "$copy"
    cmake --build "$copy/build" --target kernel_selfcheck >/dev/null
    local output
    if output=$(ctest --test-dir "$copy/build" -R '^kernel_selfcheck$' --output-on-failure); then
        echo "the planted fault was not noticed"
        return 1
    fi
    echo "the planted fault was noticed, as it should be:"
    grep FAILED <<<"$output" | head -n 4 | sed 's/^/    /'
}

# --trace-children: the workers, where the kernels run, are looked at as well.
stage_valgrind() {
    local out
    out=$(mktemp -d)
    # shellcheck disable=SC2064
    trap "rm -rf '$out'" EXIT
    valgrind --quiet --error-exitcode=99 --trace-children=yes --trace-children-skip='*gnuplot*' \
        --leak-check=full --errors-for-leak-kinds=definite --suppressions=.ci/valgrind.supp \
        build/flowbench run suites/quick.yaml --out "$out/run" --filter \
        'mechanism=flow,seq_len<=256' --set limits.case_timeout='300 s' --set 'plots=[]'
    grep -q ',ok,' "$out/run/results.csv"
}

# Nothing is compiled but what the sources include. With assertions on, the analyzer knows what we
# know; each kernel is looked at for one instruction set.
stage_tidy() {
    rm -rf build-tidy
    cmake --preset tidy -D CMAKE_C_COMPILER=clang-14 >/dev/null
    cmake --build --preset tidy >/dev/null
    # Not the tests: their assertions end a test by a jump that the analyzer does not follow.
    # Only what is built: the sources of the CUDA backend, or of a build without it, not both. Not what
    # the build writes itself.
    grep -o '"file": "[^"]*\.c"' build-tidy/compile_commands.json | cut -d'"' -f4 | sort -u |
        grep -E '/(kernels|baselines|training|harness|examples)/' | grep -v '/build-tidy/' | tr '\n' '\0' |
        xargs -0 -P "$ci_jobs" -n 1 clang-tidy-14 -p build-tidy --quiet 2>/dev/null
}
