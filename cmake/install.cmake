# `cmake --install`: headers, library, command, default model, and what find_package(weft) and pkg-config read.
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/weft)

install(TARGETS weft EXPORT weft-targets)
install(EXPORT weft-targets NAMESPACE weft:: DESTINATION ${package_dir})
install(DIRECTORY include/weft TYPE INCLUDE)
install(DIRECTORY models DESTINATION ${CMAKE_INSTALL_DATADIR}/weft OPTIONAL)
if(WEFT_BUILD_TOOLS)
  install(DIRECTORY tools/peers DESTINATION ${CMAKE_INSTALL_DATADIR}/weft PATTERN node_modules EXCLUDE)
endif()
install(FILES LICENSE TYPE DOC)

configure_package_config_file(cmake/weft-config.cmake.in ${PROJECT_BINARY_DIR}/package/weft-config.cmake
                              INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/package/weft-config-version.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/package/weft-config.cmake ${PROJECT_BINARY_DIR}/package/weft-config-version.cmake
              cmake/FindoneDNN.cmake
        DESTINATION ${package_dir})

# A shared libweft brings what it links; whoever links the static one must link that too.
if(BUILD_SHARED_LIBS)
  set(weft_pc_requires "")
  set(weft_pc_libs "")
else()
  set(weft_pc_requires "fmt tbb libhwy minizip zlib vips gmodule-2.0 glib-2.0")
  set(weft_pc_libs "-ldnnl ${OpenMP_CXX_FLAGS}")
endif()
# Relative to where the file lies, so that `cmake --install --prefix` may choose another place.
file(RELATIVE_PATH weft_pc_prefix /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(cmake/weft.pc.in ${PROJECT_BINARY_DIR}/package/weft.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/package/weft.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
