#!/bin/sh
# flowbench compare of stored runs: verdicts, gates, formats, exit codes.
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../faults/faults_common.sh"
. "$here/compare_common.sh"
unset GITHUB_STEP_SUMMARY

# edit DIR SED...: a copy of base under that name, its results.csv edited.
edit() {
    rm -rf "$1"
    cp -r base "$1"
    name=$1
    shift
    sed -i "$@" "$name/results.csv"
}

made_run base 8
made_run again 8
made_run slow 8 1.10
made_run fast 8 0.85

# ---- time ------------------------------------------------------------------------------------
expect_exit 0 compare base again
for n in 256 512 1024 2048; do verdict $n PASS; done
expect_exit 3 compare base slow
verdict 256 FAIL
verdict 512 FAIL
verdict 1024 PASS
why 256 '+[19][0-9.]* %  *\[+.*8/8 processes  slower'
sed -n 7p last.out | grep -q '^FAIL' || fail "the worst case does not come first"
grep -q '^4 cases: 2 FAIL, 2 PASS' last.out || fail "$(tail -2 last.out)"
expect_exit 0 compare slow base
verdict 256 FASTER
expect_exit 0 compare base fast
verdict 512 FASTER

# Few processes: samples speak, from 5 % on.
made_run few 2
made_run few4 2 1.04
made_run few20 2 1.2
expect_exit 0 compare few few4
verdict 256 PASS
why 256 '12/12 samples'
expect_exit 3 compare few few20
verdict 256 FAIL
# A bare CSV has no samples: its intervals speak, and too few samples are ambiguous.
expect_exit 3 compare few/results.csv few20/results.csv
why 256 '12/12 intervals  slower'
expect_exit 0 compare base/results.csv again
verdict 256 PASS
sed 's/,12,2,100000/,3,1,100000/' few/results.csv > three.csv
sed 's/,12,2,100000/,3,1,100000/' few20/results.csv > three20.csv
expect_exit 0 compare three.csv three20.csv
verdict 256 AMBIGUOUS
why 256 'too few samples'
expect_exit 4 compare --strict three.csv three20.csv
expect_exit 0 compare --strict base again
expect_exit 3 compare --strict base slow

# ---- memory and error, whatever the speed ----------------------------------------------------------
edit hungry 's/,100000,0,120000,/,102000,0,120000,/'
expect_exit 3 compare base hungry
verdict 256 FAIL
why 256 'mem_workspace_bytes grew by 2 %, 100 kB to 102 kB'
edit saving 's/,100000,0,120000,/,100000,64,120000,/'
expect_exit 3 compare base saving
why 256 'mem_saved_bytes grew from 0 B'
edit peak 's/,100000,0,120000,/,100000,0,240000,/'
expect_exit 3 compare base peak
why 256 'mem_peak_bytes grew by 100 %'
# A page or a stack more is not the program's, nor is what its workspace explains.
edit page 's/,100000,0,120000,/,100000,0,124096,/'
expect_exit 0 compare base page
edit thread 's/,100000,0,120000,/,100000,0,60000,/'
expect_exit 0 compare thread base
cp -r fast fastwrong
sed -i '2s/,1e-7,1e-7,1e-5/,2e-5,1e-7,1e-5/' fastwrong/results.csv
expect_exit 3 compare base fastwrong
verdict 256 FAIL
why 256 'faster; err_rel 2e-05 is outside its budget of 1e-05'
edit wrong '2s/,ok,,[^,]*,/,wrong,NaN in out,,/'
expect_exit 3 compare base wrong
verdict 256 FAIL
why 256 'wrong result: NaN in out'
expect_exit 0 compare wrong base
verdict 256 INCOMPARABLE
why 256 'base is wrong: NaN in out'

