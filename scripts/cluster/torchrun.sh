#!/bin/bash
# The same without a queue: on one node, or on each of several with the same words.
#
#   bash scripts/cluster/torchrun.sh richsem --profile paper --set data.root=DATA --out RUN
#   NODES=4 HEAD=node01 bash scripts/cluster/torchrun.sh centernet2 --profile paper --out RUN
#
# GPUS (8) is the number per node. torchrun ends with 1 where Slurm sees 75.
exec torchrun --nnodes="${NODES:-1}" --nproc-per-node="${GPUS:-8}" \
  --rdzv-backend=c10d --rdzv-endpoint="${HEAD:-127.0.0.1}:${PORT:-29500}" --rdzv-id=richsem \
  -m richsem train "$@"
