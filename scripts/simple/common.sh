# Shared by the scripts of this folder: train recipes one after the other. Words given go to each `fixres train`.
#
# Runs are in out/NAME, which the scripts share: a finished one is not repeated, an unfinished one goes on.
# OUT: folder of the runs, out unless set. PYTHON: python3 unless set.
set -euo pipefail

train_all() {
  local names=$1
  shift
  for name in $names; do
    "${PYTHON:-python3}" -m fixres train "simple/$name" --out "${OUT:-out}/$name" --resume "$@"
  done
}
