#!/bin/sh
# flowbench completion: the scripts load without a word, and complete what they should. Shells that
# are not there are left out, and named. Usage: test_completion.sh FLOWBENCH
set -eu
flowbench=${1:-${FLOWBENCH:?give the path of flowbench}}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

fail() {
    echo "FAIL: $*" >&2
    exit 1
}

for shell in bash zsh fish; do
    "$flowbench" completion $shell >flowbench.$shell || fail "completion $shell"
    for word in flow softmax linear performer local time_vs_seq_len isa_bars resume no-gradients; do
        grep -q "$word" flowbench.$shell || fail "the $shell script lacks $word"
    done
    ! grep -q worker flowbench.$shell || fail "the $shell script tells of the worker"
done
got=0
"$flowbench" completion bahs >out 2>err || got=$?
[ $got -eq 2 ] || fail "completion bahs: exit $got"
grep -q "did you mean 'bash'?" err || fail "$(cat err)"
for wrong in '' 'bash zsh'; do
    got=0
    # shellcheck disable=SC2086
    "$flowbench" completion $wrong >out 2>err || got=$?
    [ $got -eq 2 ] && [ ! -s out ] || fail "completion $wrong: exit $got"
done

mkdir -p suites/deep run
touch suites/one.yaml 'suites/two words.yaml' suites/notes.txt run/results.csv in.safetensors

# expect SHELL LINE WORD...: completing LINE offers exactly these words, sorted
expect() {
    shell=$1
    line=$2
    shift 2
    printf '%s\n' "$@" | sort >wanted
    complete_$shell "$line" | sed 's#/$##; s/ $//' | sort -u >offered
    cmp -s wanted offered ||
        fail "$shell, '$line': $(tr '\n' ',' <offered) instead of $(tr '\n' ',' <wanted)"
}

# offers SHELL LINE WORD...: completing LINE offers these words, among others
offers() {
    shell=$1
    line=$2
    shift 2
    complete_$shell "$line" | sed 's#/$##; s/ $//' >offered
    for word in "$@"; do
        grep -qxF -e "$word" offered || fail "$shell, '$line' does not offer $word: $(cat offered)"
    done
}

check() {
    expect "$1" 'flowbench ve' verify
    offers "$1" 'flowbench ' run plot compare report repro apply verify info list completion help
    offers "$1" 'bench ' run test
    expect "$1" 'flowbench apply fl' flow
    expect "$1" 'flowbench apply flow --isa av' avx2 avx512
    expect "$1" 'flowbench plot --kind spe' speedup_vs_softmax
    expect "$1" 'flowbench run --dry' --dry-run
    expect "$1" 'flowbench suites/one.yaml --bud' --budget
    expect "$1" 'flowbench list me' mechanisms
    expect "$1" 'flowbench help compl' completion
    expect "$1" 'flowbench completion z' zsh
    offers "$1" 'flowbench apply --' --in --out --causal --param --no-gradients --help
}

# Words as bash splits them; = is a word of its own.
cat >drive.bash <<'EOF2'
source ./flowbench.bash
line=$1
read -ra COMP_WORDS <<<"${line//=/ = }"
[[ $line == *' ' || $line == *= ]] && COMP_WORDS+=('')
[[ $line == *= ]] && unset 'COMP_WORDS[-1]'
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
compopt() { :; }
_flowbench
(( ${#COMPREPLY[@]} == 0 )) || printf '%s\n' "${COMPREPLY[@]}"
EOF2
complete_bash() {
    bash drive.bash "$1"
}
if command -v bash >/dev/null; then
    [ -z "$(bash -c 'set -u; source ./flowbench.bash' 2>&1)" ] || fail "bash: loading prints"
    check bash
    expect bash 'flowbench apply flow --isa=sca' scalar
    expect bash 'flowbench plot --kind=isa' isa_bars
    expect bash 'flowbench run suites/' suites/deep suites/one.yaml 'suites/two words.yaml'
    expect bash 'flowbench suites/o' suites/one.yaml
    expect bash 'flowbench run --resume r' run
    expect bash 'flowbench apply flow --in i' in.safetensors
    expect bash 'flowbench repro run/' run/results.csv
    expect bash 'flowbench apply performer --param feat' features=
    if command -v shellcheck >/dev/null; then
        shellcheck -s bash flowbench.bash || fail "shellcheck"
    fi
else
    echo "not tested: bash is not installed"
fi

complete_fish() {
    fish -c "source flowbench.fish; complete -C '$1'" | cut -f1
}
if command -v fish >/dev/null; then
    HOME=$folder
    XDG_CONFIG_HOME=$folder
    export HOME XDG_CONFIG_HOME
    [ -z "$(fish -c 'source flowbench.fish' 2>&1)" ] || fail "fish: loading prints"
    check fish
    offers fish 'flowbench run suites/' suites/one.yaml
    offers fish 'flowbench run --resume r' run
    offers fish 'flowbench apply flow --in i' in.safetensors
else
    echo "not tested: fish is not installed"
fi

# zsh completes in its line editor only: one on a pseudo-terminal lists what it would offer, one
# word a line, the escape sequences taken out.
cat >drive.zsh <<'EOF2'
zmodload zsh/zpty
zpty driven zsh -f -i
zpty -w driven "PS1=; stty -echo; cd $PWD; fpath=($PWD/functions \$fpath)
autoload -Uz compinit; compinit -u -D
zstyle ':completion:*' verbose no; LISTMAX=100000
list() { zle list-choices; zle -R; print DO''NE }; zle -N list; bindkey '^X' list
zle-line-init() { print RE''ADY }; zle -N zle-line-init"
while zpty -r driven line; do [[ $line == *READY* ]] && break; done
zpty -n -w driven "$1"$'\x18'
while zpty -r driven line; do
    print -r -- "$line"
    [[ $line == *DONE* ]] && break
done
zpty -d driven
EOF2
complete_zsh() {
    escape=$(printf '\033')
    timeout 20 zsh -f drive.zsh "$1" | tr '\r' '\n' |
        sed "s/$escape\[[0-9;?]*[a-zA-Z]/ /g" | tr -s ' \n' '\n\n'
}
if command -v zsh >/dev/null; then
    mkdir functions
    cp flowbench.zsh functions/_flowbench
    zsh -n flowbench.zsh || fail "zsh: syntax"
    [ -z "$(zsh -fc 'autoload -Uz compinit; compinit -u -D; source ./flowbench.zsh' 2>&1)" ] ||
        fail "zsh: loading prints"
    offers zsh 'flowbench ' run apply completion suites
    offers zsh 'flowbench apply f' flow
    offers zsh 'flowbench apply flow --isa=a' any avx2 avx512
    offers zsh 'flowbench plot --kind=sp' speedup_vs_softmax
    offers zsh 'flowbench suites/one.yaml --dr' --dry-run
    offers zsh 'flowbench list m' mechanisms
else
    echo "not tested: zsh is not installed"
fi
echo "completion: fine"
