#!/bin/bash
# All that wants a GPU, within eight minutes: bash benchmarks/gpu.sh, from the project's folder.
# Needs Python with PyTorch and a GPU, says what else it lacks, and writes benchmarks/gpu.json.
set -u
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
if ! "$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())'; then
    echo "$python has no PyTorch that sees a GPU; PYTHON=... names another" >&2
    exit 1
fi
timeout 440 "$python" benchmarks/gpu.py "$@"
