# A made-up history as CSV. Variables: runs, kind (flat, step, drift, late), seed, machine; percent
# (the size of what is planted), noise (of a run, in percent), from (the number of the first run).
function normal() {
    return sqrt(-2 * log(1 - rand())) * cos(6.28318530718 * rand())
}
BEGIN {
    if (machine == "") machine = "m1"
    if (noise == "") noise = 1
    if (percent == "") percent = 15
    if (from == "") from = 0
    srand(seed == "" ? 1 : seed)
    print "history,run,suite,started_utc,git_sha,git_time_utc,machine,machine_name,case_id," \
        "mechanism,variant,seq_len,status,time_median_s,time_ci_low_s,time_ci_high_s," \
        "mem_workspace_bytes,mem_peak_bytes"
    for (i = from; i < from + runs; i++) {
        stamp = sprintf("2026-%02d-%02dT%02d:00:00Z", 1 + int(i / 672), 1 + int(i / 24) % 28, i % 24)
        for (c = 0; c < 2; c++) {
            y = (c + 1) * 1e-3 * exp(noise / 100 * normal())
            if (c == 0 && kind == "step" && i >= from + runs / 2) y *= 1 + percent / 100
            if (c == 0 && kind == "drift") y *= 1 + percent / 100 * (i - from) / runs
            if (c == 0 && kind == "late" && i == from + runs - 1) y *= 1 + percent / 100
            printf "1,r%05d,made,%s,%06xabc,%s,%s,box-%s,case%d,flow,fused,%d,ok,%.9g,%.9g,%.9g,4096,8192\n", \
                i, stamp, 1000 + i, stamp, machine, machine, c, 256 * (c + 1), y, 0.99 * y, 1.01 * y
        }
    }
}
