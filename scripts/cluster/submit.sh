#!/bin/bash
# Every run behind a result as a job of its own:
#
#   bash scripts/cluster/submit.sh table4_versus_detic DATA
#   bash scripts/cluster/submit.sh table3_other_datasets DATA --partition=gpu
#
# PROFILE=rehearsal before it has them all rehearsed. Further words are options of sbatch. Runs that are there already end at once. CenterNet2's second
# phases begin when the first one has ended well.
set -euo pipefail
result=$1 data=$2
shift 2
names=$(python -m richsem runs register "$result" --profile "${PROFILE:-paper}" --root "$data")
first=
for name in $names; do
  after=()
  case $name in centernet2_*) after=(--dependency="afterok:$first") ;; esac
  job=$(sbatch --parsable "$@" "${after[@]}" "$(dirname "$0")/train.sbatch" "$name")
  case $name in centernet2-*) first=$job ;; esac
  echo "$job $name"
done
