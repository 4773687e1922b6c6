#!/bin/bash
# The whole test suite on a bare Debian 12 machine: installs what is missing, builds, checks.
#
#   tests/run.sh                everything: C suite, conformance against transformers, sanitizers, valgrind
#   tests/run.sh --quick        the C suite of the release build alone
#   tests/run.sh --no-install   install nothing: neither apt packages nor Python ones
#
# The release build has the CUDA backend in it, also where there is no GPU: its tests then say that they were skipped. What the
# machine lacks of the CUDA toolkit is fetched. Sanitized builds are for the CPU alone.
#
# Environment: TFINFER_VENV, the Python environment to use or make (build/venv); TFINFER_CUDA_ROOT, the same for the parts of the CUDA
# toolkit (build/cuda); TFINFER_TEST_DATA, a folder with real vocabularies and texts that some tests read when it is there; TFC_SEED
# repeats a run's random inputs.
# The last line is "N passed, N failed, N skipped"; the exit status is 0 only if nothing failed.
set -u
cd "$(dirname "$0")/.."
root=$PWD

quick=0
install=1
for option in "$@"; do
    case $option in
    --quick) quick=1 ;;
    --no-install) install=0 ;;
    --help | -h) sed -n '2,15s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "tests/run.sh: unknown option $option; try --help" >&2; exit 2 ;;
    esac
done

packages="build-essential cmake ninja-build pkg-config libdnnl-dev ocl-icd-opencl-dev libjansson-dev libmecab-dev libmicrohttpd-dev libpcre2-dev libutf8proc-dev python3 python3-venv"
[ $quick = 1 ] || packages="$packages curl valgrind abigail-tools doxygen mandoc groff-base man-db"
venv=${TFINFER_VENV:-$root/build/venv}
cuda=OFF
cuda_root=${TFINFER_CUDA_ROOT:-$root/build/cuda}
reports=$root/build/reports
jobs=$(nproc)
begin=$SECONDS
extra_passed=0
extra_failed=0
extra_skipped=0

if [ -z "${TFINFER_TEST_DATA:-}" ] && [ -d "$root/../shared/data" ]; then
    TFINFER_TEST_DATA=$(cd "$root/../shared/data" && pwd)
fi
[ -n "${TFINFER_TEST_DATA:-}" ] && export TFINFER_TEST_DATA
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false CTEST_OUTPUT_ON_FAILURE=1 PIP_DISABLE_PIP_VERSION_CHECK=1
export UBSAN_OPTIONS=print_stacktrace=1

# Run one stage: say what it is, time it, and go on after a failure.
stage() { # TITLE COMMAND...
    local title=$1 start=$SECONDS code
    shift
    printf '\n==> %s\n' "$title"
    "$@"
    code=$?
    if [ $code = 0 ]; then
        printf '<== %s: done in %d s\n' "$title" $((SECONDS - start))
    else
        printf '<== %s: FAILED (status %d) after %d s\n' "$title" $code $((SECONDS - start))
    fi
    return $code
}

# A stage without a report of its own counts as one test.
counted() { # TITLE COMMAND...
    if stage "$@"; then extra_passed=$((extra_passed + 1)); else extra_failed=$((extra_failed + 1)); fi
}

skipped() {
    printf '\n==> %s\n<== skipped: %s\n' "$1" "$2"
    extra_skipped=$((extra_skipped + 1))
}

install_packages() {
    local missing="" package sudo=""
    for package in $packages; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    [ -z "$missing" ] && { echo "all there: $packages"; return 0; }
    [ "$(id -u)" = 0 ] || sudo=sudo
    echo "apt-get install$missing"
    # shellcheck disable=SC2086 # the list is split on purpose
    $sudo apt-get update -qq && $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing \
        >/dev/null
}

install_python() {
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv" || return 1
    # torch by itself first: what follows then finds its needs met and pulls no other build of it.
    "$venv/bin/pip" install -q torch==2.13.0 && "$venv/bin/pip" install -q -r tests/requirements.txt
}

# Status 3: there is no toolkit and none may be fetched.
find_cuda() {
    local may=""
    [ $install = 1 ] || may=--no-install
    cuda_root=$(cmake/fetch_cuda.sh "$cuda_root" $may) || return
    cuda=ON
    echo "the release build compiles the CUDA code for 75 and 90a with ${cuda_root:-the installed toolkit}"
}