# ---- counted instructions --------------------------------------------------------------------------
# counted FILE INSTRUCTIONS COUNTER TOOLCHAIN: rows without a time.
counted() {
    awk -F, -v OFS=, -v more="$2,$3,$4" 'NR == 1 { print $0, "instructions,counter,toolchain"; next }
        { $25 = $26 = $27 = ""; print $0, more }' base/results.csv > "$1"
}
counted count.csv 1000000 callgrind-3.19.0 gcc-12
counted half.csv 1005000 callgrind-3.19.0 gcc-12
counted two.csv 1020000 callgrind-3.19.0 gcc-12
expect_exit 0 compare count.csv half.csv
verdict 256 PASS
why 256 '1 M *1.005 M *+0.5 %.*counts'
expect_exit 3 compare count.csv two.csv
verdict 256 FAIL
why 256 'more instructions'
expect_exit 0 compare two.csv count.csv
verdict 256 FASTER
counted perf.csv 1000000 perf gcc-12
expect_exit 3 compare count.csv perf.csv
verdict 256 INCOMPARABLE
why 256 'other counter: callgrind-3.19.0 and perf'
counted gcc13.csv 1000000 callgrind-3.19.0 gcc-13
expect_exit 3 compare count.csv gcc13.csv
why 256 'other toolchain: gcc-12 and gcc-13'
expect_exit 3 compare base/results.csv count.csv
why 256 'instructions are counted in new only'

# ---- not comparable --------------------------------------------------------------------------------
edit crashed '3s/,ok,,[^,]*,/,crash,killed by SIGSEGV,,/'
expect_exit 3 compare base crashed
verdict 512 INCOMPARABLE
why 512 'new is crash: killed by SIGSEGV'
expect_exit 0 compare crashed base
verdict 512 INCOMPARABLE
edit skipped '3s/,ok,,[^,]*,/,skipped,predicted 9 s,,/'
expect_exit 0 compare base skipped
why 512 'new is skipped: predicted 9 s'
expect_exit 0 compare skipped skipped
why 512 'skipped on both sides: predicted 9 s'
edit missing 3d
expect_exit 0 compare base missing
why 512 'missing in new'
expect_exit 0 compare missing base
why 512 'missing in base'
edit bf16 's/,f32,/,bf16,/'
expect_exit 3 compare base bf16
why 256 'differ in dtype'
tail -1 last.out | grep -q 'nothing could be compared' || fail "$(tail -1 last.out)"
cp -r base elsewhere
sed -i 's/00112233445566aa/ffffffffffffffff/' elsewhere/run.json
expect_exit 3 compare base elsewhere
verdict 256 INCOMPARABLE
why 256 'other machine: made-up-2c (00112233445566aa) and made-up-2c (ffffffffffffffff)'
sed 's/,made cpu,/,other cpu,/' base/results.csv > other.csv
expect_exit 3 compare base/results.csv other.csv
why 256 "device_name 'made cpu' and 'other cpu'"
edit allskipped 's/,ok,,[^,]*,/,skipped,no,,/'
expect_exit 3 compare allskipped allskipped
expect_exit 3 compare base allskipped
head -1 base/results.csv > norows.csv
expect_exit 3 compare norows.csv norows.csv
expect_exit 3 compare base norows.csv
for time in 0 -1 nan inf -inf ''; do
    edit timeless "2s/,ok,,[^,]*,/,ok,,$time,/"
    expect_exit 0 compare base timeless
    verdict 256 INCOMPARABLE
    why 256 'time_median_s of new is .*, which is no time'
done
for time in 0 -1 nan inf; do
    cp -r base badsample$time
    sed -i "2s/,[^,]*$/,$time/" badsample$time/samples.csv
    expect_exit 0 compare base badsample$time
    verdict 256 INCOMPARABLE
    why 256 'samples.csv of new holds .*, which is no time'
done

