/* SPDX-License-Identifier: MIT
 *
 * The module fcproc.imagecore: the list of all that is in it. It needs fcproc.core, which makes the type
 * of errors.
 */
#include "bind.h"

FCPROC_API int luaopen_fcproc_imagecore(lua_State *L);

int luaopen_fcproc_imagecore(lua_State *L)
{
    lua_getglobal(L, "require");
    lua_pushliteral(L, "fcproc.core");
    lua_call(L, 1, 0);
    lua_newtable(L);
    image_open_job(L);
    image_open_tree(L);
    image_open_read(L);
    image_open_write(L);
    image_open_unpack(L);
    return 1;
}