build() { # PRESET
    # Sanitizers' code makes the compiler warn of things that are not there, so warnings count in the release build alone.
    local options=(-DTFINFER_WERROR=OFF -DTFINFER_CUDA=OFF)
    if [ "$1" = release ]; then
        options=(-DTFINFER_WERROR=ON -DTFINFER_CUDA=$cuda "-DTFINFER_CUDA_ROOT=$cuda_root" "-DTFINFER_CUDA_ARCHITECTURES=75;90a")
    fi
    cmake --preset "$1" "${options[@]}" >"build/$1.log" 2>&1 || { tail -30 "build/$1.log"; return 1; }
    cmake --build --preset "$1" -j "$jobs" >"build/$1.log" 2>&1 || { grep -A12 -E 'error:|FAILED:' "build/$1.log" | head -60; return 1; }
    echo "build/$1: $(grep -c warning: "build/$1.log") warnings"
}

# The C suite of a build; sanitized builds leave out what looks at the release build's files.
ctests() { # PRESET [PREFIX COMMAND...]
    local preset=$1 leave_out='^$'
    shift
    [ "$preset" = release ] || leave_out='^(abi|install|tree)/'
    [ "$preset" = tsan ] && leave_out='^(abi|install|tree)/|^ops/opcheck$|^unit/tokenizer_(long|parts)$' # one thread, and minutes of it
    "$@" ctest --test-dir "build/$preset" -E "$leave_out" -j "$jobs" --output-junit "$reports/ctest-$preset.xml"
}

# A build that fails is one failed test; otherwise the report has the counts.
c_suite() { # PRESET [PREFIX COMMAND...]
    local preset=$1
    if ! stage "build: $preset" build "$preset"; then
        extra_failed=$((extra_failed + 1))
        return
    fi
    stage "C suite: $preset" ctests "$@"
    [ -s "$reports/ctest-$preset.xml" ] || extra_failed=$((extra_failed + 1))
}

conformance() {
    TFINFER_LIBRARY=$root/build/release/src/libtfinfer.so TFINFER_CLI=$root/build/release/src/cli/tfinfer \
        TFINFER_DUMP_TENSORS=$root/build/release/tests/bin/dump_tensors TFINFER_DRAW_OPS=$root/build/release/tests/bin/draw_ops.so \
        "$venv/bin/python" -m pytest tests/conformance -q -p no:cacheprovider --junitxml="$reports/pytest.xml"
}

# As a user installs it, but with the build's tools from the environment, so that nothing is fetched and a second run builds little.
install_package() {
    "$venv/bin/pip" install -q --no-deps --no-build-isolation -C build-dir="$root/build/python/build/cmake" -C cmake.define.TFINFER_CUDA=OFF \
        ./bindings/python
}

package_types() {
    (cd bindings/python && "$venv/bin/python" -m mypy)
}

# The package, and the examples that use it.
package_tests() {
    env -u TFINFER_LIBRARY "$venv/bin/python" -m pytest bindings/python/tests tests/examples -q -p no:cacheprovider --junitxml="$reports/pytest-package.xml"
}

