# The component that runs and differentiates graphs by libtorch: a library of its own, loaded by the command when it is
# asked for (src/torch/engine.h). Without libtorch the loader is still there, and says what is missing.
set(WEFT_HAS_TORCH OFF)
if(WEFT_TORCH) # AUTO is true, too
  block(SCOPE_FOR VARIABLES PROPAGATE WEFT_HAS_TORCH torch_libraries) # libtorch's package sets many a variable
    if(WEFT_TORCH STREQUAL AUTO)
      find_package(Torch 1.13 QUIET)
    else()
      find_package(Torch 1.13 REQUIRED)
    endif()
    if(Torch_FOUND AND TORCH_CXX_FLAGS MATCHES "_GLIBCXX_USE_CXX11_ABI=0")
      message(STATUS "${TORCH_LIBRARY} is built for libstdc++'s old ABI; weft needs the build for the new one")
    elseif(Torch_FOUND)
      set(WEFT_HAS_TORCH ON)
      set(torch_libraries ${TORCH_LIBRARIES})
    endif()
  endblock()
  if(NOT WEFT_HAS_TORCH AND NOT WEFT_TORCH STREQUAL AUTO)
    message(FATAL_ERROR "WEFT_TORCH is ${WEFT_TORCH}, but there is no libtorch to build with")
  endif()
endif()

if(NOT WEFT_HAS_TORCH)
  message(STATUS "weft verify --engine torch will be missing: it needs libtorch-dev and libopenblas-dev")
  add_library(weft_torch_loader STATIC src/torch/without/load.cc)
  target_include_directories(weft_torch_loader PUBLIC include src)
  target_link_libraries(weft_torch_loader PRIVATE weft_options fmt::fmt)
  return()
endif()

add_library(weft_torch_loader STATIC src/torch/load.cc)
target_include_directories(weft_torch_loader PUBLIC include src)
target_compile_definitions(weft_torch_loader PRIVATE WEFT_VERSION="${PROJECT_VERSION}")
target_link_libraries(weft_torch_loader PRIVATE weft_options fmt::fmt ${CMAKE_DL_LIBS})
# Official builds carry oneDNN and BLAS libraries of their own under names that weft's have, too.
cmake_path(GET TORCH_LIBRARY PARENT_PATH torch_folder)
execute_process(COMMAND ${CMAKE_NM} --dynamic --defined-only ${torch_folder}/libtorch_cpu.so
                OUTPUT_VARIABLE torch_symbols ERROR_QUIET)
if(torch_symbols MATCHES " (dnnl|cblas)_")
  target_compile_definitions(weft_torch_loader PRIVATE WEFT_TORCH_IS_SELF_CONTAINED)
endif()

file(GLOB torch_sources CONFIGURE_DEPENDS src/torch/*.cc)
list(FILTER torch_sources EXCLUDE REGEX "_test\\.cc$|/load\\.cc$")
set(torch_definitions WEFT_VERSION="${PROJECT_VERSION}")
# The CUDA kernels, where there is nvcc as well as a libtorch for CUDA.
set(WEFT_HAS_TORCH_CUDA OFF)
if(TARGET torch_cuda)
  list(APPEND torch_definitions WEFT_TORCH_HAS_CUDA)
  if(WEFT_HAS_CUDA)
    set(WEFT_HAS_TORCH_CUDA ON)
  else()
    message(STATUS "${TORCH_LIBRARY} is for CUDA, but without nvcc weft's kernels for it will be missing")
  endif()
endif()
if(WEFT_HAS_TORCH_CUDA)
  set(torch_cuda_sources src/torch/cuda/ops.cc $<TARGET_OBJECTS:weft_cuda>)
  set(torch_cuda_libraries CUDA::cudart_static)
else()
  set(torch_cuda_sources src/torch/cuda/without/ops.cc)
  set(torch_cuda_libraries "")
endif()
# What the component needs of weft goes into it, but of that it shows nothing: the program has its own.
add_library(weft_torch MODULE ${torch_sources} ${torch_cuda_sources})
target_include_directories(weft_torch PRIVATE include)
# Not -I: libtorch's own headers are <torch/…>, too.
target_compile_options(weft_torch PRIVATE -iquote ${PROJECT_SOURCE_DIR}/src)
target_compile_definitions(weft_torch PRIVATE ${torch_definitions})
target_link_libraries(weft_torch PRIVATE weft_options weft_internal ${weft_dependencies} nlohmann_json::nlohmann_json
                                         ${torch_libraries} ${torch_cuda_libraries})
target_link_options(weft_torch PRIVATE -Wl,--exclude-libs,ALL -Wl,--as-needed)
if(NOT WEFT_SANITIZE) # whose names come with the program
  target_link_options(weft_torch PRIVATE -Wl,-z,defs) # a lowering that is missing is to fail here
endif()
target_precompile_headers(weft_torch PRIVATE <torch/torch.h>)
set_target_properties(weft_torch PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib
                                            INSTALL_RPATH_USE_LINK_PATH ON)
install(TARGETS weft_torch LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/weft)
