/* SPDX-License-Identifier: MIT
 *
 * Trees in Lua: made, edited, looked at, sealed.
 */
#include <string.h>
#include <sys/stat.h>

#include "bind.h"

enum { MOST_XATTRS = 1000, MOST_PATH = 8192 };

static const struct {
    const char *name;
    uint32_t format, mode; /* and the mode of one that is put without */
} kinds[] = {
    { "file", S_IFREG, 0644 },    { "dir", S_IFDIR, 0755 },   { "symlink", S_IFLNK, 0777 },
    { "char", S_IFCHR, 0600 },    { "block", S_IFBLK, 0600 }, { "fifo", S_IFIFO, 0600 },
    { "socket", S_IFSOCK, 0600 },
};
#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static int l_tree_close(lua_State *L)
{
    struct bind_handle *h = luaL_checkudata(L, 1, TYPE_TREE);
    fcproc_image_tree *tree = h->object;

    h->object = NULL;
    fcproc_image_tree_close(tree);
    return 0;
}

/* imagecore.tree(limits?) -> Tree */
static int l_tree(lua_State *L)
{
    struct fcproc_image_limits limits = FCPROC_IMAGE_LIMITS_INIT;
    fcproc_error err = FCPROC_ERROR_INIT;
    fcproc_image_tree *tree;
    struct bind_handle *h;

    lua_settop(L, 1);
    if (lua_isnil(L, 1)) {
        lua_newtable(L);
        lua_replace(L, 1);
    }
    luaL_checktype(L, 1, LUA_TTABLE);
    h = bind_new(L, TYPE_TREE);
    limits.entries = (uint64_t)bind_field_integer(L, 1, "entries", 1, LUA_MAXINTEGER, 0);
    limits.bytes = (uint64_t)bind_field_integer(L, 1, "bytes", 1, LUA_MAXINTEGER, 0);
    limits.ratio = (uint64_t)bind_field_integer(L, 1, "ratio", 1, LUA_MAXINTEGER, 0);
    limits.memory = (uint64_t)bind_field_integer(L, 1, "memory", 1, LUA_MAXINTEGER, 0);
    limits.spool_folder = bind_field_string(L, 1, "spool_folder");
    if (fcproc_image_tree_new(&limits, &tree, &err) < 0)
        return bind_fail(L, &err);
    h->object = tree;
    lua_settop(L, 2);
    return 1;
}

/* ---- put ---- */

static size_t check_kind(lua_State *L)
{
    const char *name = bind_field_string(L, 3, "kind");

    for (size_t i = 0; name && i < N_KINDS; i++)
        if (strcmp(kinds[i].name, name) == 0)
            return i;
    return (size_t)luaL_error(L, "kind must be file, dir, symlink, char, block, fifo or socket");
}

/* [-0, +n, e] An array on the stack of { name = value }; the strings stay with it. */
static const struct fcproc_image_xattr *check_xattrs(lua_State *L, size_t *ret_n)
{
    struct fcproc_image_xattr *list;
    size_t n = 0;

    *ret_n = 0;
    if (lua_getfield(L, 3, "xattrs") == LUA_TNIL)
        return NULL;
    luaL_argcheck(L, lua_istable(L, -1), 3, "xattrs must be a table");
    list = lua_newuserdatauv(L, MOST_XATTRS * sizeof(*list), 0);
    for (lua_pushnil(L); lua_next(L, -3);) {
        size_t name_len;

        luaL_argcheck(L, n < MOST_XATTRS, 3, "too many xattrs");
        luaL_argcheck(L, lua_type(L, -1) == LUA_TSTRING && lua_type(L, -2) == LUA_TSTRING, 3,
                      "xattrs must be strings by strings");
        list[n].name = lua_tolstring(L, -2, &name_len);
        list[n].name_len = 0;
        luaL_argcheck(L, strlen(list[n].name) == name_len, 3, "an xattr's name has a zero byte");
        list[n].value = lua_tolstring(L, -1, &list[n].len);
        n++;
        lua_pop(L, 1);
    }
    *ret_n = n;
    return list;
}

