#!/usr/bin/env bash
# Random structures through the C kernels under gcc's address and undefined-behaviour sanitisers: tests/asan.sh [structures]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r "$root/src/sparseflow" "$copy/"
rm -f "$copy"/sparseflow/sparse/*.so
include=$("$python" -c "import sysconfig; print(sysconfig.get_paths()['include'])")
suffix=$("$python" -c "import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX'))")
for module in linear conv norm; do
    gcc -O1 -g -fPIC -shared -fsanitize=address,undefined -fno-sanitize-recover=all -I"$include" \
        -o "$copy/sparseflow/sparse/_$module$suffix" "$copy/sparseflow/sparse/csrc/$module.c"
done
export OMP_NUM_THREADS=1 ASAN_OPTIONS=detect_leaks=0 PYTHONPATH="$copy:$root/tests"
preload="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)"
for kind in linear conv; do
    LD_PRELOAD=$preload "$python" "$root/tests/oracles/test_native_$kind.py" "${1:-10000}"
done
