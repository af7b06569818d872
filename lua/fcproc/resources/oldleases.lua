-- Leases of VMs that an earlier fcproc has launched, which wrote them into the runtime folder:
-- RUNTIME_DIR/.fcproc/leases/NAME -> ID. They are taken for the host, too, and stay there for as long
-- as the VM does: a manager of that fcproc may have it yet.

local core = require "fcproc.core"
local journals = require "fcproc.resources.journal"
local namespaces = require "fcproc.resources.namespaces"

-- "ip-172.30.0.5" as it is called on the host.
local function name_of(manager, record, old)
  local kind, rest = old:match("^(%l+)%-(.+)$")
  local netns = record.netns or namespaces.of(manager)
  if kind == "drive" then return old end
  if kind == "tap" then return ("tap-%d-%s"):format(netns, rest) end
  if kind == "ip" or kind == "mac" then
    return ("%s-%d-%s-%s"):format(kind, netns, manager.config.bridge_name or "", rest)
  end
end

local function take(leases, name, id)
  if name and not leases:holds(name, id) then leases:take(name, id) end
end

---Takes them.
---@param leases fcproc.Leases
---@param folder string  where they were written
return function(leases, folder)
  local manager, records = leases.manager, {}
  for _, entry in ipairs(core.list_dir(folder) or {}) do
    local path = folder .. "/" .. entry.name
    local id = core.read_link(path)
    id = journals.is_id(id) and id or nil -- else it is nobody's, and leads anywhere
    if id and not core.stat(journals.folder(manager, id)) then
      core.remove_file(path)
    elseif id then
      local record = records[id] or journals.read(manager, id) or {}
      if not records[id] and record.jail and record.jail.uid then
        take(leases, ("uid-%d"):format(record.jail.uid), id)
      end
      records[id] = record
      take(leases, name_of(manager, record, entry.name), id)
    end
  end
end
