#!/bin/bash
# All tests that want a GPU, on a machine that has one, from a build that was made elsewhere:
#   tests/gpu.sh BUILD [LOG]
# BUILD holds src/libtfinfer.so.0, tests/bin/ and, where this machine lacks them, the libraries that the build was linked with in lib/.
# Prints a line a step and one summary line; everything else goes to LOG (gpu.log). TFINFER_GPU_STEPS=kernels,api,... runs those steps
# alone, TFINFER_GPU_KINDS="norm pool" has the sanitizers run the tests of those ops alone.
set -u
here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "$1" && pwd)
log=${2:-gpu.log}
: >"$log"
python=${PYTHON:-python3}
steps=${TFINFER_GPU_STEPS:-ldd,kernels,device,gemm_file,api,beams,on_device,encode,source,fp16,choices,steps,generate,equality,tasks,memcheck,racecheck}

# The matrix library comes with the toolkit or with a Python package.
lt=$(ls /usr/local/cuda/lib64/libcublasLt.so.1? 2>/dev/null || $python -c '
import glob, os, sysconfig
print(*glob.glob(os.path.join(sysconfig.get_paths()["purelib"], "nvidia", "*", "lib", "libcublasLt.so.1?")))')
export LD_LIBRARY_PATH=$build/src:$build/lib:$(dirname "${lt%%[[:space:]]*}"):${LD_LIBRARY_PATH:-}
export TFINFER_DEVICE=cuda TFINFER_LIBRARY=$build/src/libtfinfer.so.0 TFINFER_DUMP_TENSORS=$build/tests/bin/dump_tensors
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONDONTWRITEBYTECODE=1
pytest="$python -m pytest -q -p no:cacheprovider --device cuda --rootdir $here/conformance"
ran=0
failed=() begun=()

is_wanted() { # NAME
    case ",$steps," in *",${1%%-*},"*) ;; *) return 1 ;; esac
}
run() { # NAME SECONDS COMMAND...
    local begin=$SECONDS to=$log.$1
    echo "==== $1: ${*:3}" >"$to"
    timeout "$2" "${@:3}" >>"$to" 2>&1
    echo "$? $((SECONDS - begin))" >"$to.end"
}
report() { # NAME
    local code seconds last
    read -r code seconds <"$log.$1.end"
    last=$(grep -E 'passed|failed|mismatches|ERROR SUMMARY|hazard' "$log.$1" | tail -4 | tr '\n' ' ')
    ran=$((ran + 1))
    [ "$code" = 0 ] || failed+=("$1")
    echo "gpu: $1: $([ "$code" = 0 ] && echo passed || echo "FAILED ($code)") in $seconds s | ${last:-$(tail -1 "$log.$1")}"
    cat "$log.$1" >>"$log"
    rm "$log.$1" "$log.$1.end"
}
step() { # NAME SECONDS COMMAND...
    is_wanted "$1" || return
    run "$@"
    report "$1"
}
begin() { # NAME SECONDS COMMAND...; several at once, each mostly the reference on the CPU
    is_wanted "$1" || return
    (export OMP_NUM_THREADS=$((($(nproc) + 3) / 4)) && run "$@") &
    begun+=("$1")
}
end() {
    wait
    for name in "${begun[@]}"; do report "$name"; done
}

conformance=$here/conformance
step ldd 20 ldd "$build/src/libtfinfer.so.0"
step kernels 200 "$build/tests/bin/cuda_ops"
step device 60 "$build/tests/bin/api_device"
step gemm_file 60 "$build/tests/bin/api_gemm_file"
step api 120 "$build/tests/bin/api_generate"
step beams 120 "$build/tests/bin/api_beams"
step on_device 150 "$build/tests/bin/api_on_device"
begin encode 300 $pytest "$conformance/test_models.py" "$conformance/test_gpt2_t5.py"
begin source 120 $pytest "$conformance/test_open_source.py"
begin fp16 120 $pytest "$conformance/test_fp16.py"
begin choices 120 $pytest "$conformance/test_gemm_file.py"
begin steps 200 $pytest "$conformance/test_steps.py"
[ -e "$conformance/test_generate.py" ] && begin generate 260 $pytest "$conformance/test_generate.py"
begin equality 240 $pytest "$conformance/test_equality.py"
begin tasks 240 $pytest "$conformance/test_tasks.py"
end

# The sanitizers over the tests of the ops, each kind a process with a limit of its own, several at a time. memcheck sees all cases,
# racecheck, which takes long over whatever touches shared memory, a few small ones of each kind, other ones in every run. A name that is
# part of another one runs that too.
sanitize_kind() { # TOOL SECONDS PROGRAM KIND RESULT
    local begin=$SECONDS options=() few=()
    # It wants a proxy fence by each thread that has loaded what a copy is going to overwrite; one by the thread that copies does as well.
    compute-sanitizer --help | grep -q racecheck-fence-proxy-async && options=(--racecheck-fence-proxy-async no)
    [ "$1" = racecheck ] && few=(6)
    timeout "$2" compute-sanitizer --tool "$1" --error-exitcode 9 "${options[@]}" "$3" "$4" "${few[@]}" >"$5" 2>&1
    echo "$? $((SECONDS - begin))" >"$5.end"
}
sanitize_ops() { # TOOL SECONDS PROGRAM
    local kinds kind bad=() each code seconds at_once=$((($(nproc) * 3 + 3) / 4))
    kinds=${TFINFER_GPU_KINDS:-$("$3" --list | awk 'NF == 1 { name[n++] = $1 }
        END { for (i = 0; i < n; i++) { for (k = 0; k < n && (k == i || !index(name[i], name[k])); k++); if (k == n) print name[i] } }')}
    # racecheck takes an arrival at a barrier for that of its lane alone, though the warp met before (__syncwarp(), then one lane arrives): so
    # it reports all that a chain's warps hand over, which it does not where every lane arrives. chain_again looks for races with effects.
    [ "$1" = memcheck ] || [ -n "${TFINFER_GPU_KINDS:-}" ] || kinds=$(grep -vx chain <<<"$kinds")
    each=$(mktemp -d)
    for kind in $kinds; do
        while [ "$(jobs -rp | wc -l)" -ge "$at_once" ]; do wait -n; done
        sanitize_kind "$1" "$2" "$3" "$kind" "$each/$kind" &
    done
    wait
    for kind in $kinds; do
        read -r code seconds <"$each/$kind.end"
        echo "$1 $kind: $([ "$code" = 0 ] && echo passed || echo "FAILED ($code)") in $seconds s"
        tail -5 "$each/$kind"
        [ "$code" = 0 ] || bad+=("$kind")
    done
    rm -r "$each"
    echo "$1: $(wc -w <<<"$kinds") kinds of ops, failed ${#bad[@]} ${bad[*]:-}"
    [ ${#bad[@]} = 0 ] && [ -n "$kinds" ]
}
export -f sanitize_kind sanitize_ops
if command -v compute-sanitizer >/dev/null; then
    step memcheck-api 60 compute-sanitizer --tool memcheck --error-exitcode 9 "$build/tests/bin/api_generate" gpt2_streams
    for tool in memcheck racecheck; do step $tool-ops 600 bash -c 'sanitize_ops "$@"' - $tool 150 "$build/tests/bin/cuda_ops"; done
fi
echo "gpu: $(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | head -1) | steps $ran, failed ${#failed[@]} ${failed[*]:-} | $SECONDS s"
[ ${#failed[@]} = 0 ]
