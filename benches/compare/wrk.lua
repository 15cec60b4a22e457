-- What a workload asks wrk for beyond its options, and the figures as one line of JSON.
--   wrk ... -s wrk.lua URL -- DEPTH BYTES      DEPTH requests at once on each connection; a POST of BYTES unless that is 0

function init(args)
    local depth, bytes = tonumber(args[1]), tonumber(args[2])
    if bytes > 0 then
        wrk.method, wrk.body = "POST", string.rep("ringway\n", bytes / 8)
    end
    if depth > 1 then
        local batch = string.rep(wrk.format(), depth)
        request = function() return batch end
    end
end

function done(summary, latency)
    local e = summary.errors
    io.write(string.format(
        '{"seconds": %.6f, "requests": %d, "errors": %d, "p50_us": %d, "p99_us": %d}\n',
        summary.duration / 1e6, summary.requests, e.connect + e.read + e.write + e.status + e.timeout,
        latency:percentile(50), latency:percentile(99)))
end
