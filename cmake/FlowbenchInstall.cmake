# What `cmake --install` leaves, and the library that other programs link.
#
#   lib/libflowbench.a (.so with -DBUILD_SHARED_LIBS=ON)   the kernels and the registry
#   include/flowbench/{attention,status,registry,cpu_features}.h
#   lib/pkgconfig/flowbench.pc
#   bin/flowbench  share/flowbench/{suites,plots,external} the benchmark program and its data

set(FB_LIBRARY_ROOMS fb_base fb_cpu fb_cuda fb_flow fb_baselines)
set(FB_PUBLIC_HEADERS kernels/attention.h kernels/base/status.h kernels/base/cpu_features.h
    baselines/registry.h)

# A room's archive holds its own objects and those of its per-instruction-set libraries; the
# installed library holds all of them at once. TARGET_OBJECTS of a room names only the former.
set(fb_library_objects "")
foreach(room ${FB_LIBRARY_ROOMS})
    get_target_property(room_type ${room} TYPE)
    if(NOT room_type STREQUAL "INTERFACE_LIBRARY")
        list(APPEND fb_library_objects $<TARGET_OBJECTS:${room}>)
    endif()
    foreach(isa ${FB_ISAS})
        if(TARGET ${room}_${isa})
            list(APPEND fb_library_objects $<TARGET_OBJECTS:${room}_${isa}>)
        endif()
    endforeach()
endforeach()
get_property(fb_cuda_objects GLOBAL PROPERTY FB_CUDA_OBJECTS)
set_source_files_properties(${fb_cuda_objects} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
add_library(flowbench_library ${fb_library_objects} ${fb_cuda_objects})
set_target_properties(flowbench_library PROPERTIES OUTPUT_NAME flowbench LINKER_LANGUAGE C
    VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
target_link_libraries(flowbench_library PUBLIC OpenMP::OpenMP_C m)
if(FLOWBENCH_OPENBLAS)
    target_link_libraries(flowbench_library PUBLIC OpenBLAS::OpenBLAS)
endif()
if(FB_CUDA)
    target_link_libraries(flowbench_library PUBLIC ${FB_CUDART} ${CMAKE_DL_LIBS} rt)
endif()

# Inside the tree the headers are found as they are once installed: <flowbench/attention.h>.
foreach(header ${FB_PUBLIC_HEADERS})
    get_filename_component(name ${header} NAME)
    configure_file(${header} ${PROJECT_BINARY_DIR}/include/flowbench/${name} COPYONLY)
endforeach()
target_include_directories(flowbench_library INTERFACE ${PROJECT_BINARY_DIR}/include)

# ---- pkg-config ---------------------------------------------------------------------------------
# OpenMP is named by its library, not by the compiler's flag: a consumer may use another compiler.
set(fb_pc_libs "")
foreach(name ${OpenMP_C_LIB_NAMES})
    if(name MATCHES "^(gomp|pthread)$")
        string(APPEND fb_pc_libs " -l${name}")
    else()
        string(APPEND fb_pc_libs " ${OpenMP_${name}_LIBRARY}")
    endif()
endforeach()
set(fb_pc_requires "")
if(FLOWBENCH_OPENBLAS)
    if(OPENBLAS_FOUND)
        set(fb_pc_requires openblas)
    else()
        string(APPEND fb_pc_libs " ${OPENBLAS_LIBRARY}")
    endif()
endif()
if(FB_CUDA)
    string(APPEND fb_pc_libs " ${FB_CUDART} -ldl -lrt -lpthread")
endif()
# Who links the archive needs what it uses; who links the shared library does not.
string(APPEND fb_pc_libs " -lm")
if(BUILD_SHARED_LIBS)
    set(fb_pc_link "Requires.private: ${fb_pc_requires}
Libs: -L\${libdir} -lflowbench
Libs.private:${fb_pc_libs}")
else()
    set(fb_pc_link "Requires: ${fb_pc_requires}
Libs: -L\${libdir} -lflowbench${fb_pc_libs}")
endif()
# A prefix relative to the .pc file, so that a tree installed with --prefix or moved stays usable.
file(RELATIVE_PATH fb_pc_up "/p/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/p")
string(REGEX REPLACE "/$" "" fb_pc_up "${fb_pc_up}")
configure_file(cmake/flowbench.pc.in ${PROJECT_BINARY_DIR}/flowbench.pc @ONLY)

# ---- install ------------------------------------------------------------------------------------
install(TARGETS flowbench_library
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES ${FB_PUBLIC_HEADERS} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/flowbench)
install(FILES ${PROJECT_BINARY_DIR}/flowbench.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(FILES LICENSE README.md CHANGELOG.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
if(FLOWBENCH_HARNESS)
    install(TARGETS flowbench RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
    install(DIRECTORY suites plots DESTINATION ${CMAKE_INSTALL_DATADIR}/flowbench
        FILES_MATCHING PATTERN "*.yaml" PATTERN "*.gp" PATTERN "gallery" EXCLUDE)
    install(DIRECTORY baselines/external DESTINATION ${CMAKE_INSTALL_DATADIR}/flowbench
        FILES_MATCHING PATTERN "*.py" PATTERN "__pycache__" EXCLUDE)
endif()
