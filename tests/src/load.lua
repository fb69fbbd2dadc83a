-- Counts answers by who gave them: arguments are the pause after each request of a connection in milliseconds, and `kept` or
-- `fresh` connections. Prints `served COUNT NAME` for all so far every hundred answers, and at the end `ended` with wrk's
-- own counts.

local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  pause = tonumber(args[1])
  served = {}
  answers = 0
  if args[2] == "fresh" then
    wrk.headers["Connection"] = "close"
  end
end

function delay()
  return pause
end

local function tell(all)
  for name, count in pairs(all) do
    io.write("served ", count, " ", name, "\n")
  end
  io.flush()
end

function response(status, headers, body)
  local name = "status " .. status
  if status == 200 then
    local version = body:match("^shop (%S+)") or "unknown"
    name = (headers["x-instance"] or "unknown") .. " " .. version
  end
  served[name] = (served[name] or 0) + 1
  answers = answers + 1
  if answers % 100 == 0 then
    tell(served)
  end
end

function done(summary, latency, requests)
  for _, thread in ipairs(threads) do
    tell(thread:get("served"))
  end
  local errors = summary.errors
  io.write("ended ", summary.requests, " ", errors.connect, " ", errors.read, " ", errors.write, " ", errors.status, " ",
    errors.timeout, "\n")
end
