std = "lua54"
max_line_length = 110
files["lua/fcproc/core.d.lua"] = { ignore = { "212", "241" } } -- declarations only
files["lua/fcproc/imagecore.d.lua"] = { ignore = { "212", "241" } }
files["spec"] = { std = "+busted" }
files["rockspec"] = { std = "rockspec" }
files[".busted"] = { std = "lua54" }
