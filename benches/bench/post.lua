-- Script for wrk: posts the file BENCH_BODY repeatedly and prints the results as one line of JSON.
local file = assert(io.open(os.getenv("BENCH_BODY"), "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
wrk.headers["Content-Type"] = os.getenv("BENCH_CONTENT_TYPE") or "application/json"
wrk.headers["X-Api-Key"] = os.getenv("BENCH_KEY")
file:close()

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %.6f, "status_errors": %d, "socket_errors": %d, "timeouts": %d',
    summary.requests, summary.duration / 1e6, errors.status, errors.connect + errors.read + errors.write, errors.timeout))
  for _, percentile in ipairs({ 50, 90, 99, 99.9 }) do
    io.write(string.format(', "p%g": %.3f', percentile, latency:percentile(percentile) / 1e3))
  end
  io.write("}\n")
end
