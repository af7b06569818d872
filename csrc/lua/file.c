/* SPDX-License-Identifier: MIT
 *
 * Files and folders in Lua. Every error has the path: of two, the new name.
 */
#include <limits.h>

#include "binding.h"

const struct fcproc_expected *bind_expected(lua_State *L, int index, struct fcproc_expected *room)
{
    const char *id;
    size_t len;

    if (lua_isnoneornil(L, index))
        return NULL;
    luaL_checktype(L, index, LUA_TTABLE);
    *room = (struct fcproc_expected)FCPROC_EXPECTED_INIT;
    lua_getfield(L, index, "id");
    id = lua_tolstring(L, -1, &len);
    /* A journal may hold anything: then no file is the one. */
    if (!lua_isnil(L, -1) && (!id || strlen(id) != len || !fcproc_file_id_parse(id, &room->id)))
        room->id.ino = UINT64_MAX;
    lua_getfield(L, index, "single");
    room->single = lua_toboolean(L, -1);
    lua_pop(L, 2);
    room->uid = bind_field_id(L, index, "uid");
    room->reader_uid = bind_field_id(L, index, "reader_uid");
    room->reader_gid = bind_field_id(L, index, "reader_gid");
    return room;
}

void bind_push_file_id(lua_State *L, const struct fcproc_file_id *id)
{
    char text[FCPROC_FILE_ID_SIZE];

    fcproc_file_id_print(id, text);
    lua_pushstring(L, text);
}

static const char *const type_names[] = { "file", "dir", "link", "block", "socket", "other" };

/* ---- looking ---- */

/* core.stat(path, follow?) -> table */
static int l_stat(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    struct fcproc_file_info info;

    if (fcproc_file_stat(bind_check_string(L, 1), lua_toboolean(L, 2), &info, &err) < 0)
        return bind_fail_at(L, &err, 1);
    struct {
        const char *name;
        lua_Integer value;
    } fields[] = {
        { "size", info.size },
        { "allocated", info.allocated },
        { "dev", (lua_Integer)info.id.dev },
        { "ino", (lua_Integer)info.id.ino },
        { "mode", info.mode },
        { "uid", info.uid },
        { "gid", info.gid },
        { "nlink", (lua_Integer)info.nlink },
    };

    lua_createtable(L, 0, 11);
    lua_pushstring(L, type_names[info.type]);
    lua_setfield(L, -2, "type");
    bind_push_file_id(L, &info.id);
    lua_setfield(L, -2, "id");
    lua_pushnumber(L, info.mtime);
    lua_setfield(L, -2, "mtime");
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        lua_pushinteger(L, fields[i].value);
        lua_setfield(L, -2, fields[i].name);
    }
    return 1;
}