/* Tree:put(path, node) -> true */
static int l_tree_put(lua_State *L)
{
    struct fcproc_image_node node = FCPROC_IMAGE_NODE_INIT;
    const char *path = bind_check_string(L, 2);
    fcproc_error err = FCPROC_ERROR_INIT;
    size_t kind;

    luaL_checktype(L, 3, LUA_TTABLE);
    kind = check_kind(L);
    node.mode = kinds[kind].format |
                (uint32_t)bind_field_integer(L, 3, "mode", 0, 07777, kinds[kind].mode);
    node.uid = (uint32_t)bind_field_integer(L, 3, "uid", 0, UINT32_MAX, 0);
    node.gid = (uint32_t)bind_field_integer(L, 3, "gid", 0, UINT32_MAX, 0);
    node.rdev_major = (uint32_t)bind_field_integer(L, 3, "major", 0, UINT32_MAX, 0);
    node.rdev_minor = (uint32_t)bind_field_integer(L, 3, "minor", 0, UINT32_MAX, 0);
    node.mtime = bind_field_integer(L, 3, "mtime", LUA_MININTEGER, LUA_MAXINTEGER, 0);
    node.mtime_ns = (uint32_t)bind_field_integer(L, 3, "mtime_ns", 0, 999999999, 0);
    node.target = bind_field_string(L, 3, "target");
    node.from = bind_field_string(L, 3, "from");
    node.data = bind_field_bytes(L, 3, "data", &node.len);
    node.xattrs = check_xattrs(L, &node.n_xattrs);
    if (fcproc_image_put(bind_check(L, 1, TYPE_TREE), path, &node, &err) < 0)
        return bind_fail(L, &err);
    lua_pushboolean(L, true);
    return 1;
}

/* Tree:remove(path) -> true */
static int l_tree_remove(lua_State *L)
{
    fcproc_image_tree *tree = bind_check(L, 1, TYPE_TREE);
    fcproc_error err = FCPROC_ERROR_INIT;

    if (fcproc_image_remove(tree, bind_check_string(L, 2), &err) < 0)
        return bind_fail(L, &err);
    lua_pushboolean(L, true);
    return 1;
}

/* ---- looks ---- */

static int push_stat(lua_State *L, const struct fcproc_image_stat *st)
{
    lua_createtable(L, 0, 14);
    for (size_t i = 0; i < N_KINDS; i++)
        if (kinds[i].format == (st->mode & S_IFMT)) {
            lua_pushstring(L, kinds[i].name);
            lua_setfield(L, -2, "kind");
        }
    bind_set_integer(L, "mode", st->mode & 07777);
    bind_set_integer(L, "uid", st->uid);
    bind_set_integer(L, "gid", st->gid);
    bind_set_integer(L, "size", (lua_Integer)st->size);
    bind_set_integer(L, "mtime", st->mtime);
    bind_set_integer(L, "mtime_ns", st->mtime_ns);
    bind_set_integer(L, "nlink", st->nlink);
    bind_set_integer(L, "id", (lua_Integer)st->id);
    if (S_ISCHR(st->mode) || S_ISBLK(st->mode)) {
        bind_set_integer(L, "major", st->rdev_major);
        bind_set_integer(L, "minor", st->rdev_minor);
    }
    if (st->target) {
        lua_pushstring(L, st->target);
        lua_setfield(L, -2, "target");
    }
    if (st->n_xattrs > 0) {
        lua_createtable(L, 0, (int)st->n_xattrs);
        for (size_t i = 0; i < st->n_xattrs; i++) {
            struct fcproc_image_xattr x;

            if (fcproc_image_stat_xattr(st, i, &x, NULL) < 0)
                break;
            lua_pushlstring(L, x.name, x.name_len);
            lua_pushlstring(L, x.value, x.len);
            lua_rawset(L, -3);
        }
        lua_setfield(L, -2, "xattrs");
    }
    return 1;
}

