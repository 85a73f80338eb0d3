#!/usr/bin/env bash
# bash train_eval_8p.sh --data_path=DIR --pth_path=FILE
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
parse_flags "$@"
[ -n "$pth_path" ] || { echo "which weights? --pth_path=FILE" >&2; exit 2; }
model=()
[ -d "$pth_path" ] || model=(--model ResNet50)
start 8 eval "$pth_path" ${model[@]+"${model[@]}"} --data "folder:$data_path" --split val --sizes 384 --resize height \
  ${extra[@]+"${extra[@]}"}
