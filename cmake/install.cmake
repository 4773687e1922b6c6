# What `cmake --install` puts where: headers, the libraries, the tfinfer program, manual pages, and what find_package(tfinfer) and
# pkg-config read. The static libraries, the whole one and the tokenizers' alone, have files of targets of their own, so that a program
# that wants the shared one needs no package of the libraries inside. Components are packages: library (libtfinfer0), development
# (libtfinfer-dev), program (tfinfer).
include(CMakePackageConfigHelpers)

install(DIRECTORY include/tfinfer DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT development
        FILES_MATCHING PATTERN "*.h" PATTERN "*.hpp")
install(TARGETS tfinfer_shared EXPORT tfinfer-targets INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        LIBRARY COMPONENT library NAMELINK_COMPONENT development)
install(TARGETS tfinfer_static EXPORT tfinfer-static-targets INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        ARCHIVE COMPONENT development)
install(TARGETS tfinfer_tokenizer EXPORT tfinfer-tokenizer-targets INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        ARCHIVE COMPONENT development)
install(TARGETS tfinfer_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT program)
if(NOT CMAKE_INSTALL_PREFIX STREQUAL "/usr") # a system library is found where all are
    set_target_properties(tfinfer_cli PROPERTIES INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}")
endif()

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/tfinfer)
install(EXPORT tfinfer-targets NAMESPACE tfinfer:: DESTINATION ${package_dir} COMPONENT development)
install(EXPORT tfinfer-static-targets NAMESPACE tfinfer:: DESTINATION ${package_dir} COMPONENT development)
install(EXPORT tfinfer-tokenizer-targets NAMESPACE tfinfer:: DESTINATION ${package_dir} COMPONENT development)
configure_package_config_file(cmake/tfinfer-config.cmake.in ${PROJECT_BINARY_DIR}/tfinfer-config.cmake
                              INSTALL_DESTINATION ${package_dir})
# As docs/abi.md promises: until 1.0.0 another minor version may be another interface.
set(compatible SameMajorVersion)
if(PROJECT_VERSION_MAJOR EQUAL 0)
    set(compatible SameMinorVersion)
endif()
write_basic_package_version_file(${PROJECT_BINARY_DIR}/tfinfer-config-version.cmake COMPATIBILITY ${compatible})
install(FILES ${PROJECT_BINARY_DIR}/tfinfer-config.cmake ${PROJECT_BINARY_DIR}/tfinfer-config-version.cmake
        DESTINATION ${package_dir} COMPONENT development)

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
install(FILES ${PROJECT_BINARY_DIR}/tfinfer.pc ${PROJECT_BINARY_DIR}/tfinfer-tokenizer.pc
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT development)

configure_file(docs/man/tfinfer.1.in ${PROJECT_BINARY_DIR}/man/tfinfer.1 @ONLY)
configure_file(docs/man/tfinfer.3.in ${PROJECT_BINARY_DIR}/man/tfinfer.3 @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/man/tfinfer.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 COMPONENT program)
install(FILES ${PROJECT_BINARY_DIR}/man/tfinfer.3 DESTINATION ${CMAKE_INSTALL_MANDIR}/man3 COMPONENT development)
