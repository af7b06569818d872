/* SPDX-License-Identifier: MIT
 *
 * What the host can do, in Lua.
 */
#include "binding.h"

/* core.own_uid() -> integer */
static int l_own_uid(lua_State *L)
{
    lua_pushinteger(L, fcproc_own_uid());
    return 1;
}

/* core.uid_in_use(uid) -> boolean */
static int l_uid_in_use(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    lua_Integer uid = bind_check_integer(L, 1, 0, BIND_MOST_ID);
    bool used;

    if (fcproc_uid_in_use((uid_t)uid, &used, &err) < 0)
        return bind_fail(L, &err);
    lua_pushboolean(L, used);
    return 1;
}

/* core.kvm_check(path) -> true */
static int l_kvm_check(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;

    if (fcproc_kvm_check(bind_check_string(L, 1), &err) < 0)
        return bind_fail(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

/* core.tun_check(path) -> true */
static int l_tun_check(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;

    if (fcproc_tun_check(bind_check_string(L, 1), &err) < 0)
        return bind_fail(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

/* core.disk_free(path) -> free bytes, all bytes, free files or nil */
static int l_disk_free(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    struct fcproc_disk disk;

    if (fcproc_disk_free(bind_check_string(L, 1), &disk, &err) < 0)
        return bind_fail(L, &err);
    lua_pushinteger(L, disk.free_bytes);
    lua_pushinteger(L, disk.total_bytes);
    if (disk.free_files >= 0)
        lua_pushinteger(L, disk.free_files);
    else
        lua_pushnil(L);
    return 3;
}

/* core.disk_look(path, limit) -> size, head */
static int l_disk_look(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    const char *path = bind_check_string(L, 1);
    lua_Integer limit = luaL_checkinteger(L, 2);
    int64_t size;
    size_t len;
    char head[4096];

    luaL_argcheck(L, limit >= 0 && (size_t)limit <= sizeof(head), 2,
                  "a limit must be 0 to 4096 bytes");
    if (fcproc_disk_look(path, head, (size_t)limit, &len, &size, &err) < 0)
        return bind_fail(L, &err);
    lua_pushinteger(L, size);
    lua_pushlstring(L, head, len);
    return 2;
}

/* core.reflink_check(folder) -> true */
static int l_reflink_check(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;

    if (fcproc_reflink_check(bind_check_string(L, 1), &err) < 0)
        return bind_fail(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

void bind_open_checks(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "own_uid", l_own_uid },
        { "uid_in_use", l_uid_in_use },
        { "kvm_check", l_kvm_check },
        { "tun_check", l_tun_check },
        { "disk_free", l_disk_free },
        { "disk_look", l_disk_look },
        { "reflink_check", l_reflink_check },
        { NULL, NULL },
    };

    luaL_setfuncs(L, functions, 0);
}
