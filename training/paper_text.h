/* The paper's tables (paper_tables.csv) as text, ended by a NUL; made by embed_paper.cmake. */
#ifndef FB_PAPER_TEXT_H
#define FB_PAPER_TEXT_H

extern const char fb_paper_text[];

#endif
