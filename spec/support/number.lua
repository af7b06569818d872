-- A process that gets the number of one that is gone, in a PID namespace where ns_last_pid may be written.

local fcproc = require "fcproc"

---@param pid integer  of one that was reaped
---@return fcproc.Process
return function(pid)
  for _ = 1, 100 do
    local file <close> = assert(io.open("/proc/sys/kernel/ns_last_pid", "w"))
    file:write(pid - 1)
    file:close()
    local stranger = assert(fcproc.spawn({ "sleep", "60" }, { stdout = "null", stderr = "null" }))
    if stranger:pid() == pid then return stranger end
    stranger:signal("KILL")
    stranger:wait(5)
  end
  error("the pid was not reused")
end
