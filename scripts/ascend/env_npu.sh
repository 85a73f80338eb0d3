#!/usr/bin/env bash
# source env_npu.sh: what CANN sets up, where it is installed.
for set_env in "${ASCEND_HOME:-/usr/local/Ascend}"/{ascend-toolkit,nnae}/set_env.sh; do
  # shellcheck disable=SC1090
  [ ! -f "$set_env" ] || source "$set_env"
done
