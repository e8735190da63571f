#!/bin/sh
# The launcher on a tiny project of its own: first use, nothing to do, changed sources, a moved
# checkout, a broken build, two at once, missing packages. usage: test_launcher.sh SOURCE_DIR
set -eu
source=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
    echo "FAILED: $*" >&2
    [ ! -f "$work/err" ] || sed 's/^/    stderr: /' "$work/err" >&2
    exit 1
}
says() { grep -q -- "$1" "$work/err" || fail "stderr lacks '$1'"; }
is_silent() { [ ! -s "$work/err" ] || fail "chatter where none is due"; }
unset CC BENCH_BUILD_DIR BENCH_CMAKE_ARGS MAKEFLAGS || true
BENCH_NO_INSTALL=1
export BENCH_NO_INSTALL

new_project() {
    mkdir -p "$1"
    cp "$source/bench" "$1/bench"
    cat >"$1/CMakeLists.txt" <<'END'
cmake_minimum_required(VERSION 3.18)
project(tiny LANGUAGES C)
enable_testing()
option(TINY "" OFF)
add_executable(flowbench main.c)
if(TINY)
    target_compile_definitions(flowbench PRIVATE TINY)
endif()
add_executable(extra EXCLUDE_FROM_ALL main.c)
add_executable(checked main.c)
add_test(NAME passes COMMAND checked 0)
add_test(NAME other COMMAND checked 0)
END
    cat >"$1/main.c" <<'END'
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv)
{
#ifdef TINY
    puts("tiny");
#endif
    printf("one");
    for (int i = 1; i < argc; i++)
        printf(" <%s>", argv[i]);
    puts("");
    return argc > 1 ? atoi(argv[1]) : 0;
}
END
}

tree="$work/a tree"
new_project "$tree"

# First use, from another folder and through links; arguments and the exit code pass through.
mkdir "$work/bin"
ln -s "../a tree/bench" "$work/bin/link"
ln -s link "$work/bin/bench"
cd "$work"
code=0
out=$(bin/bench 7 'x y' '' 2>err) || code=$?
[ "$code" = 7 ] || fail "exit code $code, expected 7"
[ "$out" = "one <7> <x y> <>" ] || fail "output: $out"
says 'first use'

# Nothing to do: not a word, and nothing is built again.
stamp=$(stat -c %Y.%i "$tree/build/flowbench")
[ "$("$tree/bench" --help 2>err)" = "one <--help>" ] || fail "second use"
is_silent
[ "$stamp" = "$(stat -c %Y.%i "$tree/build/flowbench")" ] || fail "built again without need"
[ ! -e "$tree/build/checked" ] || fail "a plain run built the tests"

# Changed sources.
sed -i 's/"one"/"two"/' "$tree/main.c"
[ "$(cd "$tree" && sh bench 2>"$work/err")" = two ] || fail "the change was not built"
says 'building'

# Tests are built and run; ctest's arguments and its exit code pass through.
(cd "$tree" && ./bench test -R passes >"$work/out" 2>"$work/err") || fail "bench test"
grep -q '100% tests passed.* out of 1' "$work/out" || fail "bench test -R passes"
sed -i 's/add_test(NAME other COMMAND checked 0)/add_test(NAME other COMMAND checked 3)/' \
    "$tree/CMakeLists.txt"
! "$tree/bench" test >"$work/out" 2>"$work/err" || fail "a failing test was not reported"
grep -q '1 tests failed' "$work/out" || fail "the failing test is not in the summary"

# A moved checkout is configured anew.
mv "$tree" "$work/moved"
tree=$work/moved
[ "$("$tree/bench" 2>err)" = two ] || fail "moved checkout"
grep -q "CMAKE_HOME_DIRECTORY:INTERNAL=$tree\$" "$tree/build/CMakeCache.txt" || fail "stale cache"

