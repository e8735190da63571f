#!/bin/sh
# flowbench info: facts for people and as JSON, and the refusal of what it does not know.
set -eu
flowbench=${1:-$FLOWBENCH}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

fail() {
    echo "FAIL: $*" >&2
    exit 1
}

"$flowbench" info >text.out 2>text.err || fail "info exits with $?"
[ ! -s text.err ] || fail "info writes to stderr: $(cat text.err)"
for word in Machine Processor System Build identity isa memory compiler; do
    grep -q "$word" text.out || fail "info does not say '$word'"
done
# Every warning names its remedy.
if grep -q '^Warnings' text.out; then
    warnings=$(sed '1,/^Warnings/d' text.out | grep -c '^  [a-z-]*: ')
    remedies=$(sed '1,/^Warnings/d' text.out | grep -c '^    remedy: .')
    [ "$warnings" -gt 0 ] && [ "$warnings" -eq "$remedies" ] ||
        fail "$warnings warnings but $remedies remedies"
fi

"$flowbench" info --json >info.json 2>json.err || fail "info --json exits with $?"
[ ! -s json.err ] || fail "info --json writes to stderr"
for key in identity name cpu isas caches openblas build warnings; do
    grep -q "\"$key\"" info.json || fail "the JSON lacks \"$key\""
done
[ "$(head -c 1 info.json)" = "{" ] && [ "$(tail -n 1 info.json)" = "}" ] ||
    fail "the JSON is not one object"

# The identity is a property of the machine, not of the moment.
first=$(grep '"identity"' info.json)
"$flowbench" info --json | grep -qF "$first" || fail "the identity changed between two calls"

code=0
"$flowbench" info --jsno >bad.out 2>bad.err || code=$?
[ "$code" -eq 2 ] || fail "an unknown option exits with $code, not 2"
[ ! -s bad.out ] || fail "a usage error writes to stdout"
code=0
"$flowbench" info extra >/dev/null 2>&1 || code=$?
[ "$code" -eq 2 ] || fail "an argument exits with $code, not 2"
echo ok
