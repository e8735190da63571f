# cmake -DOUT=<dir> -P embed.cmake: the page's style sheet, script and text as arrays in
# <dir>/html_assets.c and .h, with the SHA-256 that a content security policy names.

# What base64 makes of a number of 24 bits, given as six hexadecimal digits.
set(alphabet "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
function(base64_of hex result)
    set(text "")
    string(LENGTH "${hex}" digits)
    math(EXPR padding "(6 - ${digits} % 6) % 6") # in hexadecimal digits: 0, 2 or 4
    string(SUBSTRING "0000" 0 ${padding} zeros)
    set(hex "${hex}${zeros}")
    math(EXPR last "${digits} + ${padding} - 1")
    foreach(at RANGE 0 ${last} 6)
        string(SUBSTRING "${hex}" ${at} 6 group)
        foreach(shift 18 12 6 0)
            math(EXPR index "(0x${group} >> ${shift}) & 63")
            string(SUBSTRING "${alphabet}" ${index} 1 letter)
            string(APPEND text "${letter}")
        endforeach()
    endforeach()
    math(EXPR dropped "${padding} / 2")
    string(LENGTH "${text}" length)
    math(EXPR kept "${length} - ${dropped}")
    string(SUBSTRING "${text}" 0 ${kept} text)
    string(SUBSTRING "==" 0 ${dropped} equals)
    set(${result} "${text}${equals}" PARENT_SCOPE)
endfunction()

set(header "/* Written by embed.cmake. */\n#include <stddef.h>\n")
set(source "/* Written by embed.cmake. */\n#include \"html_assets.h\"\n")
foreach(file report.css report.js reading.html)
    string(REPLACE "." "_" name ${file})
    file(READ ${CMAKE_CURRENT_LIST_DIR}/${file} hex HEX)
    file(SHA256 ${CMAKE_CURRENT_LIST_DIR}/${file} digest)
    base64_of(${digest} digest)
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
    string(REGEX REPLACE "(................................................................................)" "\\1\n" bytes "${bytes}")
    string(APPEND header "extern const unsigned char fb_asset_${name}[];\n"
        "extern const size_t fb_asset_${name}_size;\nextern const char fb_asset_${name}_sha256[];\n")
    string(APPEND source "const unsigned char fb_asset_${name}[] = {\n${bytes}\n};\n"
        "const size_t fb_asset_${name}_size = sizeof fb_asset_${name};\n"
        "const char fb_asset_${name}_sha256[] = \"${digest}\";\n")
endforeach()
file(WRITE ${OUT}/html_assets.h "${header}")
file(WRITE ${OUT}/html_assets.c "${source}")
