#!/usr/bin/env bash
# The GPU pictures of README and docs, from stored runs:
#
#   scripts/publish_gpu.sh RUN-OF-GPU RUN-OF-PEERS RUN-OF-CPU RUN-OF-SCALING
#
# of suites/gpu.yaml: ours alone; of suites/gpu-peers.yaml: ours beside PyTorch and cuDNN; of
# suites/scaling.yaml on a processor, in bf16 as the GPU's tensors are (--set defaults.dtype=bf16),
# and on a machine with a GPU: one beside the other.
# Needs gnuplot and python3; FLOWBENCH names another program than ./bench.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ $# -ne 4 ]; then
    echo "usage: $0 RUN-OF-GPU RUN-OF-PEERS RUN-OF-CPU RUN-OF-SCALING (folders of runs)" >&2
    exit 2
fi
for run in "$@"; do
    if [ ! -f "$run/results.csv" ]; then
        echo "publish_gpu: '$run' is no folder of a run: it has no results.csv" >&2
        exit 2
    fi
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
gallery=$here/plots/gallery
flowbench=${FLOWBENCH:-$here/bench}

# RUN FOLDER CHOICE: a copy of a run with the chosen rows.
choose() {
    python3 - "$@" <<'EOF'
import csv, os, shutil, sys


def peers(row):
    if row["dtype"] != "bf16" or row["status"] != "ok":
        return False
    is_flow = row["mechanism"] == "flow" and row["variant"] != "torch-chunked-compiled"
    return is_flow or row["variant"] == "cudnn"


def is_ours(row):
    ours = row["mechanism"], row["variant"]
    return row["causal"] == "false" and ours in (("flow", "fused"), ("softmax", "tiled"))


def cpu(row):
    return row["device"] == "cpu" and is_ours(row)


def cuda(row):
    return row["device"] == "cuda" and is_ours(row)


run, folder, choice = sys.argv[1:]
os.mkdir(folder)
shutil.copy(os.path.join(run, "run.json"), folder)
with open(os.path.join(run, "results.csv"), newline="") as source:
    rows = csv.DictReader(source)
    with open(os.path.join(folder, "results.csv"), "w", newline="") as target:
        writer = csv.DictWriter(target, rows.fieldnames, lineterminator="\n")
        writer.writeheader()
        writer.writerows(filter(globals()[choice], rows))
EOF
}

draw() { # NAME RUN...
    local name=$1
    shift
    "$flowbench" plot -k time_vs_seq_len -o "$work/$name" "$@" >/dev/null
}

draw gpu "$1"
cp "$work/gpu/time_vs_seq_len-forward.png" "$gallery/gpu_time_vs_seq_len.png"
cp "$work/gpu/time_vs_seq_len-both.png" "$gallery/gpu_time_vs_seq_len_both.png"

choose "$2" "$work/peers-rows" peers
draw peers "$work/peers-rows"
cp "$work/peers/time_vs_seq_len-forward.png" "$gallery/gpu_peers_time_vs_seq_len.png"
cp "$work/peers/time_vs_seq_len-both.png" "$gallery/gpu_peers_time_vs_seq_len_both.png"

choose "$3" "$work/cpu-rows" cpu
choose "$4" "$work/cuda-rows" cuda
draw devices "$work/cpu-rows" "$work/cuda-rows"
cp "$work/devices/time_vs_seq_len.png" "$gallery/cpu_gpu_time_vs_seq_len.png"
ls -l "$gallery"/*gpu_*
