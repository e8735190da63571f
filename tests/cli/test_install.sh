#!/bin/sh
# Installs into a private prefix, compiles examples/first_call.c against it as a user would, moves
# the prefix, and does it again. usage: test_install.sh SOURCE_DIR BUILD_DIR COMPILER
set -eu
source=$1 build=$2 cc=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
    echo "FAILED: $*" >&2
    exit 1
}

cmake --install "$build" --prefix "$work/first" >"$work/log" 2>&1 || {
    cat "$work/log" >&2
    fail "cmake --install"
}

compile_and_run() {
    pc=$(find "$1" -name flowbench.pc)
    [ -n "$pc" ] || fail "no flowbench.pc under $1"
    PKG_CONFIG_PATH=$(dirname "$pc")${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
    export PKG_CONFIG_PATH
    [ "$(pkg-config --modversion flowbench)" = "$(cat "$source/VERSION")" ] || fail "version"
    # shellcheck disable=SC2046
    "$cc" -std=c17 -Wall -Wextra -Werror "$source/examples/first_call.c" \
        $(pkg-config --cflags --libs flowbench) -o "$work/first_call" || fail "compiling"
    "$work/first_call" >"$work/out" || fail "the example exits with $?"
    grep -Eq '^out\[0\]\[0\]\[0\] = -?[0-9]+\.[0-9]+, ' "$work/out" || fail "$(cat "$work/out")"
}

compile_and_run "$work/first"
mv "$work/first" "$work/second"
compile_and_run "$work/second"

# The headers serve C++ as well.
if command -v c++ >/dev/null 2>&1; then
    # shellcheck disable=SC2046
    printf '#include <flowbench/registry.h>\nint main() { return fb_mechanism_find("flow") == 0; }\n' |
        c++ -x c++ -Wall -Wextra -Werror -fsyntax-only - \
            $(pkg-config --cflags flowbench) || fail "the headers in C++"
fi

if [ -x "$build/flowbench" ]; then
    [ "$("$work/second/bin/flowbench" --version)" = "$("$build/flowbench" --version)" ] ||
        fail "the installed program differs"
    [ -f "$work/second/share/flowbench/suites/quick.yaml" ] || fail "no suites"
    find "$work/second/share/flowbench/plots" -name '*.gp' | grep -q . || fail "no plot scripts"
    for file in bash-completion/completions/flowbench zsh/site-functions/_flowbench \
        fish/vendor_completions.d/flowbench.fish man/man1/flowbench.1; do
        [ -s "$work/second/share/$file" ] || fail "no share/$file"
    done
fi
echo "install: all checks passed"
