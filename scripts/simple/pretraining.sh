#!/usr/bin/env bash
# SimpleClassification's comparison of starting weights: random, ImageNet, MoCo v2.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
for data in cub cars; do
  train_all "$data-resnet18 $data-resnet18-imagenet $data-resnet50 $data-resnet50-imagenet $data-resnet50-moco" "$@"
done
