#!/usr/bin/env bash
# All GPUs of one machine, by torchrun: one process for each.
#
#   training/launch/one-node.sh morphem store=/data/chammi75 out=runs/morphem
#   GPUS=4 training/launch/one-node.sh morphem accumulate=2
#
# What stands behind the name goes to chammi75 train: a recipe and KEY=VALUE changes. The same line again goes on where
# the run stopped. If one process dies, torchrun stops the others.
set -euo pipefail

if [[ $# -eq 0 ]]; then
  echo "usage: [GPUS=N] $0 RECIPE [KEY=VALUE …]" >&2
  exit 2
fi

exec torchrun --standalone --nproc-per-node="${GPUS:-gpu}" --module chammi75.cli train "$@"
