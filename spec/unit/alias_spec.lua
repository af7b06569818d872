-- The alias that tells whose a link is.

local aliases = require "fcproc.alias"

describe("an alias", function()
  it("tells the runtime folder and the VM", function()
    assert.are.equal("fcproc:/run/fcproc/web", aliases.of("/run/fcproc", "web"))
    assert.are.equal("web", aliases.id_of("/run/fcproc", "fcproc:/run/fcproc/web"))
  end)

  it("of a folder is nobody's, and not that of a VM in the folder above", function()
    assert.are.equal("fcproc:/run/fcproc/web/", aliases.of("/run/fcproc/web"))
    assert.is_nil(aliases.id_of("/run/fcproc", aliases.of("/run/fcproc/web")))
    assert.is_nil(aliases.id_of("/run/fcproc", aliases.of("/run/fcproc")))
    assert.is_nil(aliases.id_of("/run/fcproc", aliases.of("/run/fcproc/web", "a")))
    assert.are.equal("fcproc:", aliases.of(nil))
  end)

  it("fits, however deep the folder is, and is the same each time", function()
    local deep, id = "/" .. ("d"):rep(250), ("i"):rep(64)
    local alias = aliases.of(deep, id)
    assert.is_true(#alias <= aliases.MOST)
    assert.are.equal(alias, aliases.of(deep, id))
    assert.are.equal(id, aliases.id_of(deep, alias))
    assert.is_nil(aliases.id_of(deep .. "e", alias))
    for length = 100, 260 do
      assert.is_true(#aliases.of("/" .. ("d"):rep(length), id) <= aliases.MOST)
    end
  end)

  it("that somebody else has written is nobody's", function()
    for _, text in ipairs{ "", "uplink", "fcproc:", "fcproc:/run/fcproc", "fcproc:/run/fcproc/",
      "fcproc:/run/fcproc/a b", "fcproc:/run/fcproc/../x", "fcproc:/run/fcproc/" .. ("x"):rep(65) } do
      assert.is_nil(aliases.id_of("/run/fcproc", text), text)
    end
    assert.is_nil(aliases.id_of("/run/fcproc", nil))
  end)
end)
