#!/bin/sh
# flowbench compare --ab-git on a tiny project whose programs answer as scripted: both commits are
# built once, kept, labelled; unknown, dirty and broken ones are refused in words.
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../faults/faults_common.sh"
. "$here/compare_common.sh"
for tool in git cmake cc; do
    command -v $tool > /dev/null || { echo "not tested: no $tool"; exit 77; }
done
export XDG_CACHE_HOME="$WORK/cache" GIT_CONFIG_GLOBAL=/dev/null
export GIT_AUTHOR_NAME=t GIT_AUTHOR_EMAIL=t@example.org
export GIT_COMMITTER_NAME=t GIT_COMMITTER_EMAIL=t@example.org
cat > suite.yaml <<EOF
suite: scripted
kind: kernel
defaults: {mechanism: flow, batch: 1, heads: 1, head_dim: 16}
sweep: {seq_len: [128]}
hardware: [{device: cpu, threads: 1, isa: scalar}]
measure: {min_samples: 6, max_time: 1 s}
EOF
expect_exit 2 compare --ab-git main HEAD suite.yaml
expect_words 'in no git checkout'

# What failed stands in the project's folder from here on.
fail() {
    echo "FAIL: $*" >&2
    cat last.err "$XDG_CACHE_HOME"/flowbench/builds/*/build.log >&2
    exit 1
}

# A project like ours: CMake, a target flowbench, here a script.
git init -q -b main project
cp suite.yaml project
rm -f last.out last.err
cd project || exit 1
cat > CMakeLists.txt <<'EOF'
cmake_minimum_required(VERSION 3.18)
project(tiny LANGUAGES NONE)
set(made ${CMAKE_BINARY_DIR}/flowbench)
file(WRITE ${CMAKE_BINARY_DIR}/note "")
if(EXISTS ${CMAKE_SOURCE_DIR}/shuffles)
    file(WRITE ${CMAKE_BINARY_DIR}/note "# linked by ${FLOWBENCH_LINK_SEED}\n")
endif()
add_custom_target(flowbench
    COMMAND cat ${CMAKE_SOURCE_DIR}/worker ${CMAKE_BINARY_DIR}/note > ${made}
    COMMAND chmod +x ${made})
EOF
fake_build worker 1
git add . && git commit -q -m first && git tag first
fake_build worker 1.2
git commit -q -a -m slower
echo 'message(FATAL_ERROR "as planted")' >> CMakeLists.txt
git commit -q -a -m broken && git tag broken
git reset -q --hard HEAD~1
: > shuffles
git add shuffles && git commit -q -m shuffles

expect_exit 3 compare --ab-git first HEAD suite.yaml
verdict 128 FAIL
expect_words "building first ($(git rev-parse first | cut -c1-12))"
grep -q "^base  first = $(git rev-parse first | cut -c1-12) (flowbench 9.9.9" last.out ||
    fail "label: $(cat last.out)"
[ "$(git worktree list | wc -l)" -eq 1 ] || fail "a worktree is left: $(git worktree list)"
# Built once.
expect_exit 0 compare --ab-git first "$(git rev-parse first)" suite.yaml
verdict 128 PASS
! grep -q building last.err || fail "built again"

# ---- relinking ---------------------------------------------------------------------------------------
expect_exit 0 compare --ab-git HEAD HEAD suite.yaml --layout
grep -q "^A/A'  base against its shuffled relink: 1 case" last.out || fail "no A/A' leg"
expect_exit 2 compare --ab-git first HEAD suite.yaml --layout
expect_words 'in one order only'

# ---- what cannot be built ----------------------------------------------------------------------------
expect_exit 2 compare --ab-git nosuch HEAD suite.yaml
expect_words "git knows no revision 'nosuch'"
expect_exit 2 compare --ab-git --layout -- -x HEAD suite.yaml
expect_words "'-x' is no revision"
expect_exit 2 compare --ab-git first broken suite.yaml
expect_words 'configuring .broken. (.*) failed: see .*/build.log'
log=$(sed -n 's/.* failed: see //p' last.err)
grep -q 'as planted' "$log" || fail "the log '$log' does not say why"
[ "$(git worktree list | wc -l)" -eq 1 ] || fail "a worktree is left after a failure"
echo '# changed' >> worker
expect_exit 2 compare --ab-git first HEAD suite.yaml
expect_words 'uncommitted changes'
expect_exit 3 compare --ab-git first "$(git rev-parse HEAD)" suite.yaml
verdict 128 FAIL
git checkout -q worker

# ---- usage -------------------------------------------------------------------------------------------
expect_exit 2 compare --ab --ab-git first HEAD suite.yaml
expect_words 'exclude each other'
expect_exit 2 compare --ab worker worker suite.yaml --layout
expect_words '.-layout belongs to --ab-git'
expect_exit 2 compare --ab-git first HEAD suite.yaml --aprime worker
expect_words '.-aprime belongs to --ab'
expect_exit 2 compare first HEAD --layout
expect_exit 2 compare --ab-git first HEAD
expect_words 'Give OLD_REV'
exit 0
