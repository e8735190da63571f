#!/bin/sh
# Folders that cannot be used, and two runs in one: clear messages, documented exit codes.
. "$(dirname "$0")/faults_common.sh"
write_suite '[8, 16, 24, 32]'

echo text > file
expect_exit 1 run suite.yaml --out file/run
expect_words "cannot create the folder 'file"
expect_exit 1 run suite.yaml --out /proc/flowbench/run
expect_words 'cannot create the folder'
if [ "$(id -u)" -ne 0 ]; then
    mkdir locked && chmod 555 locked
    expect_exit 1 run suite.yaml --out locked/run
    expect_words 'Permission denied'
fi

mkdir other && echo mine > other/notes.txt
expect_exit 2 run suite.yaml --out other
expect_words 'is not empty'
[ "$(ls -A other)" = notes.txt ] || fail "a refused folder was touched"

expect_exit 2 run --resume nowhere
expect_exit 2 run --resume other
expect_words 'not the folder of a run'
expect_exit 2 run --resume other suite.yaml
expect_words 'stands alone'

# Two runs in one folder: the second is refused and names the first.
"$FLOWBENCH" run suite.yaml --out run > first.out 2> first.err &
RUN_PID=$!
await_rows run 1
expect_exit 2 run --resume run
expect_words "another run lives in 'run' (process $RUN_PID)"
wait $RUN_PID || fail "the first run was disturbed"
RUN_PID=
[ ! -e run/.lock ] || fail "the lock stayed behind"

expect_exit 2 run suite.yaml --out run
expect_words 'run --resume run'

# What belongs to another machine, or is damaged, is not continued.
cp -r run foreign
sed -i 's/"identity": "[0-9a-f]*"/"identity": "0000000000000000"/; s/"state": "finished"/"state": "running"/' foreign/run.json
expect_exit 2 run --resume foreign
expect_words 'was started on another machine'
cp -r run damaged
head -c 100 run/run.json > damaged/run.json
expect_exit 2 run --resume damaged
expect_words 'damaged/run.json'
cp -r run newer
sed -i 's/"schema": 1/"schema": 99/' newer/run.json
expect_exit 2 run --resume newer
expect_words 'schema 99'
cp -r run scribbled
sed -i 's/"state": "finished"/"state": "running"/' scribbled/run.json
sed -i '3s/.*/"scribble/' scribbled/results.csv
expect_exit 2 run --resume scribbled
expect_words 'scribbled/results.csv:'
