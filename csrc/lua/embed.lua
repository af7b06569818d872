-- Writes the Lua files named on the command line as C arrays to stdout: the sources that
-- libfcproc-lua carries. Run by the Makefile from the top of the tree.

local names = { ... }
local entries = {}

io.write("/* Made by csrc/lua/embed.lua. */\n#include \"sources.h\"\n\n")
for i, name in ipairs(names) do
  local file <close> = assert(io.open(("lua/fcproc/%s.lua"):format(name), "rb"))
  local text = file:read("a")
  io.write(("static const unsigned char source_%d[] = {"):format(i))
  for at = 1, #text do
    io.write(at % 20 == 1 and "\n    " or " ", text:byte(at), ",")
  end
  io.write("\n};\n\n")
  local module = name == "init" and "fcproc" or "fcproc." .. name:gsub("/", ".")
  entries[i] = ("    { \"%s\", source_%d, sizeof(source_%d) },\n"):format(module, i, i)
end
io.write("const struct lua_source lua_sources[] = {\n", table.concat(entries), "    { 0, 0, 0 },\n};\n")
