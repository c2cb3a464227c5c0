#!/bin/sh
# Runs what `cargo xtask gpu` packed, on a machine with a GPU and its driver. MNEMIC_PYTHON names a Python with PyTorch
# (default: python3), which `bench` needs.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${MNEMIC_PYTHON:-python3}

usage() {
    cat >&2 <<END
usage: run.sh tests [FILTER]       all tests that use the device; FILTER chooses among those of the kernels
       run.sh bench NAME [ARGS]    bench-kernels beside PyTorch; writes NAME.json and NAME.md; ARGS such as
                                   --filter gru,lstm --seconds 5 --compile-seconds 0 --device cuda:1
       run.sh train RECIPE [ARGS]  mnemic train --device cuda; likewise eval, ask, inspect, and bench-babi
       run.sh sanitize [FILTER]    the tests of the kernels under compute-sanitizer
END
    exit 2
}

# cuBLAS and cuRAND of PyTorch's wheels, where the system has none.
if ! ldconfig -p 2>/dev/null | grep -q libcublas.so; then
    wheels=$("$python" -c '
import glob, importlib.util, os
spec = importlib.util.find_spec("nvidia")
roots = spec.submodule_search_locations if spec else []
print(":".join(lib for root in roots for lib in sorted(glob.glob(os.path.join(root, "*", "lib")))))
' 2>/dev/null || true)
    if [ -n "$wheels" ]; then
        export LD_LIBRARY_PATH="$wheels${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    fi
fi
# The driver compiles some of candle's kernels at their first use, and keeps them here.
export CUDA_CACHE_PATH="${CUDA_CACHE_PATH:-$here/cache}"
export CANDLE_NUM_THREADS="${CANDLE_NUM_THREADS:-1}"
MNEMIC_COMMIT=$(sed -n 's/^commit=\([^ ]*\).*/\1/p' "$here/about")
export MNEMIC_COMMIT

# Without a device the tests pass, and say that they were skipped: here that is a failure.
tests() {
    log=$(mktemp)
    "$here/bin/workspace-tests" --nocapture >"$log" 2>&1 || failed=1
    cat "$log"
    if grep -q '^skipped:' "$log"; then
        echo "run.sh: no CUDA device, see above" >&2
        failed=1
    else
        "$here/bin/kernels-tests" "${@:-cuda}" || failed=1
    fi
    rm -f "$log"
}

bench() {
    name=$1
    shift
    case " $* " in *" --device"*) ;; *) set -- --device cuda "$@" ;; esac
    if "$python" -c 'import torch' 2>/dev/null; then
        set -- "$@" --peer "$python" "$here/peers/kernels.py"
    else
        echo "run.sh: $python has no PyTorch; only mnemic is measured" >&2
    fi
    while IFS= read -r fact; do set -- "$@" --about "$fact"; done <"$here/about"
    processor=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo 2>/dev/null | head -n 1)
    set -- "$@" --about "date=$(date -u +%F)" --about "machine=$(uname -sm), $(nproc) cores, ${processor:-unknown processor}"
    "$here/bin/bench-kernels" --threads "$(nproc)" "$@" >"$name.jsonl" || failed=1
    "$here/bin/bench-kernels" --report --json "$name.json" --markdown "$name.md" <"$name.jsonl" || failed=1
    rm -f "$name.jsonl"
}

mnemic() {
    case " $* " in *" --device"*) ;; *) set -- "$@" --device cuda ;; esac
    exec "$here/bin/mnemic" "$@"
}

[ $# -gt 0 ] || usage
verb=$1
shift
failed=0
case $verb in
    tests) tests "$@" ;;
    bench) [ $# -gt 0 ] || usage; bench "$@" ;;
    bench-babi) mnemic bench babi --recipes "$here/models" "$@" ;;
    train | eval | ask | inspect) mnemic "$verb" "$@" ;;
    sanitize) compute-sanitizer --error-exitcode 1 "$here/bin/kernels-tests" "${@:-cuda}" --test-threads 1 || failed=1 ;;
    *) usage ;;
esac
exit $failed
