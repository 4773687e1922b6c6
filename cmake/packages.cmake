# Debian packages, one a component of install.cmake: libtfinfer0, libtfinfer-dev, tfinfer. From a build for the prefix /usr
# (cmake --preset debian), `cpack` makes them.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME tfinfer)
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL library development program)
set(CPACK_PACKAGE_DIRECTORY ${PROJECT_BINARY_DIR}/packages)
if(NOT CPACK_PACKAGE_CONTACT)
    set(CPACK_PACKAGE_CONTACT "libtfinfer maintainers <maintainers@tfinfer.example>")
endif()
# What Debian wants compressed is, and the static library has no debug symbols: after everything is in place, before it is packed.
set(CPACK_PRE_BUILD_SCRIPTS ${PROJECT_SOURCE_DIR}/cmake/packages_finish.cmake)

set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "") # each package has its own

set(about "Runs BERT-, GPT-2- and T5-like models straight from the directory of a Hugging
Face checkpoint, on the CPU or a GPU: no Python, no conversion.")
set(so_package libtfinfer${PROJECT_VERSION_MAJOR})
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_RELEASE 1)
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${PROJECT_BINARY_DIR}/src) # the program's libtfinfer.so
set(debian_version "${PROJECT_VERSION}-${CPACK_DEBIAN_PACKAGE_RELEASE}")

set(CPACK_DEBIAN_LIBRARY_PACKAGE_NAME ${so_package})
set(CPACK_DEBIAN_LIBRARY_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_LIBRARY_PACKAGE_SHLIBDEPS ON)
set(CPACK_COMPONENT_LIBRARY_DESCRIPTION "transformer inference from Hugging Face checkpoints
${about}

This package has the shared library.")

if(TFINFER_WITH_MECAB)
    set(mecab_dev ", libmecab-dev")
endif()
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libtfinfer-dev)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
# pkg-config reads the files of Requires.private even for the shared library; what else the static ones are linked with is recommended.
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS "${so_package} (= ${debian_version}), libjansson-dev, libpcre2-dev, libutf8proc-dev")
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_RECOMMENDS "libdnnl-dev, ocl-icd-opencl-dev${mecab_dev}")
set(CPACK_COMPONENT_DEVELOPMENT_DESCRIPTION "transformer inference, development files
${about}

This package has the headers for C and C++, the static libraries, and what
pkg-config and CMake read.")

set(CPACK_DEBIAN_PROGRAM_PACKAGE_NAME tfinfer)
set(CPACK_DEBIAN_PROGRAM_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PROGRAM_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PROGRAM_PACKAGE_DEPENDS "${so_package} (= ${debian_version})")
set(CPACK_COMPONENT_PROGRAM_DESCRIPTION "run transformer models from the command line
${about}

This package has the tfinfer program: embeddings, search by meaning,
classification, named entities, answers, generation.")

# Debian's files of a package.
set(debian_dir ${PROJECT_BINARY_DIR}/debian)
file(STRINGS ${PROJECT_SOURCE_DIR}/tests/abi/symbols.txt names)
set(symbols "libtfinfer.so.${PROJECT_VERSION_MAJOR} ${so_package} #MINVER#\n TFINFER_0@TFINFER_0 0.1.0\n")
foreach(name ${names})
    string(APPEND symbols " ${name}@TFINFER_0 0.1.0\n")
endforeach()
file(CONFIGURE OUTPUT ${debian_dir}/symbols CONTENT "${symbols}" @ONLY)
file(CONFIGURE OUTPUT ${debian_dir}/shlibs CONTENT
     "libtfinfer ${PROJECT_VERSION_MAJOR} ${so_package} (>= ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})\n" @ONLY)
file(CONFIGURE OUTPUT ${debian_dir}/triggers CONTENT "activate-noawait ldconfig\n" @ONLY)
set(CPACK_DEBIAN_LIBRARY_PACKAGE_CONTROL_EXTRA ${debian_dir}/symbols ${debian_dir}/shlibs ${debian_dir}/triggers)

configure_file(cmake/debian/copyright.in ${debian_dir}/copyright @ONLY)
configure_file(cmake/debian/changelog.in ${debian_dir}/changelog.Debian @ONLY)
# Of packages alone: an installation to a prefix has no use for them.
foreach(pair library:${so_package} development:libtfinfer-dev program:tfinfer)
    string(REPLACE ":" ";" pair ${pair})
    list(GET pair 0 component)
    list(GET pair 1 package)
    install(FILES ${debian_dir}/copyright ${debian_dir}/changelog.Debian DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/${package}
            COMPONENT ${component} EXCLUDE_FROM_ALL)
    install(FILES CHANGELOG.md DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/${package} RENAME changelog COMPONENT ${component}
            EXCLUDE_FROM_ALL)
endforeach()
include(CPack)
