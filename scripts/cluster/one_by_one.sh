#!/bin/bash
# Every run behind a result, one after another and without a queue: on one node, or on each of
# several with the same words (`torchrun.sh` says what NODES, GPUS and HEAD are).
#
#   bash scripts/cluster/one_by_one.sh table4_versus_detic DATA
#   NODES=2 GPUS=4 HEAD=node01 bash scripts/cluster/one_by_one.sh table3_other_datasets DATA
#
# PROFILE=rehearsal before it has them all rehearsed. Further words are options of `train`. Runs that are there already end at once. What fails or is
# interrupted ends them all: the same words go on from there.
set -euo pipefail
result=$1 data=$2
shift 2
names=$(python -m richsem runs register "$result" --profile "${PROFILE:-paper}" --root "$data")
for name in $names; do
  bash "$(dirname "$0")/torchrun.sh" "$name" "$@"
done
