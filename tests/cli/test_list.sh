#!/bin/sh
# flowbench list, --help, --version and unknown commands. Usage: test_list.sh PATH_OF_FLOWBENCH
set -eu
flowbench=${1:-${FLOWBENCH:?give the path of flowbench}}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

fail() {
    echo "FAIL: $*" >&2
    exit 1
}

# code WANTED COMMAND...: runs it with stdout in ./out, stderr in ./err
code() {
    wanted=$1
    shift
    got=0
    "$@" >out 2>err || got=$?
    [ "$got" -eq "$wanted" ] || fail "exit $got, not $wanted: $* ($(cat err))"
}

has() {
    grep -q -- "$2" "$1" || fail "$1 lacks '$2': $(cat "$1")"
}

code 0 "$flowbench" --version
grep -Eq '^flowbench [0-9]+\.[0-9]+\.[0-9]+$' out || fail "version: $(cat out)"
code 0 "$flowbench" --help
has out 'Usage: flowbench SUITE.yaml'
code 2 "$flowbench"
code 2 "$flowbench" lisst
has err "did you mean 'list'?"
[ ! -s out ] || fail "an error on stdout"

code 0 "$flowbench" list mechanisms
for mechanism in flow softmax linear performer local; do
    has out "^$mechanism "
done
has out 'scalar'
code 0 "$flowbench" list params
has out '^performer  *features  *int  *256'
has out '^local  *window  *int  *128'

# Without ./suites the source tree's are listed, with it only those.
code 0 "$flowbench" list suites
has out '/suites/scaling.yaml'
mkdir suites
printf 'suite: mine\ntitle: My own\nsweep: {mechanism: flow, seq_len: [16, 32]}\n' >suites/mine.yaml
printf 'suite: broken\nsweeep: {}\n' >suites/broken.yaml
code 0 "$flowbench" list suites
has out '^suites/mine.yaml  *mine  *2 My own'
has out '^suites/broken.yaml  *-  *- broken'
has err "broken.yaml:2:1: error: unknown key 'sweeep' in the suite; did you mean 'sweep'?"

code 0 "$flowbench" list tasks
has out '^adder '
has out '^JapaneseVowels  *series  *accuracy  *files  *UEA '

code 2 "$flowbench" list
code 2 "$flowbench" list mechanism
has err "did you mean 'mechanisms'?"
code 2 "$flowbench" list params suites
code 2 "$flowbench" list --nonsense
code 0 "$flowbench" list --help
has out 'mechanisms'
if [ -w /dev/full ]; then
    got=0
    "$flowbench" list mechanisms >/dev/full 2>err || got=$?
    [ "$got" -eq 1 ] || fail "a full disk gave exit $got"
fi
echo "list: fine"
