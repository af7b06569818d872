-- A busted output handler: one line a test with its time, the failures in full, and the closing
-- line that CI reads. A pending test is a failed one, but for those that are said to be direct mode's alone.

return function()
  local busted = require "busted"
  local handler = require "busted.outputHandlers.base"()

  local function show(failure)
    local message, trace = failure.message, failure.element and failure.element.trace
    if type(message) ~= "string" then message = tostring(message or "pending") end
    io.write(("\nFAILED: %s\n  %s\n  %s\n"):format(failure.name,
      trace and ("%s:%d"):format(trace.source:sub(2), trace.currentline) or "",
      message:gsub("\n", "\n  ")))
  end

  -- Why a test does not run as an ordinary user: see support.direct_only.
  local function direct_only(pending)
    local message = pending and pending.message
    return type(message) == "string" and message:match("direct only: (.*)$")
  end

  handler.testEnd = function(element, _, status)
    local last = handler.pendings[#handler.pendings]
    io.write(("%s %6.0f ms  %s\n"):format(status == "success" and "ok  "
      or status == "pending" and direct_only(last) and "root" or "FAIL",
      (element.duration or 0) * 1000, handler.getFullName(element)))
    io.flush()
    return nil, true
  end

  handler.suiteEnd = function()
    local failed, skipped = 0, {}
    for _, list in ipairs{ handler.failures, handler.errors, handler.pendings } do
      for _, failure in ipairs(list) do
        local reason = direct_only(failure)
        if reason then
          skipped[#skipped + 1] = ("%s: %s"):format(failure.name, reason)
        else
          failed = failed + 1
          show(failure)
        end
      end
    end
    if #skipped > 0 then
      io.write(("\n%d of direct mode only:\n  %s\n"):format(#skipped, table.concat(skipped, "\n  ")))
    end
    io.write(("\n%d passed, %d failed\n"):format(handler.successesCount, failed))
    io.flush()
    return nil, true
  end

  busted.subscribe({ "test", "end" }, handler.testEnd, { predicate = handler.cancelOnPending })
  busted.subscribe({ "suite", "end" }, handler.suiteEnd)
  busted.subscribe({ "error" }, function() return nil, true end)
  return handler
end
