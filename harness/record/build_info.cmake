# Run at every build: writes OUT with the commit and the state of the source tree at SOURCE, and
# only touches it when they changed. Outside a git checkout both are unknown, which is not an error.
set(sha "")
set(dirty -1)
set(time "")
find_program(GIT git)
if(GIT)
    execute_process(COMMAND ${GIT} -C ${SOURCE} rev-parse --show-toplevel
        OUTPUT_VARIABLE top ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
    file(REAL_PATH ${SOURCE} source)
    if(top)
        file(REAL_PATH ${top} top)
    endif()
    # A tarball unpacked inside somebody else's checkout is not that checkout.
    if(top STREQUAL source)
        execute_process(COMMAND ${GIT} -C ${SOURCE} rev-parse --verify HEAD
            OUTPUT_VARIABLE sha ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE
            RESULT_VARIABLE failed)
        if(failed)
            set(sha "")
        else()
            execute_process(COMMAND ${CMAKE_COMMAND} -E env TZ=UTC
                ${GIT} -C ${SOURCE} show -s --no-show-signature
                --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd HEAD
                OUTPUT_VARIABLE time ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
            execute_process(COMMAND ${GIT} -C ${SOURCE} status --porcelain
                OUTPUT_VARIABLE changes ERROR_QUIET RESULT_VARIABLE failed)
            if(failed)
                set(dirty -1)
            elseif(changes STREQUAL "")
                set(dirty 0)
            else()
                set(dirty 1)
            endif()
        endif()
    endif()
endif()
set(text "/* Written by build_info.cmake at every build. */
#define FB_BUILD_GIT_SHA \"${sha}\"
#define FB_BUILD_GIT_TIME \"${time}\"
#define FB_BUILD_GIT_DIRTY ${dirty}
")
set(before "")
if(EXISTS ${OUT})
    file(READ ${OUT} before)
endif()
if(NOT before STREQUAL text)
    file(WRITE ${OUT} "${text}")
endif()
