# Shared by the scripts of this folder: the port's flags, one run of fixres, the port's result lines.
#
#   run_case train|finetune full|performance DEVICES [--data_path=DIR] [--pth_path=PATH] [--device_id=N] [--workers=N]
#   evaluate DEVICES [the same]
#
# PATH is a weights file, a run of these scripts, or a folder that holds a weights file. A finished run is not repeated,
# an unfinished one goes on. Words the scripts do not know go to `fixres` as they are (--runtime.device cpu).
# NPROC: processes of the 8p scripts, 8 unless set. PYTHON: python3 unless set.
set -euo pipefail
ascend_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

refuse() {
  echo "$1" >&2
  exit 2
}

parse_flags() {
  data_path='' pth_path='' device_id=0 workers='' extra=()
  while [ $# -gt 0 ]; do
    case $1 in
      --data_path=*) data_path=${1#*=} ;;
      --pth_path=*) pth_path=${1#*=} ;;
      --device_id=*) device_id=${1#*=} ;;
      --workers=*) workers=${1#*=} ;;
      --data_path | --pth_path | --device_id | --workers)
        [ $# -gt 1 ] || refuse "$1 needs a value: $1=..."
        set -- "$1=$2" "${@:3}"
        continue
        ;;
      *) extra+=("$1") ;;
    esac
    shift
  done
  [ -n "$data_path" ] || refuse "where is ImageNet? --data_path=DIR (with train/ and val/)"
  [ -d "$data_path" ] || refuse "--data_path: no folder $data_path"
}

# Print the weights that --pth_path means: a file and a run or model folder are taken as they are, in any other folder
# they are looked for, one level down too, as the port has them in train_cache/TIME/.
weights_of() {
  local path=${1%/} name found
  if [ ! -e "$path" ]; then
    # FILE#raw and the like say which weights of a file.
    [ -e "${path%#*}" ] || refuse "--pth_path: no file or folder $1"
    echo "$path"
    return
  fi
  if [ ! -d "$path" ] || [ -e "$path/recipe.yaml" ] || [ -e "$path/config.json" ]; then
    echo "$path"
    return
  fi
  if [ -e "$path/run/recipe.yaml" ]; then
    echo "$path/run"
    return
  fi
  shopt -s nullglob
  for name in "$path"/model_best.pth "$path"/checkpoint.pth; do
    if [ -f "$name" ]; then
      echo "$name"
      return
    fi
  done
  found=("$path"/*.pth "$path"/*.pth.tar "$path"/*.pt)
  [ ${#found[@]} -gt 0 ] || found=("$path"/*/*.pth "$path"/*/*.pth.tar "$path"/*/*.pt)
  [ ${#found[@]} -gt 0 ] || refuse "--pth_path: no weights (.pth, .pth.tar, .pt) in $1"
  [ ${#found[@]} = 1 ] || refuse "--pth_path: $1 holds ${#found[@]} weights files, name one: ${found[*]}"
  echo "${found[0]}"
}

# Start fixres on one process, or on several that share the batches. What it says goes to stderr and to LOG.
start() {
  local devices=$1 log=$2
  shift 2
  if [ "$devices" = 1 ]; then
    ASCEND_RT_VISIBLE_DEVICES=$device_id "${PYTHON:-python3}" -m fixres "$@" 2>&1 | tee -a "$log" >&2
  else
    "${PYTHON:-python3}" "$ascend_folder/launch.py" "${NPROC:-$devices}" "$@" 2>&1 | tee -a "$log" >&2
  fi
}

run_case() {
  local kind=$1 mode=$2 devices=$3
  shift 3
  parse_flags "$@"
  local case_name=${kind}_${mode}_${devices}p
  local output=output/$device_id/$case_name
  local weights=()
  if [ "$kind" = finetune ] && [ -z "$pth_path" ]; then
    refuse "which weights? --pth_path=FILE (or the folder of train_${mode}_${devices}p.sh: output/$device_id/train_${mode}_${devices}p)"
  fi
  if [ -n "$pth_path" ]; then
    pth_path=$(weights_of "$pth_path")
    weights=(--model.weights "$pth_path")
  fi
  [ -z "$workers" ] || extra+=(--data.workers "$workers")
  mkdir -p "$output"
  start "$devices" "$output/train.log" train "ascend/$kind-$mode-${devices}p" --data.uri "folder:$data_path" \
    --out "$output/run" --resume ${weights[@]+"${weights[@]}"} ${extra[@]+"${extra[@]}"}
  "${PYTHON:-python3}" "$ascend_folder/results.py" "$output" "$kind" "$mode"
}

evaluate() {
  local devices=$1
  shift
  parse_flags "$@"
  [ -n "$pth_path" ] || refuse "which weights? --pth_path=FILE (or the folder of a run)"
  pth_path=$(weights_of "$pth_path")
  local output=output/$device_id/train_eval_${devices}p model=()
  [ -d "${pth_path%#*}" ] || model=(--model ResNet50)
  [ -z "$workers" ] || extra+=(--workers "$workers")
  mkdir -p "$output"
  local begin
  begin=$(date +%s)
  start "$devices" "$output/evaluation.log" eval "$pth_path" ${model[@]+"${model[@]}"} --data "folder:$data_path" \
    --split val --sizes 384 --resize height ${extra[@]+"${extra[@]}"} --json "$output/eval.json"
  "${PYTHON:-python3}" "$ascend_folder/results.py" "$output" eval "${NPROC:-$devices}" $(($(date +%s) - begin))
}
