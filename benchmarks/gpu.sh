#!/usr/bin/env bash
# All that is to be known of a machine with one GPU, in at most 12 minutes and without a network: see
# docs/benchmark.md. Every part has a limit of its own and writes as it goes; one that fails stops no other.
#
# benchmarks/gpu.sh [--smoke] [--output DIR] [--packs DIR] [--wheels DIR]
# FIRST and SECOND in the environment are the recipes of the two trainings with their flags.
set -uo pipefail
cd "$(dirname "$0")/.."

smoke= output=output/gpu packs=benchmarks/packs wheels=benchmarks/wheels
while (($#)); do
  case $1 in
    --smoke) smoke=1 ;;
    --output) output=$2; shift ;;
    --packs) packs=$2; shift ;;
    --wheels) wheels=$2; shift ;;
    *) echo "gpu.sh: $1 is no option" >&2; exit 2 ;;
  esac
  shift
done
python=${PYTHON:-python3}
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
export PYTHONPATH=$PWD/src:$site${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
mkdir -p "$output" || exit 1
failed=0

part() { # name, seconds at most, command
  local name=$1 limit=$2 began=$SECONDS status
  [[ $smoke ]] && limit=$((10 * limit)) # however busy the machine is
  shift 2
  echo "=== $name"
  timeout -k 20 -s INT "$limit" "$@" 2>&1 | tee -a "$output/log.txt"
  status=${PIPESTATUS[0]}
  # a training that is cut off leaves its last whole epoch
  ((status == 0)) || { ((status == 124)) && [[ $name == *training ]]; } || failed=1
  echo "=== $name: status $status after $((SECONDS - began)) s" | tee -a "$output/log.txt"
}
keep() { # a run, name in $output
  "$python" - "$1" "$output/$2" <<< 'import sys
from diffusionpose.models.checkpoints import load_model, save_model
save_model(load_model(sys.argv[1]), sys.argv[2] + ".safetensors", half=True)' && cp "$1/metrics.csv" "$output/$2.csv" || failed=1
}
pose() { echo "$python -m diffusionpose $*"; }

if compgen -G "$wheels/*.whl" > /dev/null; then
  part wheels 60 "$python" -m pip install -q --no-index --no-deps --no-compile --target "$site" "$wheels"/*.whl
fi
if [[ $smoke ]]; then
  packs=$site/packs
  sets="from diffusionpose.data.synthetic import write_synthetic as write
for set in ('train-people', 'val-people'): write(f'$site/{set}', 2, size=(160, 120), most_people=1)"
  "$python" -c "$sets" || exit 1
  for set in train-people val-people; do
    part "pack $set" 60 $(pose data pack --images "$site/$set/images" --annotations "$site/$set/annotations.json" --output "$packs/$set" --jpeg 95)
  done
fi
train=("$packs"/train-*) val=("$packs"/val-*)
[[ -f $val/pack.json && -f $train/pack.json ]] || { echo "gpu.sh: $packs: no packs train-* and val-*" >&2; exit 1; }

# the longest part last, so that all before it is done whatever happens
part tests 90 "$python" -m pytest -q -rs -p no:cacheprovider tests/test_gpu.py
if [[ $smoke ]]; then
  part benchmark 60 $(pose benchmark --output "$output/benchmark" --parts loader --rounds 1)
  machine=(--accelerator cpu --workers 0 --epochs 1 --batch-size 2 --no-flip)
else
  part benchmark 120 $(pose benchmark --output "$output/benchmark" --parts networks training loader --rounds 6)
  machine=(--accelerator gpu --workers "$(($(nproc) - 1))" --compile)
fi
sets=(--images "${train[@]}" --annotations "${train[@]/%//annotations.json}" --val-images "$val" --val-annotations "$val/annotations.json")
first=${FIRST:-movenet_256x192_body --batch-size 128 --epochs 20 --relative-rate --learning-rate 6e-3}
second=${SECOND:-diffusionpose_movenet_256x192_body --batch-size 128 --epochs 10 --learning-rate 4e-4}
run=$site/first start=${START:-diffusionpose-movenet-256x192}
part "heatmap training" 180 $(pose train $first "${sets[@]}" "${machine[@]}" --output "$run" --weights "$start")
keep "$run" heatmaps && start=$run
run=$site/second
part "diffusion training" 180 $(pose train $second "${sets[@]}" "${machine[@]}" --output "$run" --weights "$start")
keep "$run" diffusionpose
models=("$output/diffusionpose.safetensors")
[[ $smoke ]] || models+=(diffusionpose-movenet-256x192)
for set in "${val[@]}"; do
  for weights in "${models[@]}"; do
    part "evaluate $(basename "$weights") on $(basename "$set")" 40 \
      $(pose evaluate --weights "$weights" --images "$set" --annotations "$set/annotations.json" --output "$site/evaluation")
  done
done
exit "$failed"
