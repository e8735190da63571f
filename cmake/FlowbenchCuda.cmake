# The CUDA backend: FLOWBENCH_CUDA=AUTO builds it where nvcc is found, ON insists, OFF leaves it out.
# The runtime is linked statically and finds the driver when the program runs, so one binary serves
# machines with and without a GPU.
#
# nvcc is called directly: as a CMake language it would get the C compiler's warnings and sanitizers,
# and take over the linking of the program.
if(POLICY CMP0116)
    cmake_policy(SET CMP0116 NEW) # dependency files of custom commands name absolute paths
endif()
set(FLOWBENCH_CUDA AUTO CACHE STRING "Build the CUDA backend: AUTO, ON, OFF")
option(FLOWBENCH_CUDA_EMULATED "Build the CUDA backend for the tests' emulated device" OFF)
set(FB_CUDA FALSE)

# fb_room_cuda_sources(<room> SOURCES a.cu ... [INCLUDE dir...]): compiled into the room, by the
# fb_add_cuda_object of nvcc or of the emulator.
function(fb_room_cuda_sources room)
    cmake_parse_arguments(CU "" "" "SOURCES;INCLUDE" ${ARGN})
    set(include)
    foreach(folder kernels kernels/base kernels/cuda ${CU_INCLUDE})
        list(APPEND include -I${PROJECT_SOURCE_DIR}/${folder})
    endforeach()
    foreach(source ${CU_SOURCES})
        get_filename_component(name ${source} NAME)
        set(object ${CMAKE_CURRENT_BINARY_DIR}/${name}.o)
        fb_add_cuda_object(${object} ${CMAKE_CURRENT_SOURCE_DIR}/${source} ${include})
        set_source_files_properties(${object} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
        target_sources(${room} PRIVATE ${object})
        set_property(GLOBAL APPEND PROPERTY FB_CUDA_OBJECTS ${object})
    endforeach()
endfunction()

if(FLOWBENCH_CUDA_EMULATED)
    include(${PROJECT_SOURCE_DIR}/tests/emulator/emulator.cmake)
    return()
endif()
if(NOT FLOWBENCH_CUDA STREQUAL "OFF")
    find_program(FLOWBENCH_NVCC nvcc HINTS $ENV{CUDA_HOME}/bin $ENV{CUDA_PATH}/bin
        /usr/local/cuda/bin)
    if(FLOWBENCH_NVCC)
        get_filename_component(cuda_root ${FLOWBENCH_NVCC} REALPATH)
        get_filename_component(cuda_root ${cuda_root} DIRECTORY)
        get_filename_component(cuda_root ${cuda_root} DIRECTORY)
        find_path(FB_CUDA_INCLUDE cuda_runtime_api.h HINTS ${cuda_root}/include
            ${cuda_root}/targets/x86_64-linux/include)
        find_library(FB_CUDART cudart_static HINTS ${cuda_root}/lib64
            ${cuda_root}/targets/x86_64-linux/lib)
    endif()
    # Host sanitizers see nothing of device code, and cross-compiled kernels have no device.
    if(FLOWBENCH_NVCC AND FB_CUDA_INCLUDE AND FB_CUDART
            AND NOT (FLOWBENCH_CUDA STREQUAL "AUTO"
                AND (CMAKE_CROSSCOMPILING OR FLOWBENCH_SANITIZE OR FLOWBENCH_FUZZ)))
        set(FB_CUDA TRUE)
    elseif(NOT FLOWBENCH_CUDA STREQUAL "AUTO")
        message(FATAL_ERROR "FLOWBENCH_CUDA=ON needs nvcc, cuda_runtime_api.h and "
            "libcudart_static.a (CUDA 12 or later); set CUDA_HOME, or use AUTO or OFF")
    endif()
endif()

# PTX for sm_80 serves every later GPU; Hopper gets machine code of its own.
set(FB_NVCC_FLAGS -std=c++17 -O3 -gencode=arch=compute_80,code=compute_80
    -gencode=arch=compute_90a,code=sm_90a --expt-relaxed-constexpr -fmad=true -prec-div=true
    -Xcompiler=-fPIC,-Wall,-Wextra,-Wshadow,-fno-exceptions,-fno-threadsafe-statics)
if(FLOWBENCH_WERROR)
    list(APPEND FB_NVCC_FLAGS -Werror=all-warnings -Xcompiler=-Werror)
endif()

# fb_add_cuda_object(<object> <source> <include flag>...): the object of a .cu, by nvcc.
function(fb_add_cuda_object object source)
    get_filename_component(name ${object} NAME)
    # Names in the dependency file count from the build folder: paths that are relative to another
    # one would name files that do not exist, and every build would compile everything.
    add_custom_command(OUTPUT ${object}
        COMMAND ${CMAKE_C_COMPILER_LAUNCHER} ${FLOWBENCH_NVCC} ${FB_NVCC_FLAGS} ${ARGN}
            -MD -MF ${object}.d -c ${source} -o ${object}
        DEPENDS ${source}
        DEPFILE ${object}.d
        COMMENT "Building CUDA object ${name}" VERBATIM)
endfunction()
