/* Planted faults that need no statistics: more memory, a wrong result, more instructions. */
#ifndef FB_PROOF_FAULTS_H
#define FB_PROOF_FAULTS_H

#include <stdbool.h>

/* Plants each in every row of stored counts and prints a line per kind of fault; false when one is
 * not found, or when an unchanged row is. Ends the program when the file cannot be read. */
bool proof_faults(const char *path);

#endif
