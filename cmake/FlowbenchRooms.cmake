# Helpers for the house: rooms, sources compiled once per instruction set, tests.

set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

# Numbers must not depend on whether the compiler fuses a multiply and an add: kernels ask for the
# fused form where they want it.
add_compile_options(-ffp-contract=off -fno-math-errno)
add_compile_options(-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wstrict-prototypes
    -Wmissing-prototypes -Wvla -Wdouble-promotion)
add_compile_definitions(_POSIX_C_SOURCE=200809L _DEFAULT_SOURCE)
if(FLOWBENCH_WERROR)
    add_compile_options(-Werror)
endif()
if(FLOWBENCH_FUZZ)
    if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
        message(FATAL_ERROR "FLOWBENCH_FUZZ needs clang, which brings libFuzzer: CC=clang")
    endif()
    if(NOT FLOWBENCH_SANITIZE)
        set(FLOWBENCH_SANITIZE address,undefined)
    endif()
    add_compile_options(-fsanitize=fuzzer-no-link)
endif()
if(FLOWBENCH_SANITIZE)
    add_compile_options(-fsanitize=${FLOWBENCH_SANITIZE} -fno-sanitize-recover=all
        -fno-omit-frame-pointer)
    add_link_options(-fsanitize=${FLOWBENCH_SANITIZE})
endif()

# The layout of a program in memory makes it faster or slower by percents: `compare --ab-git --layout`
# links the same objects in another order to see by how much.
set(FLOWBENCH_LINK_SEED "" CACHE STRING "A number that objects are linked in another order by")

# fb_shuffle(<list variable>): another order, the same one for the same seed.
function(fb_shuffle list)
    if(FLOWBENCH_LINK_SEED STREQUAL "")
        return()
    endif()
    set(keyed "")
    foreach(item ${${list}})
        string(MD5 key "${FLOWBENCH_LINK_SEED} ${item}")
        list(APPEND keyed "${key} ${item}")
    endforeach()
    list(SORT keyed)
    list(TRANSFORM keyed REPLACE "^[^ ]* " "")
    set(${list} ${keyed} PARENT_SCOPE)
endfunction()

# fb_add_room(<target> SOURCES a.c b.c [LINK lib...] [INCLUDE dir...])
# A static library whose folder (and INCLUDE) is visible to those that link it, and to no other.
function(fb_add_room target)
    cmake_parse_arguments(ROOM "" "" "SOURCES;LINK;INCLUDE" ${ARGN})
    fb_shuffle(ROOM_SOURCES)
    add_library(${target} STATIC ${ROOM_SOURCES})
    target_include_directories(${target} PUBLIC ${CMAKE_CURRENT_SOURCE_DIR} ${ROOM_INCLUDE})
    target_link_libraries(${target} PUBLIC ${ROOM_LINK})
endfunction()

# The instruction sets that the target machine's compiler can produce. Which of them the processor
# at hand has is decided at run time.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
    set(FB_ISAS scalar avx2 avx512)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
    set(FB_ISAS scalar neon)
else()
    set(FB_ISAS scalar)
endif()
if(FLOWBENCH_ISAS)
    set(FB_ISAS ${FLOWBENCH_ISAS})
endif()
# The scalar build is what it says: the compiler may not turn its loops into vectors.
set(FB_ISA_FLAGS_scalar -fno-tree-vectorize -fno-tree-slp-vectorize)
set(FB_ISA_FLAGS_avx2 -mavx2 -mfma -mf16c)
set(FB_ISA_FLAGS_avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c)
if(CMAKE_C_COMPILER_ID STREQUAL "GNU" AND FB_ISAS MATCHES avx512)
    list(APPEND FB_ISA_FLAGS_avx512 -mprefer-vector-width=512)
endif()
set(FB_ISA_FLAGS_neon "")
foreach(isa ${FB_ISAS})
    string(TOUPPER ${isa} upper)
    add_compile_definitions(FB_BUILT_${upper}=1)
endforeach()

# fb_room_isa_sources(<room> SOURCES a.c b.c [INCLUDE dir...]): adds each source once per instruction
# set, compiled with FB_SIMD_<ISA>=1; simd.h turns that into the vector type and the name suffix.
function(fb_room_isa_sources room)
    cmake_parse_arguments(ISA "" "" "SOURCES;INCLUDE" ${ARGN})
    fb_shuffle(ISA_SOURCES)
    foreach(isa ${FB_ISAS})
        string(TOUPPER ${isa} upper)
        add_library(${room}_${isa} OBJECT ${ISA_SOURCES})
        target_compile_options(${room}_${isa} PRIVATE ${FB_ISA_FLAGS_${isa}})
        target_compile_definitions(${room}_${isa} PRIVATE FB_SIMD_${upper}=1)
        target_include_directories(${room}_${isa} PRIVATE
            ${CMAKE_CURRENT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/kernels
            ${PROJECT_SOURCE_DIR}/kernels/base ${PROJECT_SOURCE_DIR}/kernels/cpu ${ISA_INCLUDE})
        target_sources(${room} PRIVATE $<TARGET_OBJECTS:${room}_${isa}>)
    endforeach()
endfunction()

# fb_add_unit_test(<name> LINK room... [LABELS l...] [ARGS a...] [TIMEOUT s]): tests/unit/<name>.c
# with cmocka.
function(fb_add_unit_test name)
    if(NOT FLOWBENCH_TESTS)
        return()
    endif()
    cmake_parse_arguments(TEST "" "TIMEOUT" "LINK;LABELS;ARGS;SOURCES" ${ARGN})
    if(NOT TARGET PkgConfig::CMOCKA)
        pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET GLOBAL cmocka)
    endif()
    add_executable(${name} ${PROJECT_SOURCE_DIR}/tests/unit/${name}.c ${TEST_SOURCES})
    target_link_libraries(${name} PRIVATE ${TEST_LINK} PkgConfig::CMOCKA)
    add_test(NAME ${name} COMMAND ${name} ${TEST_ARGS} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
    if(NOT TEST_TIMEOUT)
        set(TEST_TIMEOUT 300)
    endif()
    if(NOT TEST_LABELS)
        set(TEST_LABELS unit)
    endif()
    set_tests_properties(${name} PROPERTIES LABELS "${TEST_LABELS}" TIMEOUT ${TEST_TIMEOUT})
endfunction()
