#!/bin/sh
# Files that are no history, no history any more, or of another time: refused in words, exit code 2,
# within 5 s and 1 GiB, and not written to.
made=$(cd "$(dirname "$0")/../cli" && pwd)/make_history.awk
. "$(dirname "$0")/faults_common.sh"
awk -v runs=40 -v kind=flat -f "$made" >good.csv || fail "awk"
expect_exit 0 history import good.csv --db good.sqlite
size=$(wc -c <good.sqlite)

# refused FILE WORDS: by every action that opens it.
refused() {
    cp "$1" kept
    for action in show check export 'import good.csv'; do
        # shellcheck disable=SC2086
        expect_refusal 2 history $action --db "$1"
        expect_words "$2"
        cmp -s "$1" kept || fail "history $action wrote to $1"
    done
    rm -f kept
}

head -c $((size / 2)) good.sqlite >cut.sqlite
refused cut.sqlite "'cut.sqlite' is cut: "
head -c $((size - 1)) good.sqlite >cut.sqlite
refused cut.sqlite "'cut.sqlite' is cut: "
head -c 90 good.sqlite >cut.sqlite
refused cut.sqlite 'it is no SQLite database'
refused good.csv 'a CSV comes in by .flowbench history import'
# The application id (byte 68) and the format (byte 60) of the header.
patch() { # FILE BYTE OCTAL...
    cp good.sqlite "$1"
    printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}
patch foreign.sqlite 68 '\000\000\000\001'
refused foreign.sqlite 'an SQLite database of another program'
patch future.sqlite 60 '\000\000\000\011'
refused future.sqlite 'format 9, newer than 1'
patch old.sqlite 60 '\000\000\000\000'
refused old.sqlite 'its format is 0'
# Scribbles: wherever they fall, the file is refused or what it still says is whole; never a crash.
page=0
while [ $page -lt $((size / 4096)) ]; do
    for offset in 0 100 2048 4000; do
        patch scribbled.sqlite $((page * 4096 + offset)) '\377\000\377\001\377\377\003\377'
        for action in show check export; do
            (ulimit -d $REFUSAL_KIB && exec timeout 5 "$FLOWBENCH" history $action \
                --db scribbled.sqlite) >last.out 2>last.err
            code=$?
            [ $code -eq 0 ] || [ $code -eq 2 ] || [ $code -eq 3 ] ||
                fail "page $page offset $offset: history $action: exit $code"
            [ $code -ne 2 ] || [ -s last.err ] || fail "refused without words"
        done
    done
    page=$((page + 1))
done

# ---- CSV -------------------------------------------------------------------------------------------
# import_refused FILE WORDS
import_refused() {
    expect_refusal 2 history import "$1" --db new.sqlite
    expect_words "$2"
}
: >empty.csv
import_refused empty.csv 'empty.csv:1: there is nothing here'
import_refused nowhere.csv "cannot read 'nowhere.csv'"
import_refused . 'cannot read'
import_refused good.sqlite 'good.sqlite:1: '
truncate -s 1G zeros.csv
import_refused zeros.csv 'zeros.csv:1: a NUL byte'
rm zeros.csv
head -c $(($(wc -c <good.csv) - 20)) good.csv >cut.csv
import_refused cut.csv 'cut.csv:81: the last line is cut'
sed '3s/^1,/2,/' good.csv >future.csv
import_refused future.csv 'future.csv:3: format 2 is newer than 1'
sed '5s/,ok,/,fine,/' good.csv >bad.csv
import_refused bad.csv "bad.csv:5: status 'fine'"
sed '7s/,flow,/,flow,flow,/' good.csv >bad.csv
import_refused bad.csv 'bad.csv:7: 19 cells, but the header has 18'
sed '9s/,ok,[^,]*,/,ok,quick,/' good.csv >bad.csv
import_refused bad.csv "bad.csv:9: column 'time_median_s': 'quick' is not a number"
sed '1s/machine,/engine,/' good.csv >bad.csv
import_refused bad.csv "bad.csv:1: not the CSV of a history: the header has no column 'machine'"
# None of it left a run behind.
expect_exit 0 history import good.csv --db new.sqlite
grep -q '^40 runs added, 0 known' last.out || fail "a refused CSV left runs behind"

# ---- runs ------------------------------------------------------------------------------------------
mkdir run
echo '{"schema": 1}' >run/run.json
expect_refusal 2 history add run
echo '{' >run/run.json
expect_refusal 2 history add run
[ ! -e results/history.sqlite ] || fail "a file was made for nothing"
echo "hostile histories: all refused"