# ---- formats -----------------------------------------------------------------------------------------
expect_exit 3 compare base slow --format markdown
grep -q '^## Performance: failed' last.out || fail "markdown: no headline"
grep -q '^| \*\*FAIL\*\* | flow/fused N256 |' last.out || fail "markdown: no row"
[ "$(grep -c '^|' last.out)" -eq 6 ] || fail "markdown: $(grep -c '^|' last.out) lines of table"
expect_exit 3 compare base slow --format json
if command -v jq > /dev/null; then
    [ "$(jq -r '.schema, .outcome, .counts.FAIL, .cases[0].verdict, .cases[0].failed[0],
        .cases[0].unit, .cases[0].new.mem_peak_bytes, .base.identity' last.out | tr '\n' ' ')" = \
        '1 failed 2 FAIL time processes 120000 00112233445566aa ' ] || fail "json: $(cat last.out)"
fi
expect_exit 3 compare base crashed --format junit -o verdicts.xml
grep -q '^verdict ' last.out || fail "the table does not go to standard output beside -o"
if command -v xmllint > /dev/null; then
    xmllint --noout verdicts.xml || fail "not XML"
    [ "$(xmllint --xpath 'string(//testsuite/@tests)' verdicts.xml)" = 4 ] || fail "junit: tests"
    [ "$(xmllint --xpath 'count(//error)' verdicts.xml)" = 1 ] || fail "junit: errors"
    expect_exit 3 compare base slow --format junit -o verdicts.xml
    [ "$(xmllint --xpath 'count(//failure[@type="FAIL"])' verdicts.xml)" = 2 ] || fail "junit"
    # What a run says of itself must not end an attribute, a cell or a line.
    edit markup '3s/,ok,,[^,]*,/,crash,"<b a=""1""> \& | `x` \x01\xff %0A::error::",,/'
    expect_exit 3 compare base markup --format junit -o markup.xml
    xmllint --noout markup.xml || fail "a reason breaks the XML"
    expect_exit 3 compare allskipped allskipped --format junit -o nothing.xml
    [ "$(xmllint --xpath 'count(//error)' nothing.xml)" = 1 ] || fail "junit: nothing looks green"
    expect_exit 4 compare --strict three.csv three20.csv --format junit -o strict.xml
    [ "$(xmllint --xpath 'count(//failure[@type="AMBIGUOUS"])' strict.xml)" -ge 2 ] || fail "strict"
    expect_exit 3 compare base markup --format markdown
    [ "$(grep -c '^|' last.out)" -eq 6 ] || fail "a reason breaks the table"
    ! grep -q '<b' last.out || fail "a reason becomes markup"
    expect_exit 3 compare base markup --format json
    ! command -v jq > /dev/null || jq -e .schema last.out > /dev/null || fail "json: a reason"
    expect_exit 3 compare base markup --format github
    grep -q '%250A::error::' last.out || fail "github: a reason is not escaped"
fi
echo kept > summary.md
export GITHUB_STEP_SUMMARY="$WORK/summary.md"
expect_exit 3 compare base slow --format github
[ "$(grep -c '^::error title=FAIL flow/fused N[0-9]*::FAIL' last.out)" -eq 2 ] || fail "github"
grep -q '+[0-9.]* %25' last.out || fail "github: a percent sign is not escaped"
grep -q '^kept' summary.md || fail "the job summary was replaced"
grep -q '^## Performance: failed' summary.md || fail "no job summary"
expect_exit 0 compare three.csv three20.csv --format github
grep -q '^::warning title=AMBIGUOUS ' last.out || fail "github: no warning"
export GITHUB_STEP_SUMMARY="$WORK/no/such/folder"
expect_exit 1 compare base again --format github
expect_words 'cannot write'
expect_exit 3 compare base slow --format github
unset GITHUB_STEP_SUMMARY
expect_exit 1 compare base again --format json -o no/such/folder/x.json
expect_words 'cannot write'

# ---- usage --------------------------------------------------------------------------------------------
expect_exit 2 compare
expect_exit 2 compare base
expect_words 'which runs'
expect_exit 2 compare base again slow
expect_exit 2 compare base again --format xml
expect_words 'none of text, markdown'
expect_exit 2 compare base again --format jnuit
expect_words "did you mean 'junit'"
exit 0
