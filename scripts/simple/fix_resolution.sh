#!/usr/bin/env bash
# SimpleClassification's comparison of sizes: 224, 448, 224 then 448. Each run is tested at both.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
for data in cub cars; do
  train_all "$data-resnet50-imagenet-224 $data-resnet50-imagenet-448 $data-resnet50-imagenet-224-448" "$@"
done
