#!/usr/bin/env bash
# Serve a GGUF file with llama.cpp's server on the CPU, for tests/servers/test_judge.py: llama_cpp.sh ENVIRONMENT FILE [PORT [THREADS]]
# ENVIRONMENT is a folder for a virtual environment of its own, made the first time: xllamacpp has llama.cpp built in (100 MB).
set -euo pipefail
environment=$1 file=$2 port=${3:-8000} threads=${4:-2}

if ! "$environment/bin/python" -c "import xllamacpp" 2> /dev/null; then
    python3 -m venv "$environment"
    "$environment/bin/pip" install -q xllamacpp==2026.10.11549
fi
exec "$environment/bin/python" - "$file" "$port" "$threads" <<'PYTHON'
import signal
import sys

import xllamacpp

file, port, threads = sys.argv[1:]
asked = xllamacpp.CommonParams()
asked.model.path, asked.model_alias = file, {"served"}
asked.hostnames, asked.port = ["127.0.0.1"], int(port)
asked.n_parallel, asked.n_ctx = 4, 4 * 2048  # of each request a quarter
asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = int(threads)
server = xllamacpp.Server(asked)
signal.pause()
PYTHON
