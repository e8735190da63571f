# shellcheck shell=sh
# Shared by the tests of compare: stored runs made of nothing. Sourced after faults_common.sh.

HEADER=schema,run,suite,case_id,mechanism,variant,device,device_name,isa,threads,dtype,layout,causal
HEADER=$HEADER,pass,batch,heads,seq_len,kv_len,head_dim,value_dim,params,seed,status,reason
HEADER=$HEADER,time_median_s,time_ci_low_s,time_ci_high_s,samples,processes
HEADER=$HEADER,mem_workspace_bytes,mem_saved_bytes,mem_peak_bytes,err_rel,err_max,err_budget

# made_run DIR PROCESSES [FACTOR]: four cases (seq_len 256 to 2048), each of PROCESSES processes with
# six samples that scatter by about a percent; times of the first two cases are multiplied by FACTOR.
made_run() {
    mkdir -p "$1"
    cat > "$1/run.json" <<EOF2
{"schema": 1, "run": "$1", "state": "finished",
 "suite": {"name": "made"}, "machine": {"identity": "00112233445566aa", "name": "made-up-2c"},
 "build": {"flowbench": "0.1.0", "git_sha": "abc"}, "warnings": [], "ceilings": [], "resumed": []}
EOF2
    awk -v processes="$2" -v factor="${3:-1}" -v header="$HEADER" -v dir="$1" '
    BEGIN {
        srand(length(dir) * 7 + processes)
        print header > (dir "/results.csv")
        print "case_id,process,sample,time_s" > (dir "/samples.csv")
        for (c = 0; c < 4; c++) {
            n = 256 * 2 ^ c
            t = n * 1e-6 * (c < 2 ? factor : 1)
            id = sprintf("%016x", c + 1)
            printf "1,made,made,%s,flow,fused,cpu,made cpu,avx2,1,f32,BHND,false,forward,1,1,%d,%d,16,16,{},1,ok,,%.9g,%.9g,%.9g,%d,%d,100000,0,120000,1e-7,1e-7,1e-5\n", id, n, n, t, t * 0.99, t * 1.01, 6 * processes, processes > (dir "/results.csv")
            for (p = 0; p < processes; p++)
                for (s = 0; s < 6; s++)
                    printf "%s,%d,%d,%.9g\n", id, p, s, t * (1 + 0.02 * (rand() - 0.5)) > (dir "/samples.csv")
        }
    }'
}

# verdict N WANTED: the verdict of the case with seq_len N in last.out, a text table.
verdict() {
    got=$(sed -n "s/^\([A-Z]*\)  *flow\/fused N$1 .*/\1/p" last.out)
    [ "$got" = "$2" ] || {
        cat last.out >&2
        fail "N$1 is '$got', not $2"
    }
}

# why N WORDS: what the table says about it.
why() {
    grep -q -e "flow/fused N$1 .*$2" last.out || {
        cat last.out >&2
        fail "N$1: nothing of '$2'"
    }
}

# fake_build NAME FACTOR: a program that answers as a worker does, without measuring anything: N
# microseconds times FACTOR, give or take a percent. Each start is noted in NAME.log.
fake_build() {
    cat > "$1" <<EOF2
#!/bin/sh
task=\$(cat)
echo "\$task" >> "\$0.log"
case \$task in *'"task":"hello"'*)
    echo '{"result":{"protocol":${3:-1},"flowbench":"9.9.9","git_sha":"abc"}}' >&3
    exit ;;
esac
echo "\$task" | awk -v factor=$2 -v seed=\$\$ '{
    srand(seed)
    match(\$0, /"seq_len":[0-9]+/); n = substr(\$0, RSTART + 10, RLENGTH - 10)
    match(\$0, /"samples":[0-9]+/); count = substr(\$0, RSTART + 10, RLENGTH - 10)
    t = n * 1e-6 * factor * (1 + 0.01 * (rand() - 0.5))
    printf "{\"result\":{\"status\":\"ok\",\"mem_workspace_bytes\":4096,\"samples_s\":["
    for (i = 0; i < count; i++)
        printf("%s%.9g", (i > 0 ? "," : ""), t)
    print "]}}"
}' >&3
EOF2
    chmod +x "$1"
}
