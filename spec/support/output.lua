-- A busted output handler: one line a test with its time, the failures in full, and the closing
-- line that CI reads.

return function()
  local busted = require "busted"
  local handler = require "busted.outputHandlers.base"()

  handler.testEnd = function(element, _, status)
    io.write(("%s %6.0f ms  %s\n"):format(status == "success" and "ok  " or "FAIL",
      (element.duration or 0) * 1000, handler.getFullName(element)))
    io.flush()
    return nil, true
  end

  handler.suiteEnd = function()
    local failed = 0
    for _, list in ipairs{ handler.failures, handler.errors, handler.pendings } do
      for _, failure in ipairs(list) do
        failed = failed + 1
        local message = failure.message
        if type(message) ~= "string" then message = tostring(message or "pending") end
        io.write(("\nFAILED: %s\n  %s\n  %s\n"):format(failure.name,
          failure.element and failure.element.trace
            and ("%s:%d"):format(failure.element.trace.source:sub(2),
              failure.element.trace.currentline) or "",
          message:gsub("\n", "\n  ")))
      end
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
