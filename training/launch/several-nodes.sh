#!/usr/bin/env bash
# Several machines without a scheduler, by torchrun: run the same line on each, the first one included.
#
#   NODES=2 HEAD=node1 training/launch/several-nodes.sh morphem store=/data/chammi75 out=/shared/runs/morphem
#
# NODES   how many machines take part
# HEAD    name or address of the first one, which all can reach
# PORT    a free port of the first one (29500)
# GPUS    processes of each machine (as many as it has GPUs)
# RUN_ID  any word, the same on all; another one for each training that shares the port's machine
#
# The folder of the run (out) must be one that all machines see; each reads the store by the same name. If one process
# dies, all stop; the same lines again go on where the run stopped.
set -euo pipefail

if [[ $# -eq 0 || -z "${NODES:-}" || -z "${HEAD:-}" ]]; then
  echo "usage: NODES=N HEAD=HOST [PORT=29500] [GPUS=N] [RUN_ID=WORD] $0 RECIPE [KEY=VALUE …]" >&2
  exit 2
fi

exec torchrun \
  --nnodes="$NODES" \
  --nproc-per-node="${GPUS:-gpu}" \
  --rdzv-backend=c10d \
  --rdzv-endpoint="$HEAD:${PORT:-29500}" \
  --rdzv-id="${RUN_ID:-chammi75}" \
  --max-restarts=0 \
  --module chammi75.cli train "$@"
