#!/usr/bin/env bash
# The GPU pictures of README and docs, from stored runs of suites/gpu.yaml and suites/gpu-peers.yaml:
#
#   scripts/publish_gpu.sh RUN-OF-GPU RUN-OF-PEERS
#
# The first run gives ours alone, the second ours beside PyTorch and cuDNN.
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

"$flowbench" plot -k time_vs_seq_len -o "$work/gpu" "$1" >/dev/null
cp "$work/gpu/time_vs_seq_len-forward.png" "$gallery/gpu_time_vs_seq_len.png"
cp "$work/gpu/time_vs_seq_len-both.png" "$gallery/gpu_time_vs_seq_len_both.png"

python3 - "$2" "$work" <<'EOF'
import csv, os, shutil, sys


def is_shown(row):
    if row["dtype"] != "bf16" or row["status"] != "ok":
        return False
    is_flow = row["mechanism"] == "flow" and row["variant"] != "torch-chunked-compiled"
    return is_flow or row["variant"] == "cudnn"


run, work = sys.argv[1:]
folder = os.path.join(work, "shown")
os.mkdir(folder)
shutil.copy(os.path.join(run, "run.json"), folder)
with open(os.path.join(run, "results.csv"), newline="") as source:
    rows = csv.DictReader(source)
    with open(os.path.join(folder, "results.csv"), "w", newline="") as target:
        writer = csv.DictWriter(target, rows.fieldnames, lineterminator="\n")
        writer.writeheader()
        writer.writerows(filter(is_shown, rows))
EOF
"$flowbench" plot -k time_vs_seq_len -o "$work/peers" "$work/shown" >/dev/null
cp "$work/peers/time_vs_seq_len-forward.png" "$gallery/gpu_peers_time_vs_seq_len.png"
cp "$work/peers/time_vs_seq_len-both.png" "$gallery/gpu_peers_time_vs_seq_len_both.png"
ls -l "$gallery"/gpu_*
