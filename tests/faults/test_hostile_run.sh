#!/bin/sh
# Stored runs that are corrupt, cut, foreign or from the future: compare refuses each with exit 2, in
# words that name the file, within 5 s and 1 GiB. Never a crash, never a silent PASS.
here=$(cd "$(dirname "$0")" && pwd)
. "$here/faults_common.sh"
. "$here/../cli/compare_common.sh"
made_run base 6
made_run good 6
expect_exit 0 compare base good

# refuse WORDS: on either side; `bad` is the run or the file.
refuse() {
    expect_refusal 2 compare base "$2"
    expect_words "$1"
    [ ! -s last.out ] || fail "a verdict beside a refusal"
    expect_refusal 2 compare "$2" base
    expect_words "$1"
}
# spoil FILE SED...: the run `bad`, with FILE edited.
spoil() {
    rm -rf bad
    cp -r good bad
    file=$1
    shift
    sed -i "$@" "bad/$file"
}

refuse "cannot read 'nowhere'" nowhere
mkdir empty
refuse 'not the folder of a run' empty
: > empty.csv
refuse 'empty.csv' empty.csv
head -c 100000 /dev/urandom > noise.csv
refuse 'noise.csv' noise.csv
head -c 1000000 /dev/zero > zeros.csv
refuse 'zeros.csv' zeros.csv
printf 'a,b,c\n1,2,3\n' > foreign.csv
refuse "no column 'case_id'" foreign.csv
head -c $(($(wc -c < good/results.csv) - 7)) good/results.csv > cut.csv
refuse 'the last line is cut' cut.csv
spoil results.csv '2s/^1,/999,/'
refuse 'schema 999 is newer' bad
spoil results.csv '2s/,ok,/,fine,/'
refuse "status 'fine' is none of" bad
spoil results.csv '2s/,ok,,[^,]*,/,ok,,fast,/'
refuse "'fast' is not a number" bad
spoil results.csv '2s/$/,more/'
refuse 'cells, but the header has' bad
spoil results.csv '3s/0000000000000002/0000000000000001/'
refuse 'stands twice' bad
spoil results.csv '3s/0000000000000002//'
refuse 'has no case_id' bad
spoil results.csv '2s/made cpu/"made cpu/'
refuse 'bad/results.csv' bad
spoil samples.csv '1s/case_id/id/'
refuse 'not a samples.csv' bad
spoil samples.csv '2s/,0,0,/,-1,0,/'
refuse 'not a sample' bad
spoil run.json 's/"schema": 1/"schema": 2/'
refuse 'has schema 2' bad
spoil run.json '$d'
refuse 'cannot read' bad
: > bad/run.json
refuse 'cannot read' bad
# A folder where a file should be, and one that only looks like a run.
rm -rf bad
mkdir -p bad/results.csv
refuse 'bad/results.csv' bad

# Lengths of texts that no version writes.
long=$(head -c 100000 /dev/zero | tr '\0' x)
spoil results.csv "2s/,ok,,/,ok,$long,/"
refuse 'has 100000 characters' bad

# 20,000 rows on each side take seconds, not minutes, and no more than a gigabyte.
awk -v header="$HEADER" 'BEGIN {
    print header
    for (i = 0; i < 20000; i++)
        printf "1,m,m,%016x,flow,fused,cpu,c,avx2,1,f32,BHND,false,forward,1,1,%d,64,16,16,{},1,ok,,1e-3,1e-3,1e-3,6,1,1,1,1,1e-7,1e-7,1e-5\n", i, i + 1
}' > many.csv
expect_refusal 0 compare many.csv many.csv
exit 0
