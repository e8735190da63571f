#!/bin/sh
# --help, help and the man page: every command and option is told, examples are real and fit.
# Usage: test_help.sh FLOWBENCH
set -eu
flowbench=${1:-${FLOWBENCH:?give the path of flowbench}}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

fail() {
    echo "FAIL: $*" >&2
    exit 1
}

# code WANTED ARGUMENT...
code() {
    wanted=$1
    shift
    got=0
    "$flowbench" "$@" >out 2>err || got=$?
    [ "$got" -eq "$wanted" ] || fail "exit $got, not $wanted: $* ($(cat err))"
}

code 0 --help
cp out overview
for c in 0 1 2 3 4 130 143; do
    grep -q "^ *$c  [a-z]" overview || fail "--help does not tell exit code $c"
done
commands=$(sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p' overview)
for wanted in run plot compare report history repro apply verify info list completion help; do
    echo "$commands" | grep -qx "$wanted" || fail "--help lacks $wanted"
done
! grep -q worker overview || fail "--help tells of the worker"
code 0 help
cmp -s out overview || fail "help and --help differ"

code 0 help --man
cp out flowbench.1
# The page as words, without roff's backslashes.
sed 's/\\f[BIR]//g; s/\\-/-/g; s/\\(aq/'"'"'/g' flowbench.1 >words
for command in $commands; do
    code 0 "$command" --help
    cp out help.txt
    code 0 help "$command"
    cmp -s out help.txt || fail "help $command differs from $command --help"
    grep -q '^Examples:' help.txt || fail "$command --help has no examples"
    # An example that did not fit would have been wrapped: every line of the block is indented.
    sed -n '/^Examples:/,/^$/p' help.txt | sed 1d | grep -v '^$' >examples
    [ "$(wc -l <examples)" -ge 2 ] || fail "$command --help has fewer than two examples"
    ! grep -qv '^  ' examples || fail "$command --help wraps an example: $(grep -v '^  ' examples)"
    grep -q 'flowbench\|\./bench' examples || fail "$command --help: examples of what?"
    [ "$(awk 'length > 79' help.txt | wc -l)" -eq 0 ] || fail "$command --help is wider than 79"
    grep -qx "\.SS $command" flowbench.1 || fail "the man page lacks $command"
    for option in $(grep -o -e '--[a-z-]*' help.txt | sort -u); do
        grep -q -e "$option" words || fail "the man page lacks $command $option"
    done
done
for command in run plot compare report history repro apply verify; do
    code 0 "$command" --help
    grep -q 'Exit codes:' out || fail "$command --help tells no exit codes"
done
code 0 run --help
for word in budget resume Ctrl-C; do
    grep -q "$word" out || fail "run --help does not explain $word"
done

# What roff and mandoc think of the page.
if command -v groff >/dev/null; then
    groff -man -Tutf8 -ww flowbench.1 >page 2>warnings || fail "groff: $(cat warnings)"
    [ ! -s warnings ] || fail "groff warns: $(cat warnings)"
fi
if command -v mandoc >/dev/null; then
    mandoc -T lint flowbench.1 >warnings 2>&1 || true
    ! grep -v 'referenced manual not found' warnings | grep -q . || fail "mandoc: $(cat warnings)"
fi

code 2 help runn
grep -q "did you mean 'run'?" err || fail "help runn: $(cat err)"
code 2 help worker
code 2 help run list
code 2 help --man run
code 2 hepl
grep -q "did you mean 'help'?" err || fail "hepl: $(cat err)"
echo "help: fine"
