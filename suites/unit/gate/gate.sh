#!/usr/bin/env bash
# What ci/find-gpu and ci/gate decide with and without a GPU, on machines made of scripts: a folder of programs in
# place of PATH, in which nvidia-smi, nvcc, compute-sanitizer, cmake and checkmoe are told what to do.
# Usage: gate.sh REPOSITORY
set -euo pipefail

root=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# program PLACE TEXT: an executable script
program() {
    mkdir -p "$(dirname "$1")"
    printf '#!/bin/bash\n%s\n' "$2" >"$1"
    chmod +x "$1"
}

# machine: a new, empty one in $machine, with its repository in $machine/repository
number=0
new_machine() {
    machine=$work/$((number += 1))
    mkdir -p "$machine"/{bin,repository/ci,toolkit/bin}
    local tool
    for tool in bash env cat mkdir rm tail nproc dirname chmod; do
        ln -s "$(command -v "$tool")" "$machine/bin/$tool"
    done
    cp "$root"/ci/{gate,find-gpu} "$machine/repository/ci"
    program "$machine/repository/ci/setup" 'exit 0'
    # checkmoe keeps its arguments, and exits as $CHECKMOE_EXIT (native runs) says
    program "$machine/bin/checkmoe" "echo \"\$0 \$*\" >>'$machine/calls'
[[ \"\$*\" == *native* ]] || exit 0
exit \${NATIVE_EXIT:-0}"
    program "$machine/bin/cmake" "echo \"cmake \$*\" >>'$machine/calls'
for preset in release cuda; do
    [[ \"\$*\" != *\"--build --preset \$preset\"* ]] || {
        mkdir -p build/\$preset
        cat '$machine/bin/checkmoe' >build/\$preset/checkmoe
        chmod +x build/\$preset/checkmoe
    }
done
[[ -z \${CUDA_BUILD_EXIT:-} || \"\$*\" != *\"--build --preset cuda\"* ]] || exit \$CUDA_BUILD_EXIT"
}

has_gpu() { # ROW of nvidia-smi
    program "$machine/bin/nvidia-smi" "echo '$1'"
}

# on COMMAND...: runs it there; output in $said, status in $status
on() {
    status=0
    said=$(cd "$machine/repository" && env -i PATH="$machine/bin" CUDA_HOME="$machine/toolkit" "${given[@]}" "$@" 2>&1) ||
        status=$?
    calls=$(cat "$machine/calls" 2>/dev/null || true)
}

check() { # WHAT TEXT PART: TEXT has PART
    if [[ $2 != *"$3"* ]]; then
        printf 'FAIL %s: no "%s" in:\n%s\n' "$1" "$3" "$2"
        failed=1
    fi
}

check_not() {
    if [[ $2 == *"$3"* ]]; then
        printf 'FAIL %s: "%s" in:\n%s\n' "$1" "$3" "$2"
        failed=1
    fi
}

given=()
new_machine
on ci/find-gpu
check "no driver" "$said" "skip=there is no nvidia-smi"
on ci/gate
check "gate without a GPU" "$status" 0
check "gate without a GPU" "$said" "SKIP: CUDA kernels on a GPU: there is no nvidia-smi"
check "gate without a GPU" "$said" "mode: emulated"
check "gate without a GPU" "$said" "SKIP: compute-sanitizer"
check "gate without a GPU" "$calls" "build/release/checkmoe run --faults"
check_not "gate without a GPU" "$calls" "cuda"

new_machine
program "$machine/bin/nvidia-smi" 'echo "NVIDIA-SMI has failed because it could not talk to the driver"; exit 9'
on ci/find-gpu
check "driver without device" "$said" "skip=nvidia-smi fails: NVIDIA-SMI has failed"
check "driver without device" "$status" 0

new_machine
has_gpu "No devices were found"
on ci/find-gpu
check "no device" "$said" "skip=nvidia-smi shows no GPU: No devices were found"

new_machine
has_gpu "Tesla V100, 7.0, 535.1"
program "$machine/bin/nvcc" 'exit 0'
on ci/find-gpu
check "old device" "$said" "skip=Tesla V100 has compute capability 7.0"

new_machine
has_gpu "NVIDIA H200, 9.0, 570.1"
on ci/find-gpu
check "no nvcc" "$said" "skip=NVIDIA H200 is here, but nvcc is neither on PATH nor in $machine/toolkit/bin"
on ci/gate
check "gate without nvcc" "$said" "SKIP: CUDA kernels on a GPU: NVIDIA H200 is here, but nvcc"
check_not "gate without nvcc" "$calls" "--preset cuda"

program "$machine/toolkit/bin/nvcc" 'exit 0'
on ci/find-gpu
check "toolkit's nvcc" "$said" "gpu=NVIDIA H200, compute capability 9.0, driver 570.1"
check "toolkit's nvcc" "$said" "architecture=90"
check "toolkit's nvcc" "$said" "nvcc=$machine/toolkit/bin/nvcc"
check_not "toolkit's nvcc" "$said" "sanitizer"
on ci/gate
check "gate on a GPU" "$status" 0
check "gate on a GPU" "$said" "GPU: NVIDIA H200"
check "gate on a GPU" "$said" "SKIP: compute-sanitizer: not installed"
check "gate on a GPU" "$calls" "cmake --preset cuda -DCMAKE_CUDA_ARCHITECTURES=90 -DCM_NVCC=$machine/toolkit/bin/nvcc"
check "gate on a GPU" "$calls" "build/cuda/checkmoe run */cuda */cuda-* */split --mode native --require cuda --set ci"
check_not "gate on a GPU" "$said" "SKIP: CUDA"
for code in 77 5; do # nothing ran, though there is a GPU
    given=(NATIVE_EXIT=$code)
    on ci/gate
    check "gate with an idle GPU" "$status" 1
done
given=(CUDA_BUILD_EXIT=3)
on ci/gate
check "gate with a build that fails" "$status" 3

new_machine
given=()
has_gpu "NVIDIA A100-SXM4-80GB, 8.0, 550.2
NVIDIA A100-SXM4-80GB, 8.0, 550.2"
program "$machine/bin/nvcc" 'exit 0'
program "$machine/toolkit/bin/compute-sanitizer" "echo \"sanitizer \$*\" >>'$machine/calls'
[[ \$2 != \"\${SANITIZER_FINDS:-}\" ]] || { echo 'Invalid __global__ read'; exit 9; }
shift 4
exec \"\$@\""
on ci/find-gpu
check "two devices" "$said" "architecture=80"
check "two devices" "$said" "nvcc=$machine/bin/nvcc"
check "two devices" "$said" "sanitizer=$machine/toolkit/bin/compute-sanitizer"
on ci/gate
check "gate with a sanitizer" "$status" 0
check_not "gate with a sanitizer" "$said" "SKIP"
for tool in memcheck racecheck initcheck; do
    check "gate with a sanitizer" "$calls" "sanitizer --tool $tool --error-exitcode 9 build/cuda/checkmoe run"
done
given=(SANITIZER_FINDS=racecheck)
on ci/gate
check "gate with a race" "$status" 1
check "gate with a race" "$said" "Invalid __global__ read"

if ((failed)); then
    exit 1
fi
echo "$number machines decided as expected"
