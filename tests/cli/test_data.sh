#!/bin/sh
# flowbench data: the list, downloads from a folder that stands for their home, refusals.
# Usage: test_data.sh PATH_OF_FLOWBENCH
set -eu
flowbench=${1:-${FLOWBENCH:?give the path of flowbench}}
for program in curl tar sha256sum; do
    command -v $program >/dev/null || {
        echo "no $program: skipped"
        exit 77
    }
done
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset FLOWBENCH_DATA
home=file://$folder/home

fail() {
    echo "FAIL: $*" >&2
    exit 1
}

# code WANTED ARGUMENT...: stdout in ./out, stderr in ./err
code() {
    wanted=$1
    shift
    got=0
    "$flowbench" data "$@" >out 2>err || got=$?
    [ "$got" -eq "$wanted" ] || fail "exit $got, not $wanted: $* ($(cat err))"
}

has() {
    grep -q -- "$2" "$1" || fail "$1 lacks '$2': $(cat "$1")"
}

code 0 list
has out '^listops  *missing  *-  data make listops'
has out '^JapaneseVowels  *missing  *-  data fetch JapaneseVowels'
has err 'data folder: data'
FLOWBENCH_DATA=$folder/elsewhere "$flowbench" data list 2>&1 | grep -q elsewhere || fail "FLOWBENCH_DATA"
code 2
code 2 lisst
has err "did you mean 'list'?"
code 2 check imag
has err "did you mean 'image'?"
code 2 fetch
code 2 fetch listops
has err 'data make listops'
code 2 make text
has err 'data fetch text'
code 2 list --url x
code 2 check image
has err 'image is not complete'
code 0 check
[ ! -s out ] || fail "nothing is there, yet checked: $(cat out)"

# A folder of reviews as a tar archive: taken from it, with a new sum on record.
mkdir -p home
for part in train/neg train/pos test/neg test/pos; do
    mkdir -p "home/aclImdb/$part"
    echo "a review of $part" >"home/aclImdb/$part/0_1.txt"
done
echo other >home/aclImdb/README
tar -C home -czf home/reviews.tar.gz aclImdb
code 0 fetch text --url "$home/reviews.tar.gz" --data-dir d
has out '^d/aclImdb$'
has err 'so it is recorded'
has d/recorded.sha256 'download/text$'
[ "$(cat d/aclImdb/test/pos/0_1.txt)" = 'a review of test/pos' ] || fail "a review is not there"
[ ! -e d/aclImdb/README ] || fail "more than the reviews was unpacked"
[ -z "$(find d/.downloads -type f)" ] || fail "left over: $(find d/.downloads)"
code 0 list -d d
has out '^text  *complete'
code 2 check text -d d
has out '^text  *wrong'
has err '2 training examples, not 25000'

# Complete: nothing is downloaded. Partial: what is there stays until all of the new is verified.
code 0 fetch text --url "$home/nothing" -d d
rm -r d/aclImdb/test/pos
echo kept >d/aclImdb/train/neg/0_1.txt
code 1 fetch text --url "$home/nothing" -d d
has err 'curl gave up'
has err 'goes on from'
echo changed >home/aclImdb/README
tar -C home -czf home/changed.tar.gz aclImdb
code 2 fetch text --url "$home/changed.tar.gz" -d d
has err 'changed at its home'
[ "$(cat d/aclImdb/train/neg/0_1.txt)" = kept ] || fail "a failed download replaced a file"
[ ! -e d/aclImdb/test/pos ] || fail "a failed download was unpacked"

# An interrupted download goes on.
mkdir -p d/.downloads
head -c 100 home/reviews.tar.gz >d/.downloads/text.part
code 0 fetch text --url "$home/reviews.tar.gz" -d d
[ -e d/aclImdb/test/pos/0_1.txt ] || fail "the resumed download is not there"
[ "$(cat d/aclImdb/train/neg/0_1.txt)" = 'a review of train/neg' ] || fail "not the download's file"

# Sums that are known, and archives that are none.
echo 'First Citizen' >home/input.txt
code 2 fetch tiny-shakespeare --url "$home/input.txt" -d d
has err 'SHA-256'
[ ! -e d/tiny-shakespeare ] || [ -z "$(find d/tiny-shakespeare -type f)" ] || fail "a wrong file was kept"
code 2 fetch retrieval --url "$home/input.txt" -d d
has err 'cannot unpack'
if command -v unzip >/dev/null; then
    code 2 fetch JapaneseVowels --url "$home/input.txt" -d d
    has err 'unzip cannot unpack'
fi
tar -C home -czf home/lacking.tar.gz input.txt
rm -f d/recorded.sha256 d/.downloads/*.part
code 2 fetch retrieval --url "$home/lacking.tar.gz" -d d
has err 'lacks one of the files'
echo "data: fine"