# The wheel that could be given away, in an environment that has nothing else.
package_wheel() {
    rm -f build/python/*.whl
    bindings/python/build_wheel.sh build/python -C cmake.define.TFINFER_CUDA=OFF >build/wheel.log 2>&1 || { tail -30 build/wheel.log; return 1; }
    tail -1 build/wheel.log
    python3 -m venv --clear build/python/clean && build/python/clean/bin/pip install -q build/python/tfinfer-*.whl &&
        build/python/clean/bin/python -c 'import tfinfer; print(tfinfer.Model.open("examples/models/gpt2-prose", device="cpu").generate("I")[0].text)'
}

python_package() {
    if ! "$venv/bin/python" -c 'import mypy, pycparser, scikit_build_core' 2>/dev/null; then
        skipped "Python package" "the Python environment lacks scikit-build-core, mypy or pycparser"
        return
    fi
    if ! stage "Python package: install" install_package; then
        extra_failed=$((extra_failed + 1))
        return
    fi
    counted "Python package: types" package_types
    stage "Python package: tests" package_tests
    [ -s "$reports/pytest-package.xml" ] || extra_failed=$((extra_failed + 1))
    if [ $install = 1 ]; then
        counted "Python package: wheel" package_wheel
    else
        skipped "Python package: wheel" "--no-install: its tools are fetched"
    fi
}

# The blocks of README.md and docs/ that show four tasks need models that are trained here, in a few minutes, and kept.
demo_models() {
    local name missing=""
    for name in sentiment names answers words; do [ -e build/demo/$name/model.safetensors ] || missing=1; done
    [ -z "$missing" ] || "$venv/bin/python" examples/demo_models.py build/demo
}

documentation() {
    env -u TFINFER_LIBRARY "$venv/bin/python" -m pytest tests/docs -q -p no:cacheprovider --build build/release --demo build/demo \
        --junitxml="$reports/pytest-docs.xml"
}

valgrind_one() { # PROGRAM
    valgrind -q --leak-check=full --errors-for-leak-kinds=definite --error-exitcode=9 "build/release/tests/bin/$1"
}

summary() {
    python3 - "$reports" $extra_passed $extra_failed $extra_skipped <<'EOF'
import sys
import xml.etree.ElementTree as tree
from pathlib import Path

passed, failed, skipped = map(int, sys.argv[2:])
for report in sorted(Path(sys.argv[1]).glob("*.xml")):
    for case in tree.parse(report).getroot().iter("testcase"):
        name = " ".join(dict.fromkeys([case.get("classname") or "", case.get("name")])).strip()
        if case.find("failure") is not None or case.find("error") is not None or case.get("status") == "fail":
            failed += 1
            print(f"FAILED {report.stem}: {name}")
        elif case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
            skipped += 1
            print(f"skipped {report.stem}: {name}")
        else:
            passed += 1
print(f"{passed} passed, {failed} failed, {skipped} skipped")
sys.exit(1 if failed or not passed else 0)
EOF
}

mkdir -p "$reports"
rm -f "$reports"/*.xml

if [ $install = 1 ]; then
    stage "install packages" install_packages || exit 1
fi

stage "CUDA toolkit" find_cuda
case $? in
0) ;;
3) skipped "CUDA code" "there is no CUDA toolkit and --no-install fetches none: built for the CPU alone" ;;
*) extra_failed=$((extra_failed + 1)) ;;
esac
c_suite release

if [ $quick = 0 ]; then
    if [ $install = 1 ] && ! stage "install Python packages" install_python; then
        extra_failed=$((extra_failed + 1))
    elif [ ! -x "$venv/bin/python" ]; then
        skipped "conformance" "no Python environment at $venv"
    elif [ ! -x build/release/src/cli/tfinfer ]; then
        skipped "conformance" "the release build failed"
    else
        stage "conformance against transformers" conformance
        [ -s "$reports/pytest.xml" ] || extra_failed=$((extra_failed + 1))
        python_package
        stage "documentation: models" demo_models
        stage "documentation: every block" documentation
        [ -s "$reports/pytest-docs.xml" ] || extra_failed=$((extra_failed + 1))
    fi

    export ASAN_OPTIONS=allocator_may_return_null=1
    [ -e tests/lsan.supp ] && export LSAN_OPTIONS=suppressions=$root/tests/lsan.supp:print_suppressions=0
    c_suite asan

    # Forked children of the tests start threads; that is what they test.
    TSAN_OPTIONS=die_after_fork=0:halt_on_error=1
    [ -e tests/tsan.supp ] && TSAN_OPTIONS=$TSAN_OPTIONS:suppressions=$root/tests/tsan.supp
    export TSAN_OPTIONS
    # The sanitizer's shadow wants fixed addresses where the kernel allows to ask for them.
    if setarch "$(uname -m)" -R true 2>/dev/null; then
        c_suite tsan setarch "$(uname -m)" -R
    else
        c_suite tsan
    fi

    for program in unit_source unit_tokenizer unit_plan api_arguments; do
        if [ ! -x "build/release/tests/bin/$program" ]; then
            skipped "valgrind: $program" "not built"
        elif ! command -v valgrind >/dev/null; then
            skipped "valgrind: $program" "valgrind is not installed"
        else
            counted "valgrind: $program" valgrind_one "$program"
        fi
    done
fi

printf '\n==> %d s in all\n' $((SECONDS - begin))
summary
