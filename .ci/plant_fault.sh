#!/usr/bin/env bash
# Makes Flow-Attention subtly wrong in a copy of the sources: the competition's clamp sits at 0.9 of
# what was asked for. Fails when the line is no longer there. usage: plant_fault.sh COPY
set -euo pipefail
file=$1/kernels/flow/flow_options.h
before=$(cksum <"$file")
sed -i 's/\? (float)value\[FB_FLOW_PARAM_CLAMP\]/? 0.9F * (float)value[FB_FLOW_PARAM_CLAMP]/' "$file"
[ "$(cksum <"$file")" != "$before" ] || {
    echo "plant_fault: the clamp is not where it was: choose another fault" >&2
    exit 1
}
