#!/bin/sh
# Measures fixres on one NVIDIA GPU in less than eight minutes; run again with the same --out, it goes on.
#
#   benchmarks/gpu.sh --out DIR [--minutes 7.5] [--toy]
#
# PYTHON names the interpreter, .venv/bin/python of this checkout by default; --help says more.
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd) || exit
PYTHONPATH=$root/src:$root${PYTHONPATH:+:$PYTHONPATH}
# Asks the driver for GPUs without opening them, so that a process can still be forked afterwards.
PYTORCH_NVML_BASED_CUDA_CHECK=1
export PYTHONPATH PYTORCH_NVML_BASED_CUDA_CHECK
exec "${PYTHON:-$root/.venv/bin/python}" -m benchmarks.gpu.run "$@"
