# The CUDA kernels of src/torch/cuda. Wherever there is nvcc they are compiled, which proves that they can be; they go
# into libweft_torch where libtorch is one for CUDA (cmake/torch.cmake), and into the tests for GPUs (tests/gpu).
set(WEFT_HAS_CUDA OFF)
if(WEFT_CUDA) # AUTO is true, too
  find_program(WEFT_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
  if(WEFT_NVCC OR CMAKE_CUDA_COMPILER OR DEFINED ENV{CUDACXX})
    if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
      set(CMAKE_CUDA_COMPILER ${WEFT_NVCC})
    endif()
    if(CCACHE_PROGRAM AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
      set(CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_CXX_COMPILER_LAUNCHER})
    endif()
    set(CMAKE_CUDA_ARCHITECTURES OFF) # each target has its own
    # Here, before libtorch's package does it where its variables get lost.
    enable_language(CUDA)
    find_package(CUDAToolkit REQUIRED)
    set(WEFT_HAS_CUDA ON)
  elseif(NOT WEFT_CUDA STREQUAL AUTO)
    message(FATAL_ERROR "WEFT_CUDA is ${WEFT_CUDA}, but there is no nvcc; install a CUDA toolkit, or set "
                        "CMAKE_CUDA_COMPILER to its nvcc")
  endif()
endif()
if(NOT WEFT_HAS_CUDA)
  return()
endif()

file(GLOB cuda_sources CONFIGURE_DEPENDS src/torch/cuda/*.cu)
add_library(weft_cuda OBJECT ${cuda_sources})
target_include_directories(weft_cuda PRIVATE src)
target_compile_options(weft_cuda PRIVATE -Xcompiler=-Wall,-Wextra,-Wno-unknown-pragmas)
set_target_properties(weft_cuda PROPERTIES CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_EXTENSIONS OFF
                                           CUDA_VISIBILITY_PRESET hidden)

# Of the architectures from 7.0 (V100) to 9.0 (H100) those that this nvcc knows (CUDA 13 knows none before 7.5), and
# PTX of the last one, which drivers compile for what comes later. AUTO: where `used` is false, one of them will do.
function(weft_set_cuda_architectures used)
  set(architectures ${WEFT_CUDA_ARCHITECTURES})
  if(architectures MATCHES "^(AUTO|all)$")
    execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --list-gpu-arch OUTPUT_VARIABLE known COMMAND_ERROR_IS_FATAL ANY)
    set(architectures "")
    foreach(architecture 70 75 80 86 89 90)
      if(known MATCHES "compute_${architecture}[^0-9]")
        list(APPEND architectures ${architecture}-real)
        set(last ${architecture})
      endif()
    endforeach()
    list(APPEND architectures ${last}-virtual)
    if(WEFT_CUDA_ARCHITECTURES STREQUAL AUTO AND NOT used)
      set(architectures ${last}-real)
    endif()
  endif()
  message(STATUS "CUDA ${CMAKE_CUDA_COMPILER_VERSION}: kernels for ${architectures}")
  set_target_properties(weft_cuda PROPERTIES CUDA_ARCHITECTURES "${architectures}")
endfunction()
