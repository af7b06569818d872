-- Tars byte by byte, also such as no program writes.

local M = {}

local function octal(number, width)
  if number >= 0 and number < 8 ^ (width - 1) then return ("%0" .. width - 1 .. "o\0"):format(number) end
  return "\x80" .. (">I" .. width - 1):pack(number) -- as GNU tar does
end

local function pad(text) return text .. ("\0"):rep(-#text % 512) end

local function header(e, name, kind, size)
  local text = table.concat{
    name:sub(1, 100) .. ("\0"):rep(100 - #name), octal(e.mode or 420, 8), octal(e.uid or 0, 8),
    octal(e.gid or 0, 8), octal(size, 12), octal(e.mtime or 0, 12), "        ", kind,
    (e.link or ""):sub(1, 100) .. ("\0"):rep(100 - #(e.link or "")), "ustar\00000", ("\0"):rep(64),
    octal(e.major or 0, 8), octal(e.minor or 0, 8), ("\0"):rep(167),
  }
  local sum = 0
  for i = 1, #text do sum = sum + text:byte(i) end
  return text:sub(1, 148) .. ("%06o\0 "):format(e.sum or sum) .. text:sub(157)
end

local function pax(records)
  local text = ""
  for key, value in pairs(records) do
    local rest = " " .. key .. "=" .. value .. "\n"
    local len = #rest + 1
    while #(len .. rest) ~= len do len = #(len .. rest) end
    text = text .. len .. rest
  end
  return header({}, "pax", "x", #text) .. pad(text)
end

---One entry: { name, kind = "0" (a file), data, link, mode, uid, gid, mtime, major, minor, size, pax }.
function M.entry(e)
  local records = {}
  for key, value in pairs(e.pax or {}) do records[key] = value end
  if #e.name > 100 then records.path = e.name end
  if #(e.link or "") > 100 then records.linkpath = e.link end
  local data = e.data or ""
  return (next(records) and pax(records) or "") .. header(e, e.name, e.kind or "0", e.size or #data)
    .. pad(data)
end

---All of them, and the end.
function M.archive(entries)
  local parts = {}
  for i, e in ipairs(entries) do parts[i] = M.entry(e) end
  return table.concat(parts) .. ("\0"):rep(1024)
end

return M
