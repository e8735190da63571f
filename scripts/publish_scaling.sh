#!/bin/sh
# The headline figures: measures suites/scaling.yaml on this machine and puts the result where readers
# look for it. Run it on an idle machine; it takes six minutes.
#
#   scripts/publish_scaling.sh [bench options, e.g. --set measure.processes=5]
#
# Leaves results/reference/MACHINE/scaling/ (what the run left, and its table), the pictures in
# plots/gallery/ and the table's upper part in the README, between its two marks.
set -eu
cd "$(dirname "$0")/.."

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
status=0
./bench run suites/scaling.yaml --color never --out "$out/run" "$@" >"$out/table.txt" || status=$?
# 3: a claim does not hold here. That is a result, too, and the table says so.
[ "$status" -eq 0 ] || [ "$status" -eq 3 ] || exit "$status"

machine=$(sed -n 's/^ *"run": "[0-9TZ]*-\(.*\)",$/\1/p' "$out/run/run.json" | head -n 1)
[ -n "$machine" ] || {
    echo "publish_scaling: run.json names no run" >&2
    exit 1
}
folder=results/reference/$machine/scaling
mkdir -p "$folder" plots/gallery
# Up to the paths of this run's own files.
sed '/^pictures:/,$d' "$out/table.txt" >"$folder/table.txt"
cp "$out/run/results.csv" "$out/run/samples.csv" "$out/run/run.json" "$folder"
cp "$out/run/plots"/*.png plots/gallery/

awk -v table="$folder/table.txt" '
    /^<!-- table: scaling -->$/ {
        print
        print "```"
        while ((getline line <table) > 0 && line !~ /^(not measured|claims):$/)
            if (line != "") { if (gap) print ""; gap = 0; print line } else gap = 1
        print "```"
        skip = 1
    }
    /^<!-- \/table: scaling -->$/ { skip = 0 }
    !skip' README.md >"$out/README.md"
cp "$out/README.md" README.md
echo "published: $folder, plots/gallery, README.md"
exit "$status"
