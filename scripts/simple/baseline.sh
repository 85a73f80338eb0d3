#!/usr/bin/env bash
# SimpleClassification's baselines: from scratch, on four data sets.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
train_all "cifar10-resnet18 cifar100-resnet18 cub-resnet18 cars-resnet18" "$@"
