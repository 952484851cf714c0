# SPDX-FileCopyrightText: The bi authors
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

include(CMakePackageConfigHelpers)

# Headers only, so the files suit every architecture. Until 1.0 a minor release may change the API.
set(package_dir ${CMAKE_INSTALL_DATADIR}/cmake/bi)
install(TARGETS bi EXPORT bi-targets FILE_SET HEADERS)
install(EXPORT bi-targets NAMESPACE bi:: DESTINATION ${package_dir})
write_basic_package_version_file(bi-config-version.cmake COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES cmake/bi-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/bi-config-version.cmake DESTINATION ${package_dir})

# bi.pc finds its headers from where it lies, so an installed tree can be moved.
file(RELATIVE_PATH bi_pc_prefix ${CMAKE_INSTALL_FULL_DATADIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
file(RELATIVE_PATH bi_pc_include ${CMAKE_INSTALL_PREFIX} ${CMAKE_INSTALL_FULL_INCLUDEDIR})
configure_file(cmake/bi.pc.in bi.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/bi.pc DESTINATION ${CMAKE_INSTALL_DATADIR}/pkgconfig)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