/* Tree:stat(path, follow?) -> table */
static int l_tree_stat(lua_State *L)
{
    fcproc_image_tree *tree = bind_check(L, 1, TYPE_TREE);
    struct fcproc_image_stat st = FCPROC_IMAGE_STAT_INIT;
    const char *path = bind_check_string(L, 2);
    fcproc_error err = FCPROC_ERROR_INIT;

    if (fcproc_image_stat(tree, path, lua_toboolean(L, 3), &st, &err) < 0)
        return bind_fail(L, &err);
    return push_stat(L, &st);
}

/* Tree:list(path) -> names */
static int l_tree_list(lua_State *L)
{
    const char *path = bind_check_string(L, 2), *name;
    fcproc_error err = FCPROC_ERROR_INIT;

    lua_newtable(L);
    for (size_t i = 0;; i++) {
        if (fcproc_image_list(bind_check(L, 1, TYPE_TREE), path, i, &name, &err) < 0)
            return bind_fail(L, &err);
        if (!name)
            return 1;
        lua_pushstring(L, name);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
}

/* Tree:resolve(path) -> path */
static int l_tree_resolve(lua_State *L)
{
    fcproc_image_tree *tree = bind_check(L, 1, TYPE_TREE);
    const char *path = bind_check_string(L, 2);
    fcproc_error err = FCPROC_ERROR_INIT;
    char resolved[MOST_PATH];

    if (fcproc_image_resolve(tree, path, resolved, sizeof(resolved), &err) < 0)
        return bind_fail(L, &err);
    lua_pushstring(L, resolved);
    return 1;
}

/* Tree:read(path, limit) -> bytes */
static int l_tree_read(lua_State *L)
{
    fcproc_image_tree *tree = bind_check(L, 1, TYPE_TREE);
    struct fcproc_image_stat st = FCPROC_IMAGE_STAT_INIT;
    const char *path = bind_check_string(L, 2);
    lua_Integer limit = luaL_checkinteger(L, 3);
    fcproc_error err = FCPROC_ERROR_INIT;
    luaL_Buffer buffer;
    ssize_t n;
    char *room;

    luaL_argcheck(L, limit >= 0, 3, "a limit must not be negative");
    if (fcproc_image_stat(tree, path, true, &st, &err) < 0)
        return bind_fail(L, &err);
    if ((uint64_t)limit > st.size)
        limit = (lua_Integer)st.size;
    room = luaL_buffinitsize(L, &buffer, (size_t)limit);
    n = fcproc_image_read(tree, path, 0, room, (size_t)limit, &err);
    if (n < 0)
        return bind_fail(L, &err);
    luaL_pushresultsize(&buffer, (size_t)n);
    return 1;
}

/* Tree:seal() -> table */
static int l_tree_seal(lua_State *L)
{
    struct fcproc_image_sealed sealed = FCPROC_IMAGE_SEALED_INIT;
    fcproc_error err = FCPROC_ERROR_INIT;

    if (fcproc_image_seal(bind_check(L, 1, TYPE_TREE), &sealed, &err) < 0)
        return bind_fail(L, &err);
    lua_createtable(L, 0, 5);
    bind_set_integer(L, "entries", (lua_Integer)sealed.entries);
    bind_set_integer(L, "inodes", (lua_Integer)sealed.inodes);
    bind_set_integer(L, "bytes", (lua_Integer)sealed.bytes);
    bind_set_integer(L, "apparent", (lua_Integer)sealed.apparent);
    lua_pushstring(L, sealed.largest);
    lua_setfield(L, -2, "largest");
    return 1;
}

void image_add_methods(lua_State *L, const char *type, const luaL_Reg *methods)
{
    luaL_getmetatable(L, type);
    lua_getfield(L, -1, "__index");
    luaL_setfuncs(L, methods, 0);
    lua_pop(L, 2);
}

void image_open_tree(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "put", l_tree_put },         { "remove", l_tree_remove },
        { "stat", l_tree_stat },       { "list", l_tree_list },
        { "resolve", l_tree_resolve }, { "read", l_tree_read },
        { "seal", l_tree_seal },       { NULL, NULL },
    };
    static const luaL_Reg functions[] = {
        { "tree", l_tree },
        { NULL, NULL },
    };

    bind_type(L, TYPE_TREE, methods, l_tree_close);
    luaL_setfuncs(L, functions, 0);
}
