-- Whether the host lets through what NAT needs. Only told, never changed: forwarding makes the host
-- a router, and other people's firewalls are theirs.

local errors = require "fcproc.error"
local nft = require "fcproc.network.nft"

local M = {}

local OP = "nat.check"

---@class fcproc.NatCheck
---@field name string
---@field ok boolean
---@field message string  what was found
---@field fix string?     what mends it

local function answer(name, ok, message, fix)
  return { name = name, ok = ok, message = message, fix = not ok and fix or nil }
end

---The link of that name among those that nft.links tells.
---@param links table[]
---@param name string
---@param op string
---@return table? link
---@return fcproc.Error? err  ERR_NOT_FOUND, with the names there are
function M.find_link(links, name, op)
  local names = {}
  for _, link in ipairs(links) do
    if link.ifname == name then return link end
    -- The bridge's ports are the guests'.
    if link.ifname ~= "lo" and not link.master then names[#names + 1] = link.ifname end
  end
  return nil, errors.new{
    code = "not_found", op = op, message = ("there is no uplink %s; the interfaces here: %s")
      :format(name, #names > 0 and table.concat(names, ", ") or "none"),
  }
end

local function check_uplink(manager, spec, ctx)
  local uplink = spec.uplink
  local links, err = nft.links(manager, OP, ctx)
  if not links then return nil, err end
  local link
  link, err = M.find_link(links, uplink, OP)
  if not link then return answer("uplink", false, err.message, "name the interface of the default "
    .. "route: `ip route show default` shows it") end
  for _, flag in ipairs(link.flags) do
    if flag == "UP" then
      for _, entry in ipairs(link.addr_info) do
        if entry.family == "inet" then
          return answer("uplink", true, ("%s is up with %s"):format(uplink, entry["local"]))
        end
      end
      return answer("uplink", false, uplink .. " has no IPv4 address for guests to go out with",
        ("ip address add ADDRESS/PREFIX dev %s"):format(uplink))
    end
  end
  return answer("uplink", false, uplink .. " is down", "ip link set dev " .. uplink .. " up")
end

-- The file is the reader's namespace's own, so a command in there reads it.
local function check_ip_forward(manager, _, ctx)
  local text, err = nft.command(manager, OP, { "cat", "/proc/sys/net/ipv4/ip_forward" }, nil, ctx)
  if not text then return nil, err end
  if text:match("^1") then return answer("ip_forward", true, "the kernel forwards IPv4") end
  return answer("ip_forward", false, "the kernel forwards no IPv4 between interfaces, so no guest "
    .. "gets out; switching it on makes this host a router",
    "sysctl -w net.ipv4.ip_forward=1, and the same line in /etc/sysctl.d to keep it")
end

-- ---- other people's chains on the forward hook ----------------------------------------------

-- Does this side of a match name the interface? "br*" is how nft writes a beginning.
local function names_interface(right, name)
  if type(right) == "table" then
    for _, item in ipairs(right.set or {}) do
      if names_interface(item, name) then return true end
    end
    return false
  end
  if type(right) ~= "string" then return false end
  local beginning = right:match("^(.*)%*$")
  return right == name or beginning ~= nil and name:sub(1, #beginning) == beginning
end

-- What a rule is about: "in" and "out" name the interface it wants (or are false), answers is set
-- when it looks at the connection's state, verdict is what it does, bare that it does so to all.
local function read_rule(rule, bridge)
  local facts = { bare = true }
  for _, expression in ipairs(rule.expr or {}) do
    local match, xt = expression.match, expression.xt
    local left = match and type(match.left) == "table" and match.left or {}
    local key = left.meta and left.meta.key
    if key == "iifname" or key == "iif" or key == "oifname" or key == "oif" then
      facts[key:sub(1, 1)] = match.op == "==" and names_interface(match.right, bridge)
      facts.interface = true
    end
    if left.ct and left.ct.key == "state" or xt and xt.name == "conntrack" then
      facts.answers = true
    end
    if match or xt and xt.type == "match" then facts.bare = false end
    for _, verdict in ipairs{ "accept", "drop", "reject", "jump", "goto" } do
      if expression[verdict] ~= nil then facts.verdict = verdict end
    end
    if xt and xt.type == "target" then facts.verdict = xt.name:lower() end
  end
  return facts
end

local LETS_THROUGH = { accept = true, jump = true, ["goto"] = true }
local STOPS = { drop = true, reject = true }

-- Does the table stop all that it does not know, and is there nothing in it about the bridge? Not a
-- simulation: rules that name the bridge show that somebody has thought of it.
local function stops_guests(objects, chain, bridge)
  local stops, out, back = chain.policy == "drop", false, false
  for _, object in ipairs(objects) do
    local rule = object.rule
    local facts = rule and read_rule(rule, bridge)
    if facts then
      if rule.chain == chain.name and facts.bare and STOPS[facts.verdict] then stops = true end
      if LETS_THROUGH[facts.verdict] then
        out = out or facts.i
        back = back or facts.o or facts.answers and not facts.interface
      end
    end
  end
  return stops and not (out and back)
end

local function fix_for(objects, chain, spec)
  if chain.table == "filter" and chain.name == "FORWARD" then -- of iptables, Docker's or not
    local name = "FORWARD"
    for _, object in ipairs(objects) do
      if object.chain and object.chain.name == "DOCKER-USER" then name = "DOCKER-USER" end
    end
    if not spec.uplink then
      return ("iptables -I %s -o %s -m conntrack --ctstate DNAT -j ACCEPT; iptables -I %s -i %s -m "
        .. "conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"):format(name, spec.bridge, name, spec.bridge)
    end
    return ("iptables -I %s -i %s -o %s -j ACCEPT; iptables -I %s -i %s -o %s -m conntrack "
      .. "--ctstate RELATED,ESTABLISHED -j ACCEPT"):format(name, spec.bridge, spec.uplink, name,
      spec.uplink, spec.bridge)
  end
  local place = ("nft insert rule %s %s %s "):format(chain.family, chain.table, chain.name)
  if not spec.uplink then
    return ("%soifname %s ct status dnat accept; %siifname %s ct state established,related accept"):format(
      place, spec.bridge, place, spec.bridge)
  end
  return ("%siifname %s oifname %s accept; %siifname %s oifname %s ct state established,related accept")
    :format(place, spec.bridge, spec.uplink, place, spec.uplink, spec.bridge)
end

-- Rules of the old iptables are not in nft's lists; the kernel only says that there are some.
local function check_legacy(manager, spec, ctx)
  local names = nft.command(manager, OP, { "cat", "/proc/net/ip_tables_names" }, nil, ctx)
  if not names or not names:find("filter", 1, true) then return end
  local rules = nft.command(manager, OP, { "iptables-legacy", "-S" }, nil, ctx)
  if not rules then
    return answer("forward_policy", false, "there are rules of the old iptables (kernel module "
      .. "ip_tables), which nft can't show", "see that `iptables-legacy -S FORWARD` drops nothing")
  end
  local stops = rules:find("-P FORWARD DROP", 1, true) or rules:find("\n-A FORWARD -j DROP", 1, true)
    or rules:find("\n-A FORWARD -j REJECT", 1, true)
  if stops and not rules:find(" -i " .. spec.bridge .. " ", 1, true) then
    return answer("forward_policy", false, "the old iptables drops what it does not know "
      .. "(iptables-legacy, chain FORWARD); accepting in our own table does not overrule that",
      (fix_for({}, { table = "filter", name = "FORWARD" }, spec):gsub("iptables ", "iptables-legacy ")))
  end
end

-- An accept ends the evaluation of its own chain only: a drop anywhere else wins.
local function check_forward_policy(manager, spec, ctx)
  local objects, err = nft.list(manager, OP, "list chains", ctx)
  if not objects then return nil, err end
  local found, fixes = {}, {}
  for _, object in ipairs(objects) do
    local chain = object.chain
    if chain and chain.hook == "forward" and (chain.family == "ip" or chain.family == "inet")
      and not chain.table:match("^fcproc_%x+$") then
      local rules
      rules, err = nft.list(manager, OP, ("list table %s %s"):format(chain.family, chain.table), ctx)
      if not rules then return nil, err end
      if stops_guests(rules, chain, spec.bridge) then
        found[#found + 1] = ("table %s %s, chain %s"):format(chain.family, chain.table, chain.name)
        fixes[#fixes + 1] = fix_for(rules, chain, spec)
      end
    end
  end
  if #found == 0 then
    return check_legacy(manager, spec, ctx)
      or answer("forward_policy", true, "no other firewall stops the guests, as far as its rules tell")
  end
  return answer("forward_policy", false, table.concat(found, " and ") .. " drops what it does not "
    .. "know, and names no " .. spec.bridge .. "; accepting in our own table does not overrule that",
    table.concat(fixes, "; "))
end

local function check_nft(manager, spec, ctx)
  local ok, err = nft.apply(manager, OP, spec.script, ctx, true)
  if ok then return answer("nftables", true, "the kernel takes our tables") end
  if err.code == "not_found" then return answer("nftables", false, err.message, "apt install nftables") end
  if err.code == "permission" then return answer("nftables", false, err.message, "run it as root") end
  if err.code ~= "exit_status" then return nil, err end
  return answer("nftables", false, "the kernel would not take our tables: " .. err.message,
    "a kernel with nf_tables for bridges and NAT: CONFIG_NF_TABLES_BRIDGE, CONFIG_NFT_MASQ, CONFIG_NFT_CT")
end

---@class fcproc.ForwardingSpec
---@field bridge string
---@field uplink string?  nil: only what comes in for published ports
---@field script string  what the kernel is asked to take, dry

---@param manager fcproc.Manager
---@param spec fcproc.ForwardingSpec
---@param ctx fcproc.Context?
---@return fcproc.NatCheck[]? answers
---@return fcproc.Error? err
function M.check(manager, spec, ctx)
  local answers = {}
  for _, check in ipairs{ check_nft, check_ip_forward, check_uplink, check_forward_policy } do
    local found, err
    local asked = check ~= check_uplink or spec.uplink
    if asked and (check ~= check_forward_policy or answers[1].ok) then -- nobody can list without nft
      found, err = check(manager, spec, ctx)
    end
    if err then return nil, err end
    answers[#answers + 1] = found
  end
  return answers
end

return M
