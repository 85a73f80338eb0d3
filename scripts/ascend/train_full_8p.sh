#!/usr/bin/env bash
# bash train_full_8p.sh --data_path=DIR
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
run_case train full 8 "$@"
