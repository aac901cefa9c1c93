# Compiler flags that every target of weft shares.
add_library(weft_options INTERFACE)
target_compile_options(weft_options INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wno-missing-field-initializers)
if(WEFT_SANITIZE)
  # Of what `undefined` watches, the addresses double GCC's time; `address` sees most of what comes of bad ones.
  target_compile_options(weft_options INTERFACE -fsanitize=${WEFT_SANITIZE} -fno-sanitize-recover=all
                                                $<$<CXX_COMPILER_ID:GNU>:-fno-sanitize=null,alignment,object-size>
                                                -fno-omit-frame-pointer)
  target_link_options(weft_options INTERFACE -fsanitize=${WEFT_SANITIZE})
  # Instrumented SIMD code takes minutes to compile: of x86's targets the first and the last, which the others lie between.
  target_compile_definitions(weft_options INTERFACE HWY_DISABLED_TARGETS=\(HWY_SSSE3|HWY_SSE4|HWY_AVX2\))
endif()

# Without the directory in its hash, ccache serves all build directories of one kind from the same results.
find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_NOHASHDIR=1 ${CCACHE_PROGRAM})
endif()
