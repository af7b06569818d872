-- Few descriptors: holds all that the limit (RLIMIT_NOFILE, which a caller lowers by prlimit) leaves,
-- but a given number, while a call runs. The errors that then may come are those of too few.

local M = {}

local EMFILE = 24

local held = {}

---Takes every descriptor that there is.
function M.hold()
  repeat
    local file = io.open("/dev/null")
    held[#held + 1] = file
  until not file
end

---Gives back as many as that.
function M.give(n)
  for _ = 1, math.min(n, #held) do table.remove(held):close() end
end

---Runs fn with so many free descriptors, and with all of them when it is done. Returns what pcall does.
function M.with(free, fn, ...)
  collectgarbage() -- a handle that nobody holds any more goes now, not in the middle
  collectgarbage()
  M.hold()
  M.give(free)
  local result = table.pack(pcall(fn, ...))
  M.give(#held)
  return table.unpack(result, 1, result.n)
end

---Does the error, or its cause, say that there were too few?
function M.is_shortage(err)
  while type(err) == "table" do
    if err.errno == EMFILE then return true end
    err = err.cause
  end
  return false
end

return M