/* core.list_dir(path) -> list */
static int l_list_dir(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    const char *path = bind_check_string(L, 1);
    struct bind_handle *guard = bind_guard(L);
    struct fcproc_dir_entry *list = NULL;
    size_t n = 0;

    if (fcproc_dir_list(path, &list, &n, &err) < 0)
        return bind_fail_at(L, &err, 1);
    guard->object = list;
    lua_createtable(L, n < INT_MAX ? (int)n : INT_MAX, 0);
    for (size_t i = 0; i < n; i++) {
        lua_createtable(L, 0, 2);
        lua_pushstring(L, list[i].name);
        lua_setfield(L, -2, "name");
        lua_pushstring(L, type_names[list[i].type]);
        lua_setfield(L, -2, "type");
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    bind_guard_release(guard);
    return 1;
}

/* core.read_file(path, offset?, limit?, expected?) -> string */
static int l_read_file(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    const char *path = bind_check_string(L, 1);
    int64_t offset = luaL_optinteger(L, 2, 0);
    int64_t limit = luaL_optinteger(L, 3, FCPROC_READ_LIMIT);
    struct fcproc_expected room;
    const struct fcproc_expected *expected = bind_expected(L, 4, &room);
    struct bind_handle *guard;
    char *data = NULL;
    size_t len = 0;

    luaL_argcheck(L, limit >= 0, 3, "a limit must be 0 bytes or more");
    guard = bind_guard(L);
    if (fcproc_file_read(path, expected, offset, limit, &data, &len, &err) < 0)
        return bind_fail_at(L, &err, 1);
    guard->object = data;
    lua_pushlstring(L, data, len);
    bind_guard_release(guard);
    return 1;
}

/* core.read_link(path) -> target */
static int l_read_link(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    char target[PATH_MAX];

    if (fcproc_symlink_read(bind_check_string(L, 1), target, sizeof(target), &err) < 0)
        return bind_fail_at(L, &err, 1);
    lua_pushstring(L, target);
    return 1;
}

/* ---- making and removing ---- */

/* core.make_dir(path, mode) -> created */
static int l_make_dir(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    bool created = false;

    if (fcproc_dir_make(bind_check_string(L, 1), bind_check_mode(L, 2), &created, &err) < 0)
        return bind_fail_at(L, &err, 1);
    lua_pushboolean(L, created);
    return 1;
}

/* core.create_file(path, data, mode, uid?, gid?) -> created, id */
static int l_create_file(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    const char *path = bind_check_string(L, 1);
    size_t len;
    const char *data = luaL_checklstring(L, 2, &len);
    struct fcproc_file_id id;
    bool created = false;

    if (fcproc_file_create(path, data, len, bind_check_mode(L, 3), bind_opt_id(L, 4),
                           bind_opt_id(L, 5), &created, &id, &err) < 0)
        return bind_fail_at(L, &err, 1);
    lua_pushboolean(L, created);
    if (!created)
        return 1;
    bind_push_file_id(L, &id);
    return 2;
}

/* core.write_file(path, data, mode, uid?, gid?) -> true, id */
static int l_write_file(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    const char *path = bind_check_string(L, 1);
    size_t len;
    const char *data = luaL_checklstring(L, 2, &len);
    struct fcproc_file_id id;

    if (fcproc_file_write(path, data, len, bind_check_mode(L, 3), bind_opt_id(L, 4),
                          bind_opt_id(L, 5), &id, &err) < 0)
        return bind_fail_at(L, &err, 1);
    lua_pushboolean(L, 1);
    bind_push_file_id(L, &id);
    return 2;
}

/* core.own_file(path, uid?, gid?, mode?, expected?) -> true */
static int l_own_file(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    const char *path = bind_check_string(L, 1);
    int mode = lua_isnoneornil(L, 4) ? -1 : (int)bind_check_mode(L, 4);
    struct fcproc_expected room;

    if (fcproc_file_own(path, bind_expected(L, 5, &room), bind_opt_id(L, 2), bind_opt_id(L, 3),
                        mode, &err) < 0)
        return bind_fail_at(L, &err, 1);
    lua_pushboolean(L, 1);
    return 1;
}

/* core.seal_file(path, uid?, gid?, mode, expected?) -> sealed */
static int l_seal_file(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    const char *path = bind_check_string(L, 1);
    mode_t mode = bind_check_mode(L, 4);
    struct fcproc_expected room;
    bool sealed = false;

    if (fcproc_file_seal(path, bind_expected(L, 5, &room), bind_opt_id(L, 2), bind_opt_id(L, 3),
                         mode, &sealed, &err) < 0)
        return bind_fail_at(L, &err, 1);
    lua_pushboolean(L, sealed);
    return 1;
}

/* core.file_in_use(path) -> boolean */
static int l_file_in_use(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    bool used;

    if (fcproc_file_in_use(bind_check_string(L, 1), &used, &err) < 0)
        return bind_fail_at(L, &err, 1);
    lua_pushboolean(L, used);
    return 1;
}

/* core.remove_file(path) -> removed */
static int l_remove_file(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    bool removed = false;

    if (fcproc_file_remove(bind_check_string(L, 1), &removed, &err) < 0)
        return bind_fail_at(L, &err, 1);
    lua_pushboolean(L, removed);
    return 1;
}

/* core.remove_tree(path, mark?) -> how many */
static int l_remove_tree(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    const char *mark = lua_isnoneornil(L, 2) ? NULL : bind_check_string(L, 2);
    int64_t removed = 0;

    if (fcproc_tree_remove_marked(bind_check_string(L, 1), mark, &removed, &err) < 0)
        return bind_fail_at(L, &err, 1);
    lua_pushinteger(L, removed);
    return 1;
}

/* core.punch_file(path, most_bytes, expected?) -> bytes freed */
static int l_punch_file(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    const char *path = bind_check_string(L, 1);
    int64_t most = bind_check_size(L, 2);
    struct fcproc_expected room;
    const struct fcproc_expected *expected = bind_expected(L, 3, &room);
    int64_t freed = 0;

    if (fcproc_file_punch(path, expected, most, &freed, &err) < 0)
        return bind_fail_at(L, &err, 1);
    lua_pushinteger(L, freed);
    return 1;
}

/* ---- two names ---- */

/* core.link_file(from, to, expected?) -> true */
static int l_link_file(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    const char *from = bind_check_string(L, 1);
    const char *to = bind_check_string(L, 2);
    struct fcproc_expected room;

    if (fcproc_file_link(from, bind_expected(L, 3, &room), to, &err) < 0)
        return bind_fail_at(L, &err, 2);
    lua_pushboolean(L, 1);
    return 1;
}

/* core.bind_file(from, to, expected?) -> true */
static int l_bind_file(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    const char *from = bind_check_string(L, 1);
    const char *to = bind_check_string(L, 2);
    struct fcproc_expected room;

    if (fcproc_file_bind(from, bind_expected(L, 3, &room), to, &err) < 0)
        return bind_fail_at(L, &err, 2);
    lua_pushboolean(L, 1);
    return 1;
}

/* core.unbind_file(path) -> removed */
static int l_unbind_file(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    bool removed;

    if (fcproc_file_unbind(bind_check_string(L, 1), &removed, &err) < 0)
        return bind_fail_at(L, &err, 1);
    lua_pushboolean(L, removed);
    return 1;
}

/* core.symlink(target, path) -> true */
static int l_symlink(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;

    if (fcproc_symlink_make(bind_check_string(L, 1), bind_check_string(L, 2), &err) < 0)
        return bind_fail_at(L, &err, 2);
    lua_pushboolean(L, 1);
    return 1;
}

/* core.rename(from, to, replace) -> true */
static int l_rename(lua_State *L)
{
    fcproc_error err = FCPROC_ERROR_INIT;
    const char *from = bind_check_string(L, 1);
    const char *to = bind_check_string(L, 2);

    if (fcproc_file_rename(from, to, lua_toboolean(L, 3), &err) < 0)
        return bind_fail_at(L, &err, 2);
    lua_pushboolean(L, 1);
    return 1;
}

void bind_open_file(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "stat", l_stat },
        { "list_dir", l_list_dir },
        { "read_file", l_read_file },
        { "read_link", l_read_link },
        { "make_dir", l_make_dir },
        { "create_file", l_create_file },
        { "write_file", l_write_file },
        { "own_file", l_own_file },
        { "seal_file", l_seal_file },
        { "file_in_use", l_file_in_use },
        { "remove_file", l_remove_file },
        { "remove_tree", l_remove_tree },
        { "punch_file", l_punch_file },
        { "link_file", l_link_file },
        { "bind_file", l_bind_file },
        { "unbind_file", l_unbind_file },
        { "symlink", l_symlink },
        { "rename", l_rename },
        { NULL, NULL },
    };

    luaL_setfuncs(L, functions, 0);
}
