#!/usr/bin/env bash
# bash finetune_full_1p.sh --data_path=DIR --pth_path=PATH
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
run_case finetune full 1 "$@"
