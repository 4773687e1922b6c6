#!/bin/bash
# The parts of the CUDA toolkit that a build needs: cmake/fetch_cuda.sh FOLDER [--no-install]
# Prints what TFINFER_CUDA_ROOT is to be: nothing where the installed toolkit will do, else FOLDER, a Python virtual environment that the
# parts are fetched to unless they are there. Everything else goes to standard error. No driver and no GPU is needed.
# --no-install: fetch nothing; the exit status is 3 if that leaves no toolkit.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=$1
release=13.0
parts="nvidia-cuda-nvcc nvidia-cuda-crt nvidia-cuda-runtime nvidia-cuda-cccl nvidia-nvvm nvidia-cublas"

# Whether cuda.cmake is content with the toolkit under this root, or with the installed one.
works() { # ROOT
    cmake -DTFINFER_CUDA=ON -DTFINFER_CUDA_ROOT="$1" -P "$here/cuda.cmake" >&2 2>/dev/null
}

if works ""; then
    exit 0
elif ! works "$folder"; then
    [ "${2:-}" != --no-install ] || exit 3
    [ -x "$folder/bin/pip" ] || python3 -m venv "$folder" >&2
    # shellcheck disable=SC2046 # a word a part
    "$folder/bin/pip" --disable-pip-version-check install -q $(printf "%s==$release.* " $parts) >&2
    works "$folder" || { echo "cmake/fetch_cuda.sh: what was fetched to $folder is no whole toolkit" >&2; exit 1; }
fi
echo "$folder"
