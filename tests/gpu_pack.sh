#!/bin/bash
# What tests/gpu.sh needs on a machine with a GPU, as one archive: tests/gpu_pack.sh BUILD ARCHIVE.tar.xz
# There: mkdir gpu && tar -xJf ARCHIVE.tar.xz -C gpu && gpu/tests/gpu.sh gpu/build
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
to=$work/build
mkdir -p "$to/src" "$to/lib" "$to/tests/bin" "$work/tests"
cp -L "$build"/src/libtfinfer.so.0 "$to/src/"
cp "$build/src/cli/tfinfer" "$to/tests/bin/"
for program in cuda_ops api_device api_gemm_file api_generate api_beams api_on_device step_logits dump_tensors; do cp "$build/tests/bin/$program" "$to/tests/bin/"; done
strip --strip-unneeded "$to/src/libtfinfer.so.0" "$to"/tests/bin/*
# Of the libraries those that a machine for GPU work may lack.
ldd "$build/src/libtfinfer.so.0" | awk '/dnnl|jansson|mecab|pcre2|utf8proc|OpenCL|gomp/ { print $3 }' | xargs -I{} cp -L {} "$to/lib/"
cp -r "$here/conformance" "$here/bench" "$here/gpu.sh" "$work/tests/"
find "$work" -name __pycache__ -prune -exec rm -rf {} +
tar -C "$work" -cJf "$2" build tests
ls -l "$2"
