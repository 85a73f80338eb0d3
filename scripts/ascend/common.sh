# Shared by the scripts of this folder: the port's flags, one run of fixres, the port's result lines.
#
#   run_case train|finetune full|performance DEVICES [--data_path=DIR] [--pth_path=FILE] [--device_id=N] [--workers=N]
#
# Words it does not know go to `fixres train` as they are (--runtime.device cpu --runtime.precision auto).
# NPROC: processes of the 8p scripts, 8 unless set. PYTHON: python3 unless set.
set -euo pipefail
ascend_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

parse_flags() {
  data_path='' pth_path='' device_id=0 workers='' extra=()
  while [ $# -gt 0 ]; do
    case $1 in
      --data_path=*) data_path=${1#*=} ;;
      --pth_path=*) pth_path=${1#*=} ;;
      --device_id=*) device_id=${1#*=} ;;
      --workers=*) workers=${1#*=} ;;
      --data_path | --pth_path | --device_id | --workers)
        [ $# -gt 1 ] || { echo "$1 needs a value: $1=..." >&2; exit 2; }
        set -- "$1=$2" "${@:3}"
        continue
        ;;
      *) extra+=("$1") ;;
    esac
    shift
  done
  [ -n "$data_path" ] || { echo "where is ImageNet? --data_path=DIR (with train/ and val/)" >&2; exit 2; }
  [ -d "$data_path" ] || { echo "--data_path: no folder $data_path" >&2; exit 2; }
}

# Start fixres on one process, or on several that share the batches.
start() {
  local devices=$1
  shift
  if [ "$devices" = 1 ]; then
    ASCEND_RT_VISIBLE_DEVICES=$device_id "${PYTHON:-python3}" -m fixres "$@"
  else
    "${PYTHON:-python3}" -m torch.distributed.run --standalone --nproc-per-node "${NPROC:-$devices}" -m fixres "$@"
  fi
}

run_case() {
  local kind=$1 mode=$2 devices=$3
  shift 3
  parse_flags "$@"
  local case_name=${kind}_${mode}_${devices}p
  local output=output/$device_id/$case_name
  local weights=()
  if [ "$kind" = finetune ]; then
    [ -n "$pth_path" ] || { echo "which weights? --pth_path=FILE (or a run folder of train_full_${devices}p.sh)" >&2; exit 2; }
    [ -e "$pth_path" ] || { echo "--pth_path: no file $pth_path" >&2; exit 2; }
  fi
  [ -z "$pth_path" ] || weights=(--model.weights "$pth_path")
  [ -z "$workers" ] || extra+=(--data.workers "$workers")
  mkdir -p "$output"
  local begin
  begin=$(date +%s)
  start "$devices" train "ascend/$kind-$mode-${devices}p" --data.uri "folder:$data_path" --out "$output/run" \
    ${weights[@]+"${weights[@]}"} ${extra[@]+"${extra[@]}"} 2>&1 | tee "$output/train.log"
  "${PYTHON:-python3}" "$ascend_folder/results.py" "$output" "$kind" "$mode" "$devices" $(($(date +%s) - begin))
}
