/* SPDX-License-Identifier: MIT
 *
 * User and group numbers. The kernel's are 32 bits wide, and its highest means "as it is" to every call
 * that sets one: a number that is cut, or that one, would leave root's in place.
 */
#include "private.h"

static bool is_id(int64_t id)
{
    return id >= -1 && id < (int64_t)UINT32_MAX;
}

int ids_check(const char *op, int64_t uid, int64_t gid, fcproc_error *err)
{
    bool is_uid = is_id(uid);

    if (is_uid && is_id(gid))
        return 0;
    return error_set(err, FCPROC_ERR_INVALID, op, 0,
                     "%lld can't be a %s: they go from 0 to 4294967294, and -1 stands for none",
                     (long long)(is_uid ? gid : uid), is_uid ? "gid" : "uid");
}
