#!/bin/sh
# The history under writers at the same time, kill -9 at random moments, a full disk and folders that
# cannot be written to. Nothing that was reported as added is lost, nothing is there by half.
kills=${2:-}
[ -n "$kills" ] || kills=$([ -n "${FB_LONG:-}" ] && echo 60 || echo 6)
. "$(dirname "$0")/faults_common.sh"
write_suite '[8, 16]'
expect_exit 0 run suite.yaml --quiet --out run --set 'measure.max_time=20 ms'
rows=$(($(wc -l <run/results.csv) - 1))
id=$(sed -n 's/^  "run": "\(.*\)",$/\1/p' run/run.json)

# The run again under other names: $1 to $2.
copy_runs() {
    i=$1
    while [ "$i" -le "$2" ]; do
        mkdir "run$i"
        sed "s/$id/run-$i/" run/run.json >"run$i/run.json"
        sed "s/$id/run-$i/" run/results.csv >"run$i/results.csv"
        i=$((i + 1))
    done
}
copy_runs 1 40

# Whole runs in the file $1, which has to be sound: a read looks at every page.
whole_runs() {
    "$FLOWBENCH" history export --db "$1" >export.csv 2>export.err || fail "cannot read $1"
    cut -d, -f2 export.csv | tail -n +2 | sort | uniq -c >counts
    ! awk -v rows="$rows" '$1 != rows { bad = 1 } END { exit !bad }' counts ||
        fail "a run is there by half: $(cat counts)"
    wc -l <counts
}

# ---- four writers, two of them with the same runs ------------------------------------------------
n=0
for part in '1 10' '11 20' '21 30' '21 30'; do
    n=$((n + 1))
    (
        runs=$(seq ${part% *} ${part#* } | sed 's/^/run/')
        # shellcheck disable=SC2086
        exec "$FLOWBENCH" history add $runs --db parallel.sqlite
    ) >"added.$n" 2>>parallel.err &
done
wait
[ ! -s parallel.err ] || fail "a writer failed: $(cat parallel.err)"
[ "$(whole_runs parallel.sqlite)" -eq 30 ] || fail "not 30 runs"
[ "$(cat added.* | grep -c '^added')" -eq 30 ] || fail "a run was added twice, or not reported"
[ "$(cat added.* | grep -c '^known already')" -eq 10 ] || fail "not ten known runs"

# ---- kill -9 ---------------------------------------------------------------------------------------
k=0
while [ $k -lt "$kills" ]; do
    k=$((k + 1))
    "$FLOWBENCH" history add run? run?? --db killed.sqlite >killed.out 2>killed.err &
    RUN_PID=$!
    sleep "0.$(awk -v k=$k -v s="$(date +%N)" 'BEGIN { srand(s + k); printf "%03d", rand() * 300 }')"
    kill -9 $RUN_PID 2>/dev/null
    wait $RUN_PID 2>/dev/null
    RUN_PID=
    [ -s killed.sqlite ] || continue
    whole_runs killed.sqlite >/dev/null
    grep -h '^added\|^known' killed.out | sed 's/.* \(run-[0-9]*\): .*/\1/' | sort >reported
    awk '{ print $2 }' counts | sort >there
    [ -z "$(comm -23 reported there)" ] || fail "lost: $(comm -23 reported there)"
    [ $((k % 3)) -ne 0 ] || rm -f killed.sqlite killed.sqlite-journal
done
expect_exit 0 history add run? run?? --db killed.sqlite
[ "$(whole_runs killed.sqlite)" -eq 40 ] || fail "not 40 runs after the kills"

# ---- places that cannot be written to ---------------------------------------------------------------
expect_exit 1 history add run --db /proc/no/history.sqlite
expect_words 'cannot create the folder'
expect_exit 1 history add run --db /proc/history.sqlite
if [ "$(id -u)" -eq 0 ]; then
    mkdir room
    if mount -t tmpfs -o size=256k none room 2>/dev/null; then
        MOUNTED=$WORK/room
        expect_exit 0 history add run --db room/history.sqlite
        dd if=/dev/zero of=room/fill bs=1k 2>/dev/null
        cp room/history.sqlite before.sqlite
        expect_exit 1 history add run? run?? --db room/history.sqlite
        expect_words 'full'
        [ "$(whole_runs room/history.sqlite)" -ge 1 ] || fail "the full disk took a run"
        rm room/fill
        expect_exit 0 history add run1 --db room/history.sqlite
        mount -o remount,ro room
        expect_exit 1 history add run2 --db room/history.sqlite
        expect_exit 0 history show --db room/history.sqlite
        expect_exit 1 history export --db room/history.sqlite -o room/out.csv
    fi
else
    mkdir closed
    chmod 500 closed
    expect_exit 1 history add run --db closed/history.sqlite
fi
echo "history: $kills kills, nothing lost"
