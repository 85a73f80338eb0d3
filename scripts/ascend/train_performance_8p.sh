#!/usr/bin/env bash
# bash train_performance_8p.sh --data_path=DIR
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
run_case train performance 8 "$@"
