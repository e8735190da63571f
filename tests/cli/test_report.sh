#!/bin/sh
# flowbench report: a page of a real run, of bare rows, of two runs; what it refuses.
. "$(dirname "$0")/../faults/faults_common.sh"
export TMPDIR=$WORK/tmp
mkdir "$TMPDIR"
cat >suite.yaml <<EOF
suite: reported
title: A title with <script>alert(1)</script> & "quotes"
kind: kernel
defaults: {batch: 1, heads: 2, head_dim: 16}
sweep:
  mechanism: [flow, softmax, {name: local, window: 8}]
  seq_len: [32, 64, 128]
hardware:
  - {device: cpu, threads: 1}
  - {device: cuda, optional: true}
measure: {warmup: 1 ms, precision: 50 %, min_samples: 3, max_time: 5 ms, processes: 1}
expect: [{mechanism: flow, metric: time_exponent, is: 1.0 +- 0.5}]
plots: [time_vs_seq_len]
EOF
expect_exit 0 run suite.yaml --quiet --out run

# $1: what the page in $2 has to hold; $1 is a fixed string.
holds() {
    grep -q -F -e "$1" "$2" || fail "$2 lacks '$1'"
}
lacks() {
    ! grep -q -F -e "$1" "$2" || fail "$2 holds '$1'"
}

expect_exit 0 report run
[ "$(cat last.out)" = run/report.html ] || fail "stdout is not the path: $(cat last.out)"
holds 'A title with &lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;quotes&quot;' run/report.html
lacks '<script>alert' run/report.html
for section in findings runs claims scaling missing all provenance reading; do
    holds "<section id=\"$section\"" run/report.html
    holds "<a href=\"#$section\">" run/report.html
done
rows=$(($(wc -l <run/results.csv) - 1))
[ "$rows" -eq 18 ] || fail "$rows rows"
row=1
while [ "$row" -le "$rows" ]; do
    holds "./bench repro run/results.csv:$row</code>" run/report.html
    row=$((row + 1))
done
# Nothing is loaded from elsewhere.
! grep -E -o '(src|href)="?(https?:)?//[^"> ]*' run/report.html || fail "the page names another place"
! grep -q -i '@import\|url(' run/report.html || fail "the style sheet loads something"
ls -A "$TMPDIR" >left
[ ! -s left ] || fail "left in TMPDIR: $(cat left)"
if command -v gnuplot >/dev/null; then
    holds '<figure id="figure-1">' run/report.html
    lacks 'gnuplot_plot' run/report.html
fi

# The rows with their commands are the same for the file and for the folder.
expect_exit 0 report run/results.csv -o file.html
expect_exit 0 report run/ -o folder.html
cmp file.html folder.html || fail "the file and the folder give two reports"

# Tags balance and names are unique, where something here can tell.
if command -v python3 >/dev/null && python3 -c 'import html.parser' 2>/dev/null; then
    python3 - run/report.html <<'EOF' || fail "the page is not well formed"
import html.parser, sys
VOID = {"meta", "link", "br", "input", "img"}
class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.names = [], set()
    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            assert not name.startswith("on") and name != "style", (tag, name)
            if name == "id":
                assert value not in self.names, "twice: " + value
                self.names.add(value)
        if tag not in VOID:
            self.open.append(tag)
    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()
    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (tag, self.open[-3:], self.getpos())
        self.open.pop()
page = Page()
page.feed(open(sys.argv[1], encoding="utf-8").read())
assert not page.open, page.open
EOF
else
    echo "skipped: no python3 to check that tags balance"
fi

# Without gnuplot the report is there, says what is missing and why, and warns.
mkdir bin
expect_exit_without_gnuplot() {
    PATH=$WORK/bin "$flowbench" report run -o bare.html >last.out 2>last.err || fail "exit $?"
}
flowbench=$FLOWBENCH
expect_exit_without_gnuplot
grep -q 'warning: figures are missing: gnuplot is not installed' last.err || fail "no warning"
holds 'Figures are missing here: gnuplot is not installed' bare.html
lacks '<figure' bare.html

# Two runs: told apart, and of one machine their times are compared.
cp -r run second
expect_exit 0 report run second -o both.html
holds '2 runs of one machine' both.html
holds '<td>run 2</td>' both.html
holds 'time, run 2 / run 1' both.html

# Another file is not replaced, a report is; a folder never.
echo mine >mine.html
expect_exit 2 report run -o mine.html
[ "$(cat mine.html)" = mine ] || fail "the file was touched"
expect_exit 0 report run -o mine.html --force
expect_exit 0 report run -o mine.html
expect_exit 2 report run -o run --force

# What cannot be read: exit code 2, with the place.
expect_exit 2 report
expect_exit 2 report nowhere
mkdir empty
expect_exit 2 report empty
cp -r run broken
printf 'x' >>broken/results.csv
expect_exit 2 report broken
grep -q "broken/results.csv:$((rows + 2)): " last.err || fail "no place: $(cat last.err)"
cp run/results.csv broken/results.csv
echo '{' >broken/run.json
rm -f broken/report.html
expect_exit 2 report broken
grep -q 'broken/run.json:[0-9]*: ' last.err || fail "no place: $(cat last.err)"
[ ! -e broken/report.html ] || fail "a report of a broken run"

# What cannot be written: exit code 1, nothing is left behind.
if [ "$(id -u)" -ne 0 ]; then
    mkdir locked
    chmod 500 locked
    expect_exit 1 report run -o locked/report.html
fi
expect_exit 1 report run -o nowhere/report.html
[ -z "$(find . -name "*flowbench-report*")" ] || fail "a temporary file is left"
echo "report: fine"
