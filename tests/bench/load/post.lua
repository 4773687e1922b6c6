-- For wrk: users that post texts and wait for the answers, without a pause. A thread is a user: it has one connection.
--
--   wrk -t16 -c16 -d32s --timeout 300s -s post.lua URL -- BODIES WARMUP SEED
--
-- BODIES: a file with a request's body a line, drawn at random. Prints for each answer that came behind the first WARMUP seconds its status
-- and the microseconds from the request to it; wrk's own figures have the warm-up in them.

local ffi = require("ffi")
ffi.cdef("typedef struct { long s, ns; } tfinfer_time; int clock_gettime(int clock, tfinfer_time *out);")
local users, now = {}, ffi.new("tfinfer_time")

local function microseconds()
    ffi.C.clock_gettime(1, now) -- CLOCK_MONOTONIC
    return tonumber(now.s) * 1e6 + tonumber(now.ns) / 1e3
end

function setup(thread)
    thread:set("number", #users)
    table.insert(users, thread)
end

function init(arguments)
    requests, answers = {}, {}
    for body in io.lines(arguments[1]) do
        table.insert(requests, wrk.format("POST", nil, {["Content-Type"] = "application/json"}, body))
    end
    counted_from = microseconds() + arguments[2] * 1e6
    math.randomseed(arguments[3] * 1000 + number)
end

function request()
    local text = requests[math.random(#requests)]
    sent = microseconds()
    return text
end

function response(status)
    local came = microseconds()
    if came >= counted_from then
        table.insert(answers, status .. " " .. math.floor(came - sent))
    end
end

function done()
    for _, user in ipairs(users) do
        for _, answer in ipairs(user:get("answers")) do
            print("answer " .. answer)
        end
    end
end
