#!/usr/bin/env bash
# bash finetune_performance_8p.sh --data_path=DIR --pth_path=PATH
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
run_case finetune performance 8 "$@"
