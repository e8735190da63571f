#!/usr/bin/env bash
# The GPU pictures of README and docs, from stored runs of suites/gpu.yaml and suites/gpu-peers.yaml:
#
#   scripts/publish_gpu.sh RUN-OF-GPU RUN-OF-PEERS
#
# The picture beside PyTorch and cuDNN takes ours from the first run and theirs from the second.
# Needs gnuplot and python3; FLOWBENCH names another program than ./bench.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ $# -ne 2 ] || [ ! -f "$1/results.csv" ] || [ ! -f "$2/results.csv" ]; then
    echo "usage: $0 RUN-OF-GPU RUN-OF-PEERS (folders of runs)" >&2
    exit 2
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
gallery=$here/plots/gallery
flowbench=${FLOWBENCH:-$here/bench}

# Rows of a run as a run of its own: FROM TO CONDITION, a Python expression over a row r.
select_rows() {
    mkdir -p "$2" && cp "$1/run.json" "$2"
    python3 - "$1/results.csv" "$2/results.csv" "$3" <<'EOF'
import csv, sys

with open(sys.argv[1], newline="") as source, open(sys.argv[2], "w", newline="") as target:
    reader = csv.DictReader(source)
    writer = csv.DictWriter(target, reader.fieldnames, lineterminator="\n")
    writer.writeheader()
    writer.writerows(r for r in reader if eval(sys.argv[3], {"r": r, "int": int}))
EOF
}

"$flowbench" plot -k time_vs_seq_len -o "$work/gpu" "$1" >/dev/null
cp "$work/gpu/time_vs_seq_len-forward.png" "$gallery/gpu_time_vs_seq_len.png"
cp "$work/gpu/time_vs_seq_len-both.png" "$gallery/gpu_time_vs_seq_len_both.png"

select_rows "$1" "$work/ours" 'r["mechanism"] == "flow" and int(r["seq_len"]) <= 4096'
select_rows "$2" "$work/theirs" 'r["dtype"] == "bf16" and r["status"] == "ok" and (
    r["variant"] == "cudnn" or (r["mechanism"], r["program"]) == ("flow", "torch"))'
"$flowbench" plot -k time_vs_seq_len -o "$work/peers" "$work/ours" "$work/theirs" >/dev/null
cp "$work/peers/time_vs_seq_len-forward.png" "$gallery/gpu_peers_time_vs_seq_len.png"
ls -l "$gallery"/gpu_*
