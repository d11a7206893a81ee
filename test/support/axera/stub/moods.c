/* What goes wrong on a board before a model is there, by environment variables, since it happens in
 * processes of their own. No vendor has these.
 *
 * AX_STUB_PRINTS  the libraries say this on descriptor 1, through stdio as theirs do: into a pipe or
 *                 a file it comes out late, at the end of the process.
 * AX_STUB_SIGNAL  AX_SYS_Init dies of this signal: 7 (SIGBUS) without permission for the driver.
 * AX_STUB_VNPU    another program has set this mode: 1 ENABLED, 2 BIG_LITTLE, 3 LITTLE_BIG.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "stub.h"

static int number(const char *name) {
    const char *text = getenv(name);
    return text ? atoi(text) : 0;
}

void stub_start(void) {
    const char *words = getenv("AX_STUB_PRINTS");
    if (words) printf("%s\n", words);
    int signal_number = number("AX_STUB_SIGNAL");
    if (signal_number) {
        signal(signal_number, SIG_DFL);
        raise(signal_number);
    }
}

int32_t stub_vnpu(void) { return number("AX_STUB_VNPU"); }
