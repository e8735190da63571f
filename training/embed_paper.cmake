# cmake -DIN=<csv> -DOUT=<c file> -P embed_paper.cmake: the paper's tables as an array.
file(READ ${IN} hex HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
string(REGEX REPLACE "(................................................................................)" "\\1\n" bytes "${bytes}")
file(WRITE ${OUT} "/* Written by embed_paper.cmake. */\n#include \"paper_text.h\"\nconst char fb_paper_text[] = {\n${bytes}0};\n")
