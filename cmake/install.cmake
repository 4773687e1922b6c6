# What `cmake --install` puts where: headers, the libraries, the tfinfer program, and what find_package(tfinfer) and pkg-config
# read. The static libraries, the whole one and the tokenizers' alone, have files of targets of their own, so that a program that
# wants the shared one needs no package of the libraries inside.
include(CMakePackageConfigHelpers)

install(DIRECTORY include/tfinfer DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h" PATTERN "*.hpp")
install(TARGETS tfinfer_shared EXPORT tfinfer-targets INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(TARGETS tfinfer_static EXPORT tfinfer-static-targets INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(TARGETS tfinfer_tokenizer EXPORT tfinfer-tokenizer-targets INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
set_target_properties(tfinfer_cli PROPERTIES INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}")

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/tfinfer)
install(EXPORT tfinfer-targets NAMESPACE tfinfer:: DESTINATION ${package_dir})
install(EXPORT tfinfer-static-targets NAMESPACE tfinfer:: DESTINATION ${package_dir})
install(EXPORT tfinfer-tokenizer-targets NAMESPACE tfinfer:: DESTINATION ${package_dir})
configure_package_config_file(cmake/tfinfer-config.cmake.in ${PROJECT_BINARY_DIR}/tfinfer-config.cmake
                              INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/tfinfer-config-version.cmake COMPATIBILITY SameMajorVersion)
install(FILES ${PROJECT_BINARY_DIR}/tfinfer-config.cmake ${PROJECT_BINARY_DIR}/tfinfer-config-version.cmake
        DESTINATION ${package_dir})

# Paths are relative to where the file lies, so that an installed tree can be moved.
file(RELATIVE_PATH pc_prefix /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
if(TFINFER_WITH_CUDA)
    set(pc_cuda " ${tfi_cuda_runtime} -l${CMAKE_DL_LIBS} -lrt") # the runtime of the build's machine
endif()
if(TFINFER_WITH_MECAB)
    set(pc_mecab " -lmecab")
endif()
configure_file(cmake/tfinfer.pc.in ${PROJECT_BINARY_DIR}/tfinfer.pc @ONLY)
configure_file(cmake/tfinfer-tokenizer.pc.in ${PROJECT_BINARY_DIR}/tfinfer-tokenizer.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/tfinfer.pc ${PROJECT_BINARY_DIR}/tfinfer-tokenizer.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
