# Shared by the scripts of this folder: train recipes one after the other. Words given go to each `fixres train`.
set -euo pipefail

train_all() {
  local names=$1
  shift
  for name in $names; do
    "${PYTHON:-python3}" -m fixres train "simple/$name" --out "out/$name" "$@"
  done
}
