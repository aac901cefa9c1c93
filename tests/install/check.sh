#!/usr/bin/env bash
# Installs weft and builds and runs an outside project against it, by find_package and by pkg-config.
#   check.sh static|shared SOURCE_DIR BUILD_DIR WORK_DIR CXX
# The static library and the command come from BUILD_DIR as it is; the shared one is built for the purpose.
set -euo pipefail
linkage=$1 source=$2 build=$3 work=$4 cxx=$5

rm -rf "$work/prefix" "$work/outside"
mkdir -p "$work"
if [[ $linkage == shared ]]; then
  from=$work/build
  cmake -S "$source" -B "$from" -G Ninja -D CMAKE_CXX_COMPILER="$cxx" -D BUILD_SHARED_LIBS=ON \
    -D WEFT_BUILD_TESTS=OFF -D WEFT_BUILD_TOOLS=OFF -D CMAKE_BUILD_TYPE=RelWithDebInfo \
    -D CMAKE_CXX_FLAGS_RELWITHDEBINFO="$(sed -n 's/^CMAKE_CXX_FLAGS_RELWITHDEBINFO:[A-Z]*=//p' "$build/CMakeCache.txt")"
  cmake --build "$from" --target weft -j2
else
  from=$build
fi
cmake --install "$from" --prefix "$work/prefix" >"$work/install.log"
if [[ $linkage == static ]]; then "$work/prefix/bin/weft" --version; fi
if [[ -n $(find "$work/prefix" -name libweft_torch.so) ]]; then
  "$work/prefix/bin/weft" verify --engine torch "$source/tests/golden/vit-cls"
fi

options=()
if awk -v language=cpp -f "$source/tests/readme/blocks.awk" "$source/README.md" >"$work/readme.cc"; then
  options=(-D WEFT_README_SOURCE="$work/readme.cc")
fi
cmake -S "$source/tests/install" -B "$work/outside" -G Ninja -D CMAKE_CXX_COMPILER="$cxx" \
  -D CMAKE_PREFIX_PATH="$work/prefix" "${options[@]}"
cmake --build "$work/outside"
"$work/outside/outside"

PKG_CONFIG_PATH=$(dirname "$(find "$work/prefix" -name weft.pc)")
export PKG_CONFIG_PATH
read -ra flags < <(pkg-config --cflags --libs weft)
"$cxx" -std=c++20 "$source/tests/install/main.cc" -o "$work/by_pkg_config" "${flags[@]}"
LD_LIBRARY_PATH=$(pkg-config --variable=libdir weft) "$work/by_pkg_config"

if [[ $linkage == shared ]]; then
  nm --dynamic --demangle --defined-only --format=just-symbols "$(find "$work/prefix" -name libweft.so)" >"$work/symbols"
  awk -f "$source/tests/install/symbols.awk" "$work"/prefix/include/weft/*.h "$work/symbols"
  # The check itself: it must see an internal name.
  echo "weft::onednn::matmul(float const*)" >"$work/symbols"
  if awk -f "$source/tests/install/symbols.awk" "$work"/prefix/include/weft/*.h "$work/symbols" >"$work/seen"; then
    echo "symbols.awk overlooked $(cat "$work/symbols")" >&2
    exit 1
  fi
fi
