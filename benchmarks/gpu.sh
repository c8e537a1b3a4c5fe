#!/usr/bin/env bash
# What AFT does on a GPU, in about eight minutes: is it right there, how fast, with how much memory?
#
#     benchmarks/gpu.sh [--tiny] [exactness recipe align sampling align7b memory precision checkpoint]
#
# Without names all steps run: exactness and recipe side by side, then the timed ones one after the other, each within
# its own limit. What a step measures is in $OUT/<step>.json (default: ./gpu) as soon as it is measured; what it says
# is in $OUT/gpu.log, at whose end the tables stand, in Markdown. --tiny rehearses everything on small shapes, with or
# without a GPU. PYTHON is the interpreter (default: python3).
set -uo pipefail
cd "$(dirname "$0")/.."
tiny=() times=1 # of the limits
if [[ ${1-} == --tiny ]]; then
  tiny=(--tiny) times=10
  shift
fi
steps=("$@")
[[ $# -gt 0 ]] || steps=(exactness recipe align sampling align7b memory precision checkpoint)
out=${OUT:-gpu}
python=${PYTHON:-python3}
mkdir -p "$out"
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TQDM_DISABLE=1
export PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
# Seconds that a step may take.
declare -A limits=(
  [exactness]=130 [recipe]=130 [align]=100 [sampling]=130 [align7b]=90 [memory]=45 [precision]=90
  [checkpoint]=45
)

run() { # one step, its log apart until it is done: two may run at a time
  local step=$1 began=$SECONDS log
  log=$(mktemp)
  timeout --kill-after=5 "$((times * ${limits[$step]:-60}))" "$python" benchmarks/gpu.py "$step" "$out" "${tiny[@]}" >"$log" 2>&1
  local status=$?
  { echo "=== $step"; tail -c 200000 "$log"; } >>"$out/gpu.log"
  rm "$log"
  echo "$step: $((SECONDS - began)) s, exit status $status" | tee -a "$out/gpu.log"
}

for step in "${steps[@]}"; do # these time nothing
  if [[ $step == exactness || $step == recipe ]]; then run "$step" & fi
done
wait
for step in "${steps[@]}"; do
  [[ $step == exactness || $step == recipe ]] || run "$step"
done
"$python" benchmarks/gpu.py table "$out" | tee -a "$out/gpu.log"