# Arguments for CMake, and their disappearance.
[ "$(BENCH_CMAKE_ARGS='-DTINY=ON -DX=1' "$tree/bench" 2>err)" = "tiny
two" ] || fail "BENCH_CMAKE_ARGS"
[ "$("$tree/bench" 2>err)" = two ] || fail "BENCH_CMAKE_ARGS stuck"

# Another build folder, relative to where the user is; make in place of ninja.
(cd "$work/bin" && BENCH_BUILD_DIR=elsewhere "$tree/bench" >out 2>"$work/err") || fail "BUILD_DIR"
[ -x "$work/bin/elsewhere/flowbench" ] || fail "BENCH_BUILD_DIR was not used"

# A build that fails: exit code 1, the compiler's words, the log.
cp "$tree/main.c" "$work/main.c"
echo 'int broken(' >>"$tree/main.c"
code=0
"$tree/bench" 0 >out 2>err || code=$?
[ "$code" = 1 ] || fail "exit code $code for a broken build, expected 1"
says 'error:'
says "building failed; the whole log is $tree/build/bench-build.log"
cp "$work/main.c" "$tree/main.c"
[ "$("$tree/bench" 2>err)" = two ] || fail "no recovery after a broken build"

# A second launcher waits for the first, with flock and without. The real tools are reached through
# a folder of links, in which single ones can be left out.
tools=$work/tools
mkdir "$tools"
for tool in ar as awk basename cat cc cmake cp ctest dirname env expr find flock gcc getconf gnuplot grep head \
    id ld ln ls make mkdir mktemp mv ninja pkg-config printf pwd ranlib readlink rm rmdir sed sh sleep tail \
    touch tr uname; do
    if path=$(command -v "$tool") && [ -x "$path" ]; then
        ln -s "$path" "$tools/$tool"
    fi
done
for mode in with without; do
    [ "$mode" = with ] || rm -f "$tools/flock"
    new_project "$work/both-$mode"
    (PATH=$tools "$work/both-$mode/bench" 0 first >out1 2>err1) &
    (PATH=$tools "$work/both-$mode/bench" 0 second >out2 2>err2) &
    wait
    [ "$(cat out1 out2)" = "one <0> <first>
one <0> <second>" ] || fail "two at once, $mode flock: $(cat err1 err2)"
    count=$(cat err1 err2 | grep -c 'first use')
    [ "$count" = 1 ] || fail "two at once, $mode flock: built $count times"
done
# A lock left by a launcher that was killed.
ln -s "$(uname -n):999999999" "$work/both-without/build/.bench-lock.link"
timeout 20 env PATH="$tools" "$work/both-without/bench" 0 >out 2>err || fail "a stale lock stays"
[ ! -e "$work/both-without/build/.bench-lock.break" ] || fail "the break lock stays"

# Missing packages: each manager's command, exit code 1; only a warning for gnuplot.
missing_with() {
    rm -f "$tools/apt-get" "$tools/dnf" "$tools/pacman"
    [ "$1" = none ] || ln -s /bin/false "$tools/$1"
    code=0
    PATH=$tools "$tree/bench" 0 >out 2>err || code=$?
}
rm "$tools/gnuplot"
missing_with apt-get
[ "$code" = 0 ] || fail "without gnuplot nothing runs"
says 'apt-get install -y --no-install-recommends gnuplot-nox'
says 'warning'
ln -s /bin/true "$tools/gnuplot"
# pkg-config that knows no jansson.
rm "$tools/pkg-config"
cat >"$tools/pkg-config" <<'END'
#!/bin/sh
case $* in
*jansson*) exit 1 ;;
esac
END
chmod +x "$tools/pkg-config"
missing_with apt-get
[ "$code" = 1 ] || fail "exit code $code without jansson, expected 1"
says 'apt-get install -y --no-install-recommends libjansson-dev$'
missing_with dnf
says 'dnf install -y jansson-devel$'
missing_with pacman
says 'pacman -S --needed jansson$'
missing_with none
says 'jansson$'
[ "$code" = 1 ] || fail "exit code $code on an unknown system, expected 1"
# Nothing at all but the shell's tools.
rm -f "$tools/pkg-config" "$tools/cc" "$tools/cmake" "$tools/ninja" "$tools/make" "$tools/gnuplot"
missing_with apt-get
says 'gcc libc6-dev cmake ninja-build pkg-config libyaml-dev libjansson-dev libhwloc-dev '
says ' libsqlite3-dev libxxhash-dev libcmocka-dev libopenblas-dev gnuplot-nox$'
[ "$code" = 1 ] || fail "exit code $code without anything, expected 1"
# With leave to install, apt-get is called, and its failure reported.
rm -f "$tools/apt-get"
cat >"$tools/apt-get" <<END
#!/bin/sh
echo "\$DEBIAN_FRONTEND \$*" >>"$work/apt-calls"
exit 100
END
chmod +x "$tools/apt-get"
if [ "$(id -u)" = 0 ]; then
    code=0
    BENCH_NO_INSTALL='' PATH=$tools "$tree/bench" 0 >out 2>err || code=$?
    [ "$code" = 1 ] || fail "exit code $code after a failed installation, expected 1"
    says 'installing: '
    says 'the installation failed'
    grep -q 'noninteractive .*update' apt-calls || fail "no apt-get update"
    grep -q 'noninteractive .*install -y --no-install-recommends gcc' apt-calls || fail "no install"
fi
echo "launcher: all checks passed"
