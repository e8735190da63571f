# Finds OpenBLAS with its C interface and defines the target OpenBLAS::OpenBLAS. pkg-config first;
# a machine without the .pc file is searched for the header and the library.
pkg_check_modules(OPENBLAS QUIET IMPORTED_TARGET GLOBAL openblas)
add_library(fb_openblas INTERFACE)
add_library(OpenBLAS::OpenBLAS ALIAS fb_openblas)
if(OPENBLAS_FOUND)
    target_link_libraries(fb_openblas INTERFACE PkgConfig::OPENBLAS)
else()
    find_path(OPENBLAS_INCLUDE cblas.h PATH_SUFFIXES openblas openblas-pthread
        x86_64-linux-gnu/openblas-pthread aarch64-linux-gnu/openblas-pthread REQUIRED)
    find_library(OPENBLAS_LIBRARY NAMES openblas REQUIRED)
    target_include_directories(fb_openblas SYSTEM INTERFACE ${OPENBLAS_INCLUDE})
    target_link_libraries(fb_openblas INTERFACE ${OPENBLAS_LIBRARY})
endif()
