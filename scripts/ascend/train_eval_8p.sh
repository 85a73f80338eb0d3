#!/usr/bin/env bash
# bash train_eval_8p.sh --data_path=DIR --pth_path=PATH
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
evaluate 8 "$@"
