# The emulated device (README.md): FLOWBENCH_CUDA_EMULATED=ON builds the CUDA backend for it. Every .cu is
# preprocessed by clang++, translated, and compiled for the host; in place of the runtime stands the
# emulator's. Included by cmake/FlowbenchCuda.cmake, which a build without the option reads as ever.
option(FLOWBENCH_EMULATOR_RACES
    "Emulated kernels tell the emulator of every load and store (slower; for FLOWBENCH_EMULATOR_RACE=1)" OFF)

if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
    message(FATAL_ERROR "FLOWBENCH_CUDA_EMULATED: the emulator runs on x86-64 alone")
endif()
if(FLOWBENCH_SANITIZE OR FLOWBENCH_FUZZ)
    message(FATAL_ERROR "FLOWBENCH_CUDA_EMULATED: the emulator switches stacks, which sanitizers do "
        "not follow; leave FLOWBENCH_SANITIZE and FLOWBENCH_FUZZ out")
endif()
if(NOT CMAKE_CXX_COMPILER)
    find_program(FLOWBENCH_CLANGXX NAMES clang++ clang++-14 clang++-15 clang++-16 clang++-17)
    if(NOT FLOWBENCH_CLANGXX)
        message(FATAL_ERROR "FLOWBENCH_CUDA_EMULATED needs clang++ 14 or later, and finds none: install "
            "clang, or name it by -D CMAKE_CXX_COMPILER=...")
    endif()
    set(CMAKE_CXX_COMPILER ${FLOWBENCH_CLANGXX})
endif()
enable_language(CXX)
if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang" OR CMAKE_CXX_COMPILER_VERSION VERSION_LESS 14)
    message(FATAL_ERROR "FLOWBENCH_CUDA_EMULATED needs clang++ 14 or later; ${CMAKE_CXX_COMPILER} is "
        "${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}")
endif()
find_package(Python3 REQUIRED COMPONENTS Interpreter)
find_path(FB_EMULATOR_INCLUDE cuda_runtime_api.h HINTS $ENV{CUDA_HOME}/include
    $ENV{CUDA_PATH}/include /usr/local/cuda/include
    /usr/local/cuda/targets/x86_64-linux/include)
if(NOT FB_EMULATOR_INCLUDE)
    message(FATAL_ERROR "FLOWBENCH_CUDA_EMULATED needs the headers of a CUDA toolkit 12 or later "
        "(cuda_runtime_api.h); set CUDA_HOME. No compiler and no library of it are used")
endif()
message(STATUS "CUDA backend: for the emulated device, by ${CMAKE_CXX_COMPILER}")

set(FB_CUDA TRUE)
set(FB_CUDA_INCLUDE ${FB_EMULATOR_INCLUDE})
set(FB_CUDART fb_emulator)

set(FB_EMULATOR_DIR ${PROJECT_SOURCE_DIR}/tests/emulator)
set(FB_EMULATOR_FLAGS -march=native -ffp-contract=fast -fno-math-errno)
add_library(fb_emulator STATIC
    ${FB_EMULATOR_DIR}/emulator_barriers.cpp ${FB_EMULATOR_DIR}/emulator_buffers.cpp
    ${FB_EMULATOR_DIR}/emulator_copies.cpp
    ${FB_EMULATOR_DIR}/emulator_fibers.cpp ${FB_EMULATOR_DIR}/emulator_launch.cpp
    ${FB_EMULATOR_DIR}/emulator_memory.cpp ${FB_EMULATOR_DIR}/emulator_numbers.cpp
    ${FB_EMULATOR_DIR}/emulator_products.cpp ${FB_EMULATOR_DIR}/emulator_races.cpp
    ${FB_EMULATOR_DIR}/emulator_runtime.cpp ${FB_EMULATOR_DIR}/emulator_warps.cpp)
set_target_properties(fb_emulator PROPERTIES CXX_STANDARD 20 CXX_STANDARD_REQUIRED ON
    CXX_EXTENSIONS OFF)
target_compile_options(fb_emulator PRIVATE -O3 ${FB_EMULATOR_FLAGS})
target_include_directories(fb_emulator SYSTEM PRIVATE ${FB_CUDA_INCLUDE})
target_link_libraries(fb_emulator PUBLIC ${CMAKE_DL_LIBS})

# Variables that have no value yet get one that shows. What nvcc says about these sources it says in its
# own build: hints to caches, say, use variables there that are not used here. Mixed enumerations are frowned
# upon by C++20 alone.
set(FB_EMULATOR_OPTIMISE -O2 CACHE STRING "How emulated kernels are optimised; -O0 to debug one")
set(FB_EMULATOR_CU_FLAGS -std=c++20 ${FB_EMULATOR_OPTIMISE} -gline-tables-only ${FB_EMULATOR_FLAGS}
    -ftrivial-auto-var-init=pattern -fPIC -Wall -Wextra -Wno-unknown-pragmas -Wno-unused
    -Wno-unused-parameter -Wno-deprecated-anon-enum-enum-conversion
    -Wno-deprecated-enum-enum-conversion)
if(FLOWBENCH_WERROR)
    list(APPEND FB_EMULATOR_CU_FLAGS -Werror)
endif()
if(FLOWBENCH_EMULATOR_RACES)
    list(APPEND FB_EMULATOR_CU_FLAGS -fsanitize=thread -mllvm -tsan-instrument-func-entry-exit=0)
endif()

# fb_add_cuda_object(<object> <source> <include flag>...): the object of a .cu, translated.
function(fb_add_cuda_object object source)
    get_filename_component(name ${object} NAME)
    add_custom_command(OUTPUT ${object}
        COMMAND ${CMAKE_CXX_COMPILER} -std=c++20 -E -x c++
            -include ${FB_EMULATOR_DIR}/emulator_device.h -D__CUDA_ARCH_FEAT_SM90_ALL ${ARGN}
            -isystem ${FB_CUDA_INCLUDE} -MD -MF ${object}.d -MT ${object}
            ${source} -o ${object}.cuda.ii
        COMMAND ${Python3_EXECUTABLE} ${FB_EMULATOR_DIR}/translate.py ${object}.cuda.ii ${object}.ii
        COMMAND ${CMAKE_CXX_COMPILER_LAUNCHER} ${CMAKE_CXX_COMPILER} ${FB_EMULATOR_CU_FLAGS}
            -c ${object}.ii -o ${object}
        DEPENDS ${source} ${FB_EMULATOR_DIR}/translate.py
        DEPFILE ${object}.d
        COMMENT "Building emulated CUDA object ${name}" VERBATIM)
endfunction()
