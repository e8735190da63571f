/* The man page flowbench(1), made of the commands' own tables. */
#ifndef FB_MAN_PAGE_H
#define FB_MAN_PAGE_H

#include <stdio.h>

void fb_man_page_print(FILE *out);

#endif
