# What is installed serves an outside project; what the README shows runs. Sanitized builds are of no use outside.
if(WEFT_BUILD_TOOLS AND NOT WEFT_SANITIZE)
  find_program(BASH bash REQUIRED)
  foreach(linkage static shared)
    add_test(NAME Install.${linkage} COMMAND ${BASH} ${CMAKE_CURRENT_SOURCE_DIR}/install/check.sh ${linkage}
             ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR} ${PROJECT_BINARY_DIR}/install-${linkage} ${CMAKE_CXX_COMPILER})
  endforeach()
  set_tests_properties(Install.static Install.shared PROPERTIES TIMEOUT 1500 PROCESSORS 2)
  set_tests_properties(Install.static PROPERTIES FIXTURES_SETUP readme_program)

  set(readme_model ${PROJECT_SOURCE_DIR}/models/vrwkv_cifar10.safetensors)
  add_test(NAME Readme.program COMMAND ${PROJECT_BINARY_DIR}/install-static/outside/readme
           ${readme_model} ${PROJECT_SOURCE_DIR}/demo/pictures/ship.png)
  set_tests_properties(Readme.program PROPERTIES FIXTURES_REQUIRED readme_program)
  add_test(NAME Readme.commands COMMAND ${BASH} ${CMAKE_CURRENT_SOURCE_DIR}/readme/run.sh
           ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR}/bin ${PROJECT_BINARY_DIR}/readme)
endif()
