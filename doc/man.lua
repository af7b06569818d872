-- Writes fcproc(1) from the command's own parser, or its completion for a shell:
-- man.lua man VERSION | bash | zsh | fish.

local parser = require("fcproc.cli.parser").new(function() end)

-- Text in roff: what would begin a request or an escape is told to be text.
local function roff(text)
  return (text:gsub("\\", "\\e"):gsub("%-", "\\-"):gsub("\n%s*([.'])", "\n\\&%1"):gsub("^([.'])", "\\&%1"))
end

local function is_shown(element) return not element._hidden end

-- "-n N, --lines N" in bold, what it takes in italics.
local function option_head(option)
  local words = {}
  local takes = option._argname or option._metavar
  if type(takes) == "table" then takes = table.concat(takes, " ") end
  for i, alias in ipairs(option._aliases) do
    words[i] = "\\fB" .. roff(alias) .. "\\fR"
    if takes and option._maxargs > 0 then words[i] = words[i] .. " \\fI" .. roff(takes) .. "\\fR" end
  end
  return table.concat(words, ", ")
end

-- is_command: its own --help is not told again.
local function write_elements(out, element, is_command)
  for _, argument in ipairs(element._arguments) do
    if is_shown(argument) and argument._description then
      out(".TP\n\\fI" .. roff(argument._name) .. "\\fR\n" .. roff(argument._description))
    end
  end
  for _, option in ipairs(element._options) do
    if is_shown(option) and not (is_command and option._name == "-h") then
      out(".TP\n" .. option_head(option) .. "\n" .. roff(option._description or ""))
    end
  end
end

-- A command, and those below it.
local function write_command(out, command, path)
  local name = path .. " " .. command._name
  out(".SS " .. roff(name))
  local also = table.concat(command._aliases, ", ", 2)
  out(roff((command._description or "") .. (also ~= "" and " Also: " .. also .. "." or "")))
  out(".PP\n.nf\n" .. roff((command:get_usage():gsub("^Usage: ", ""))) .. "\n.fi")
  write_elements(out, command, true)
  for _, inner in ipairs(command._commands) do write_command(out, inner, name) end
end

local function write_man(version)
  local lines = {}
  local function out(text) lines[#lines + 1] = text end
  out(('.TH FCPROC 1 "" "fcproc %s"'):format(version))
  out(".SH NAME\nfcproc \\- launches, inspects and tears down Firecracker microVMs")
  out(".SH SYNOPSIS\n\\fBfcproc\\fR [\\fIoptions\\fR] \\fIcommand\\fR ...")
  out(".SH DESCRIPTION\n" .. roff(parser._description))
  out(".SH OPTIONS")
  write_elements(out, parser)
  out(".SH COMMANDS")
  for _, command in ipairs(parser._commands) do write_command(out, command, "fcproc") end
  out(".SH ENVIRONMENT AND EXIT STATUS\n" .. roff(parser._epilog):gsub("\n\n", "\n.PP\n"))
  out(".SH FILES\n.TP\n\\fI/run/fcproc/ID/\\fR, \\fI~/.local/state/fcproc/ID/\\fR\n"
    .. "A VM's folder, root's or an ordinary user's, unless \\fB\\-\\-runtime\\-dir\\fR says\n"
    .. "otherwise: what was made for it (vm.json),\nits console.log, its API socket.")
  out(".SH EXAMPLES\n.nf\n" .. roff"fcproc doctor --boot\nfcproc run\nfcproc run --id web --net --detach\n"
    .. "fcproc stop web\n.fi")
  return table.concat(lines, "\n") .. "\n"
end

local what = arg[1]
if what == "man" then
  io.write(write_man(arg[2]))
else
  io.write(assert(parser["get_" .. what .. "_complete"], "no such shell")(parser))
end
