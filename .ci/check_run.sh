#!/usr/bin/env bash
# Checks the folder of a finished run: every file is there, every row is complete and no case went
# wrong. usage: check_run.sh RUN_FOLDER
set -euo pipefail
run=$1
fail() {
    echo "check_run: $*" >&2
    exit 1
}
for file in results.csv samples.csv run.json; do
    [ -s "$run/$file" ] || fail "$file is missing or empty"
done
header=$(head -n 1 "$run/results.csv")
case $header in
schema,run,suite,case_id,mechanism,variant,device,*,output_hash,*) ;;
*) fail "unexpected header: $header" ;;
esac
rows=$(($(wc -l <"$run/results.csv") - 1))
[ "$rows" -gt 0 ] || fail "no rows"
for status in wrong crash error timeout oom; do
    ! grep -q ",$status," "$run/results.csv" || fail "a row has the status $status"
done
ok=$(grep -c ',ok,' "$run/results.csv") || fail "no row is ok"
samples=$(($(wc -l <"$run/samples.csv") - 1))
[ "$samples" -ge "$ok" ] || fail "$samples samples for $ok rows"
for key in argv cpu ceilings suite; do
    grep -q "\"$key\"" "$run/run.json" || fail "run.json lacks \"$key\""
done
pictures=0
for picture in "$run"/plots/*.svg; do
    [ -s "$picture" ] || fail "no SVG in $run/plots"
    [ -s "${picture%.svg}.png" ] || fail "${picture##*/} has no PNG beside it"
    pictures=$((pictures + 1))
done
echo "check_run: $rows rows ($ok ok), $samples samples, $pictures pictures"
