-- What the end of a Firecracker means, in words.

local exit = require "fcproc.machine.exit"
local versions = require "spec.support.versions"

local function says(text, ended, context)
  local sentence = exit.describe(ended, context)
  assert.is_truthy(sentence:find(text, 1, true), sentence)
  assert.is_nil(sentence:find("\n", 1, true))
end

describe("the end of a Firecracker", function()
  it("is told for every status that it documents", function()
    for status, text in pairs{
      [0] = "0: the guest reset", [1] = "1: a general failure", [2] = "2: a mistake inside",
      [12] = "12: out of memory", [148] = "148: seccomp violation (SIGSYS): ",
      [149] = "149: SIGBUS: guest memory", [150] = "150: SIGSEGV", [151] = "151: SIGXFSZ",
      [152] = "152: bad configuration", [153] = "153: bad arguments", [154] = "154: SIGXCPU",
      [155] = "155: SIGPIPE", [156] = "156: SIGHUP", [157] = "157: SIGILL",
    } do
      says(text, { status = status })
    end
    says("77: a status that Firecracker does not document", { status = 77 })
  end)

  it("is told for signals", function()
    says("SIGABRT: Firecracker panicked", { signal = 6 })
    says("OOM killer", { signal = 9 })
    says("SIGTERM: ended from outside", { signal = 15 })
    says("SIGINT: ended from outside", { signal = 2 })
    says("SIGSYS: seccomp violation", { signal = 31 })
    says("SIGSEGV: ended by this signal", { signal = 11 })
    says("signal 34: ended by this signal", { signal = 34 })
  end)

  it("is told as what was asked for, when it was", function()
    assert.are.equal("SIGKILL: as asked for", exit.as_asked("sigkill", { signal = 9 }))
    assert.is_nil(exit.as_asked("gone", { signal = 9 }))
    assert.is_nil(exit.as_asked("sigkill", { status = 0 }))
    assert.is_nil(exit.as_asked("sigterm", nil))
  end)

  it("by its guest's triple fault is told by the log, whatever the status", function()
    for _, recorded in ipairs(versions.triple_faults) do
      assert.is_true(exit.is_triple_fault(recorded[2]), recorded[1])
    end
    assert.is_false(exit.is_triple_fault("2026-11-30T05:07:13.1 [vm-1:main] Vmm is stopping.\n"))
    assert.is_false(exit.is_triple_fault("Unexpected exit reason on vcpu run: Shutdown\n"))
    assert.is_false(exit.is_triple_fault(""))
    for status = 0, 1 do
      says(status .. ": the guest's CPU gave up", { status = status }, { triple_fault = true, jailer = true })
    end
    says("SIGKILL", { signal = 9 }, { triple_fault = true })
    says("148: seccomp", { status = 148 }, { triple_fault = true })
  end)

  it("of a VM that ran is told by what its vCPU logged, whatever the status", function()
    local vcpu = "2026-11-30T16:19:24.302738070 [vm-1:fc_vcpu 0] Received KVM_EXIT_INTERNAL_ERROR signal\n"
    local ended = "2026-11-30T16:19:24.311840288 [vm-1:main] RunWithApiError error: MicroVM stopped with an "
      .. "error: GenericError\n"
    for _, log in ipairs{ vcpu, vcpu .. ended } do
      local words = exit.vcpu_error(log)
      assert.are.equal("Received KVM_EXIT_INTERNAL_ERROR signal", words)
      for status = 0, 1 do
        says(status .. ": the VM ran, and its vCPU could not go on: Received", { status = status },
          { vcpu_error = words, jailer = true })
      end
      says("1: the guest's CPU gave up", { status = 1 }, { vcpu_error = words, triple_fault = true })
      says("153: bad arguments", { status = 153 }, { vcpu_error = words })
    end
    assert.are.equal("MicroVM stopped with an error: GenericError", exit.vcpu_error(ended))
    for _, log in ipairs{ "", "Received KVM_EXIT_INTERNAL_ERROR signal\n", "2026-11-30T16:19:24.3 "
      .. "[x:fc_vcpu 0] Received a VcpuEvent::Resume message with immediate_exit enabled.\n" } do
      assert.is_nil(exit.vcpu_error(log))
    end
  end)

  it("is usual, or makes one ask what program it was", function()
    for _, ended in ipairs{ { status = 1 }, { status = 153 }, { signal = 9 }, { signal = 15 } } do
      assert.is_true(exit.is_usual(ended))
    end
    for _, ended in ipairs{ { status = 0 }, { status = 3 }, { signal = 11 }, { signal = 6 } } do
      assert.is_false(exit.is_usual(ended))
    end
  end)

  it("is not guessed", function()
    for _, ended in ipairs{ false, {}, { text = "x" } } do
      assert.are.equal("the exit status is unknown", exit.describe(ended or nil))
    end
    assert.are.equal("the exit status is unknown", exit.describe(nil, { jailer = true }))
  end)

  it("may be the jailer's", function()
    says("1: the jailer failed, or Firecracker did", { status = 1 }, { jailer = true })
    says("SIGABRT: the jailer failed, or Firecracker did", { signal = 6 }, { jailer = true })
    says("153: bad arguments", { status = 153 }, { jailer = true })
    says("this is not its end", { status = 0 }, { jailer = true, daemonized = true })
    says("0: the guest reset", { status = 0 }, { jailer = true })
    says("SIGKILL", { signal = 9 }, { jailer = true, daemonized = true })
  end)
end)
