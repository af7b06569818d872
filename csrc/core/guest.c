/* SPDX-License-Identifier: MIT
 *
 * Where the built-in guest was installed.
 */
#include "private.h"

#ifndef FCPROC_GUEST_PATH
#define FCPROC_GUEST_PATH "/usr/local/lib/fcproc/guest.elf"
#endif

FCPROC_API const char *fcproc_default_guest_path(void)
{
    return FCPROC_GUEST_PATH;
}
